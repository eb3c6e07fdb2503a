"""Performs I/O: TensorZero's gateway, a compiled one (Rust) that comes inside an ordinary Python wheel.

It stores nothing here: its observability is off, since that needs a database server.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.cases import OPEN, TRANSLATED
from bench.load import Target
from bench.peers.install import python_environment
from bench.peers.peer import OPENAI_SHAPED, Peer, RunningPeer
from bench.process import started

VERSION = "2026.6.0"
_MODEL = """
[models.{name}]
routing = ["upstream"]

[models.{name}.providers.upstream]
type = "{kind}"
model_name = "{name}"
api_base = "{url}/"
api_key_location = "{key}"
"""
_CONFIG = """
[gateway]
observability.enabled = false
disable_pseudonymous_usage_analytics = true

[object_storage]
type = "disabled"
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


class TensorZero(Peer):
    """The contender that the goals name."""

    name = f"tensorzero {VERSION}"
    cases = OPENAI_SHAPED | {TRANSLATED.name, OPEN.name}

    @contextmanager
    def serving(self, folder: Path, upstream_url: str, cores: set[int]) -> Iterator[RunningPeer]:
        """Installs and starts it. Raises NotServed."""
        python = python_environment(f"tensorzero-{VERSION}", f"tensorzero=={VERSION}") / "python"
        config = folder / "tensorzero.toml"
        models = [
            _MODEL.format(name=name, kind="openai", url=upstream_url, key="none")
            for name in ("whole", "few", "each", "paced", "slow")
        ]
        models.append(_MODEL.format(name="claude", kind="anthropic", url=upstream_url, key="env::BENCH_KEY"))
        config.write_text(_CONFIG + "".join(models))
        command = [str(python), "-c", _RUN, str(config)]
        url = r"http://[\w.]+:(\d+)/openai/v1"
        with started(command, url, folder / "tensorzero.log", cores, {"BENCH_KEY": "any"}) as (process, port):
            yield RunningPeer(process, Target(port, "/openai/v1/chat/completions", "tensorzero::model_name::"))
