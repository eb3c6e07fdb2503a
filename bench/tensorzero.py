"""Performs I/O: TensorZero's gateway, a compiled one that comes inside an ordinary Python wheel.

It is installed on demand into an environment of its own in the cache folder, never into ours. It stores nothing here:
its observability is off, since that needs a database server.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.load import Target
from bench.process import Measured, NotServed, started

VERSION = "2026.6.0"
_INSTALL_S = 600
_MODEL = """
[models.{name}]
routing = ["upstream"]

[models.{name}.providers.upstream]
type = "openai"
model_name = "{name}"
api_base = "{url}/"
api_key_location = "none"
"""
_CONFIG = """
[gateway]
observability.enabled = false
disable_pseudonymous_usage_analytics = true
"""
# It serves on a port of its own choice, which only this call tells, for as long as its standard input is open.
_RUN = """
import sys
from tensorzero import tensorzero
gateway = tensorzero._start_http_gateway(
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
)
print(gateway.base_url, flush=True)
sys.stdin.buffer.read()
"""


class TensorZero:
    """The contender. `cache`: the folder for its environment."""

    name = f"tensorzero {VERSION}"

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "multi-model-proxy"

    @contextmanager
    def serving(self, folder: Path, upstream_url: str, cores: set[int]) -> Iterator[Gateway]:
        """Installs and starts it. Raises NotServed."""
        python = self._installed()
        config = folder / "tensorzero.toml"
        models = [_MODEL.format(name=name, url=upstream_url) for name in ("whole", "few", "each")]
        config.write_text(_CONFIG + "".join(models))
        command = [str(python), "-c", _RUN, str(config)]
        url = r"http://[\w.]+:(\d+)/openai/v1"
        with started(command, url, folder / "tensorzero.log", cores) as (process, port):
            yield Gateway(process, port)

    def _installed(self) -> Path:
        """The Python of its environment, made if it is not there. Raises NotServed."""
        environment = self._cache / f"tensorzero-{VERSION}-py{sys.version_info[0]}.{sys.version_info[1]}"
        python, ready = environment / "bin" / "python", environment / "ready"
        if ready.exists():
            return python
        shutil.rmtree(environment, ignore_errors=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
        for command in ([sys.executable, "-m", "venv", str(environment)], [*pip, f"tensorzero=={VERSION}"]):
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise NotServed(f"it cannot be installed: {error}") from error
            if done.returncode != 0:
                lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
                raise NotServed(f"it cannot be installed: {lines[-1] if lines else command[0]}")
        ready.touch()
        return python


class Gateway:
    """A running TensorZero."""

    def __init__(self, process: Measured, port: int) -> None:
        self.process = process
        self.target = Target(port, "/openai/v1/chat/completions", "tensorzero::model_name::")

    def check(self, answers: int) -> None:
        """It keeps no ledger: nothing to compare."""
