"""Performs I/O: LiteLLM's proxy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.cases import FEW, WHOLE
from bench.load import Target
from bench.peers.install import python_environment
from bench.peers.peer import Peer, RunningPeer
from bench.process import free_port, listening

VERSIONS = ("1.110.2", "1.108.7")  # the older one where a package that the newer one needs is not to be had
_KEY = "sk-bench"
_MODEL = """
  - model_name: {name}
    litellm_params: {{model: openai/{name}, api_base: "{url}", api_key: any}}
"""


class LiteLLM(Peer):
    """With its master key, so it checks keys; without a Postgres database it meters nothing."""

    share = 0.05
    cases = frozenset({WHOLE.name, FEW.name})

    def __init__(self, version: str) -> None:
        self.name = f"litellm {version}"
        self._version = version

    @contextmanager
    def serving(self, folder: Path, upstream_url: str, cores: set[int]) -> Iterator[RunningPeer]:
        """Installs and starts it. Raises NotServed."""
        program = python_environment(f"litellm-{self._version}", f"litellm[proxy]=={self._version}") / "litellm"
        config = folder / "litellm.yaml"
        models = "".join(_MODEL.format(name=name, url=upstream_url) for name in ("whole", "few"))
        config.write_text(f"model_list:{models}general_settings: {{master_key: {_KEY}}}\n")
        port = free_port()
        command = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        with listening(command, port, folder / "litellm.log", cores, ready="/health/liveliness") as process:
            yield RunningPeer(process, Target(port, key=_KEY))
