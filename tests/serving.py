"""The product as its users meet it: a real server on a real socket, in this process or in one of its own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cached_property
from pathlib import Path

import uvicorn
from openai import AsyncOpenAI

from proxy.cli.serve import server_config
from proxy.config.source import ConfigFiles
from proxy.ensembles.base import Ensemble
from proxy.ensembles.registry import STRATEGIES
from proxy.providers import PROVIDERS
from proxy.providers.base.contract import Provider
from proxy.server.app import Application, Options, server_auth
from proxy.server.formats import FORMATS, EndpointFormat
from proxy.server.log import build_log
from proxy.server.runtime import Runtime
from proxy.server.wiring import local_models

ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
router: {{default_model: fake/ok}}
"""
PRICING = """
version: 1
models:
  fake/*: {input: 2.00, output: 10.00, cached_input: 0.50, max_output: 4096}
"""
TIMEOUTS = "{connect: 2, first_token: 2, idle: 2, total: 5}"


class Server:
    """A running proxy: its base URL with /v1, its live objects (in-process only) and an SDK client without retries."""

    def __init__(self, port: int, application: Application) -> None:
        self.port = port
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self._application = application

    @cached_property
    def client(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=self.base_url, api_key="any", max_retries=0)

    @property
    def runtime(self) -> Runtime:
        return self._application.live

    async def close(self) -> None:
        if "client" in self.__dict__:
            await self.client.close()


class _StopsAtOnce(uvicorn.Server):
    """uvicorn's main loop with an event instead of a sleep, which saves up to 0.1 s whenever a server stops."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stopping = asyncio.Event()

    async def main_loop(self) -> None:
        tick = 0
        while not await self.on_tick(tick):
            tick += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), 0.1)

    def stop(self) -> None:
        self.should_exit = True
        self.stopping.set()


def write_files(
    folder: Path, upstream: str, routing: str = ROUTING, pricing: str = PRICING, timeouts: str = TIMEOUTS
) -> Path:
    """Both configuration files in `folder`; returns the routing file. `{db}`, `{upstream}`, `{timeouts}` are filled
    in.
    """
    path = folder / "routing_rules.yaml"
    path.write_text(routing.format(db=folder / "usage.db", upstream=upstream, timeouts=timeouts))
    (folder / "pricing.yaml").write_text(pricing)
    return path


@asynccontextmanager
async def serving(
    routing_file: Path,
    environ: Mapping[str, str] | None = None,
    formats: Sequence[EndpointFormat] = FORMATS,
    types: Mapping[str, type[Provider]] = PROVIDERS,
    strategies: Mapping[str, type[Ensemble]] = STRATEGIES,
    pages_secret: bytes | None = None,
) -> AsyncIterator[Server]:
    """The application in this process, behind uvicorn on a free port."""
    environ = environ or {}
    files = ConfigFiles(routing_file, routing_file.parent / "pricing.yaml", environ, types=types, strategies=strategies)
    config = files.load()
    application = Application(
        config,
        local_models(config),
        server_auth(environ, config),
        build_log("json"),
        Options(files=files, formats=formats, pages_secret=pages_secret),
    )
    # `proxy serve` names the protocol too. Without it asyncio leaves Nagle's algorithm on: 40 ms for each answer.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.bind(("127.0.0.1", 0))
    server = _StopsAtOnce(server_config(config, application.asgi))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        while not server.started:
            if task.done():
                await task
                raise RuntimeError("the server did not start")
            await asyncio.sleep(0.005)
        running = Server(sock.getsockname()[1], application)
        yield running
        await running.close()
    finally:
        server.stop()
        await task
        sock.close()


class Spawned:
    """A proxy in a process of its own, as `proxy serve` starts it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, banner: str) -> None:
        self.process = process
        self.port = port
        self.banner = banner
        self.base_url = f"http://127.0.0.1:{port}/v1"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@contextmanager
def spawned(routing_file: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> Iterator[Spawned]:
    """`proxy serve` on a free port, ready to answer; killed at the end if it still runs."""
    command = [sys.executable, "-m", "proxy", "serve", "--port", "0", "--config", str(routing_file)]
    command += ["--pricing", str(routing_file.parent / "pricing.yaml"), *arguments]
    clean = {name: value for name, value in os.environ.items() if not re.search(r"_API_KEY$|^(PROXY|OTEL)_", name)}
    log = (routing_file.parent / "server.log").open("ab")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env={**clean, **(environ or {})})
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.decode())
            if lines[-1].startswith("  curl "):
                break
        banner = "".join(lines)
        match = re.search(r"http://127\.0\.0\.1:(\d+)/v1", banner)
        if match is None:
            raise RuntimeError(f"the server did not start: {banner} {Path(log.name).read_text()}")
        yield Spawned(process, int(match[1]), banner)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        log.close()
