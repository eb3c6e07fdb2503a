"""Performs I/O: Portkey's gateway, which runs on Node.js."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.cases import EACH, FEW, WHOLE
from bench.load import Target
from bench.peers.install import node_packages
from bench.peers.peer import Peer, RunningPeer
from bench.process import free_port, listening

VERSION = "1.15.2"
# Its own ranges reach to versions that it does not start with.
_WITH = ("hono@4.9.7", "@hono/node-server@1.13.5", "@hono/node-ws@1.2.0")


class Portkey(Peer):
    """It stores and meters nothing."""

    name = f"portkey {VERSION}"
    share = 0.25
    cases = frozenset({WHOLE.name, FEW.name, EACH.name})

    @contextmanager
    def serving(self, folder: Path, upstream_url: str, cores: set[int]) -> Iterator[RunningPeer]:
        """Installs and starts it. Raises NotServed."""
        modules = node_packages(f"portkey-{VERSION}", f"@portkey-ai/gateway@{VERSION}", *_WITH)
        port = free_port()
        command = ["node", str(modules / "@portkey-ai/gateway/build/start-server.js"), f"--port={port}", "--headless"]
        environ = {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1"}
        with listening(command, port, folder / "portkey.log", cores, environ) as process:
            headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": upstream_url}
            yield RunningPeer(process, Target(port, headers=headers))
