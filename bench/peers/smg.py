"""Performs I/O: Shepherd Model Gateway, a compiled one (Rust) that comes inside an ordinary Python wheel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.load import Target
from bench.peers.install import python_environment
from bench.peers.peer import Peer, RunningPeer
from bench.process import free_port, listening

VERSION = "1.13.0"
_OPTIONS = (
    *("--backend", "openai", "--host", "127.0.0.1", "--history-backend", "none", "--log-level", "error"),
    *("--disable-health-check", "--disable-tokenizer-autoload"),
)


class Smg(Peer):
    """It balances load over servers of one kind: no keys, prices or ledger."""

    name = f"smg {VERSION}"

    @contextmanager
    def serving(self, folder: Path, upstream_url: str, cores: set[int]) -> Iterator[RunningPeer]:
        """Installs and starts it. Raises NotServed."""
        program = python_environment(f"smg-{VERSION}", f"smg=={VERSION}") / "smg"
        port, metrics = free_port(), free_port()
        command = [str(program), "launch", *_OPTIONS, "--port", str(port), "--prometheus-port", str(metrics)]
        command += ["--worker-urls", upstream_url.removesuffix("/v1")]
        with listening(command, port, folder / "smg.log", cores, ready="/readiness") as process:
            yield RunningPeer(process, Target(port))
