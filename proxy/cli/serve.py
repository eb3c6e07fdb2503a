"""`proxy serve`: binds, says what is enabled, serves until SIGTERM, drains."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import json
import os
import shlex
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import uvicorn
from uvicorn.supervisors import Multiprocess

from proxy import __version__
from proxy.api.http1 import HTTP1Protocol
from proxy.app import Application, build_ledger, enabled, local_models, names_now, server_auth
from proxy.auth import Auth
from proxy.cli.settings import configuration_options, fail, read_config, store_problem
from proxy.cli.worker import BROKER_VARIABLE
from proxy.config import Config
from proxy.local_model import LocalModel, LocalModelBroker
from proxy.log import build_log
from proxy.storage.base import StoreError

KEEP_ALIVE_S = 75  # longer than the idle time-outs of the clients' pools, so that they close first


@click.command()
@click.option("--host", metavar="HOST", help="Address to listen on (PROXY_HOST; default 127.0.0.1).")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port to listen on, 0 for any free one (PROXY_PORT; default 8000)."
)
@click.option("--workers", type=click.IntRange(1, 64), help="Worker processes (PROXY_WORKERS; default 1).")
@click.option(
    "--log-format",
    type=click.Choice(["auto", "console", "json"]),
    help="Log lines on standard error (PROXY_LOG_FORMAT).",
)
@configuration_options
def serve(**flags: Any) -> None:
    """Serve the OpenAI-compatible endpoint."""
    config = read_config(flags, os.environ)
    auth = server_auth(os.environ)
    _refuse_open_bind(config, auth)
    sock = _bind(config.server.host, config.server.port)
    _try_store(config)
    models = local_models(config)
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(
            sig, lambda *_: sys.exit(0)
        )  # uvicorn raises the signal again after its drain; that is a clean end
    click.echo(_banner(config, auth, models, sock.getsockname()[1]))
    sys.stdout.flush()
    if config.server.workers == 1:
        _serve_alone(config, auth, models, sock)
    else:
        _serve_workers(config, flags, models, sock)


def server_config(config: Config, app: Any, **extra: Any) -> uvicorn.Config:
    """uvicorn as we run it: no access log (we have one line per call), no proxy headers, no server banner."""
    return uvicorn.Config(
        app,
        http=HTTP1Protocol,
        loop="auto",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(config.server.grace_s)),
        **extra,
    )


def _serve_alone(config: Config, auth: Auth, models: dict[str, LocalModel], sock: socket.socket) -> None:
    app = Application(config, models, auth, build_log(config.server.log_format))
    server = uvicorn.Server(server_config(config, app.asgi))
    server.run(sockets=[sock])
    if not server.started:
        sys.exit(1)


def _serve_workers(config: Config, flags: dict[str, Any], models: dict[str, LocalModel], sock: socket.socket) -> None:
    """uvicorn's supervisor; this process owns the embedded model and lends it to the workers over a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="multi-model-proxy-") as folder:
        path = str(Path(folder) / "models.sock")
        broker = LocalModelBroker(models, path)
        broker.start()
        try:
            os.environ[BROKER_VARIABLE] = path
            for name, variable in _INHERITED.items():
                if flags.get(name) is not None:
                    os.environ[variable] = str(flags[name])
            served = server_config(config, "proxy.cli.worker:application", factory=True, workers=config.server.workers)
            _Supervisor(served, sockets=[sock]).run()
        finally:
            broker.stop()


class _Supervisor(Multiprocess):
    """uvicorn's own, but that it stops listening when its workers do: who connects during the drain is refused at once
    instead of waiting for a worker that does not come.
    """

    def terminate_all(self) -> None:
        for sock in self.sockets:
            sock.close()
        super().terminate_all()


_INHERITED = {
    "config_path": "PROXY_CONFIG",
    "pricing_path": "PROXY_PRICING",
    "db": "PROXY_DB",
    "host": "PROXY_HOST",
    "log_format": "PROXY_LOG_FORMAT",
}


def _refuse_open_bind(config: Config, auth: Auth) -> None:
    server = config.server
    if auth.keyless and (server.require_key is True or not _is_loopback(server.host)):
        fail(
            f"a server on {server.host} needs a key, or everyone who reaches it can spend your money. Make one first:\n"
            '  export PROXY_API_KEY="$(python3 -c \'import secrets; print("mmp-" + secrets.token_urlsafe(32))\')"'
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            fail(f"port {port} on {host} is in use. Choose another with --port, or stop what listens there.")
        fail(f"cannot listen on {host}:{port}: {error.strerror or error}.")
    sock.set_inheritable(True)
    return sock


def _try_store(config: Config) -> None:
    """Opens the database once before anything else, so that a wrong path is one line and not a stack of them."""

    async def once() -> None:
        ledger = build_ledger(config)
        await ledger.start()
        await ledger.stop()

    try:
        asyncio.run(once())
    except StoreError as error:
        store_problem(error)


def _banner(config: Config, auth: Auth, models: dict[str, LocalModel], port: int) -> str:
    host = config.server.host if ":" not in config.server.host else f"[{config.server.host.strip('[]')}]"
    base_url = f"http://{host}:{port}/v1"
    lines = [f"multi-model-proxy {__version__} on {base_url}", ""]
    for name in enabled(config):
        missing = models[name].missing() if name in models else None
        lines.append(f"  {name:<12}{missing or 'on'}")
    lines += [f"  {name:<12}off: {why}" for name, why in config.disabled.items()]
    lines += [f"  note: {notice}" for notice in config.notices]
    lines += ["", "Try it:", f"  {_trial(config, auth, base_url)}", ""]
    return "\n".join(lines)


def _trial(config: Config, auth: Auth, base_url: str) -> str:
    """A shell line that works as it stands: a question to a name that answers, `auto` if it does, else the list."""
    variable = "PROXY_API_KEY" if os.environ.get("PROXY_API_KEY") else "PROXY_ADMIN_KEY"
    key = "" if auth.keyless else f' -H "authorization: Bearer ${variable}"'
    name = next(iter(names_now(config)), None)
    if name is None:
        return f"curl {base_url}/models{key}"
    body = shlex.quote(json.dumps({"model": name, "messages": [{"role": "user", "content": "Say hello."}]}))
    return f"curl {base_url}/chat/completions{key} -H 'content-type: application/json' -d {body}"
