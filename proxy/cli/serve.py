"""`proxy serve`: binds the socket, prints what is enabled, serves until SIGTERM and drains."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import shlex
import signal
import socket
import sys
import time
from contextlib import ExitStack
from typing import Any

import click
import uvicorn

from proxy import __version__
from proxy.cli.dashboard import address, dashboard_line
from proxy.cli.interpreter import tune
from proxy.cli.settings import (
    config_files,
    configuration_options,
    fail,
    places,
    read_config,
    seed_volume,
    store_problem,
)
from proxy.cli.sighup import hangup_handler
from proxy.cli.supervisor import Supervisor
from proxy.cli.worker import BROKER_VARIABLE, METRICS_VARIABLE
from proxy.config import Config
from proxy.config.environment import OWN_KEYS, trimmed
from proxy.config.namespace import enabled, names_now
from proxy.config.server import is_loopback
from proxy.config.source import ConfigFiles
from proxy.server.app import Application, Options, server_auth
from proxy.server.http1 import HTTP1Protocol
from proxy.server.log import build_log
from proxy.server.telemetry.signals import signals
from proxy.server.web.doors import new_secret
from proxy.server.web.site import SECRET_VARIABLE
from proxy.server.wiring import build_ledger, build_store, key_store, local_models
from proxy.storage.base import StoreError
from proxy.storage.keys import StoredKey
from proxy.storage.scratch import scratch_folder
from proxy.upstream.local_model import LocalModel, LocalModelBroker

MIN_KEY = 16
KEEP_ALIVE_S = 75  # longer than the idle time-outs of client pools, so that the client closes first


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
    seed_volume(flags, os.environ)
    config = read_config(flags, os.environ)
    _refuse_open_bind(config)
    _allow_files(config.server.max_in_flight)
    sock = _bind(config.server.host, config.server.port)
    _try_store(config)
    models = local_models(config)
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(
            sig, lambda *_: sys.exit(0)
        )  # uvicorn raises the signal again after draining; that is a clean exit
    files = config_files(flags, os.environ)
    secret = new_secret()
    port = sock.getsockname()[1]
    used = {**places(files, config), "dashboard": dashboard_line(config, secret, port, _stored_keys(config))}
    click.echo(_banner(config, used, models, port))
    sys.stdout.flush()
    if config.server.workers == 1:
        _serve_alone(config, files, models, sock, secret)
    else:
        os.environ[SECRET_VARIABLE] = secret.hex()
        _serve_workers(config, flags, models, sock)


def server_config(config: Config, app: Any, **extra: Any) -> uvicorn.Config:
    """The uvicorn configuration: no access log (we log one line per call), no proxy headers, no `server` header."""
    return uvicorn.Config(
        app,
        http=HTTP1Protocol,
        loop="proxy.server.http1.acceptor:Loop",
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


def _serve_alone(
    config: Config, files: ConfigFiles, models: dict[str, LocalModel], sock: socket.socket, secret: bytes
) -> None:
    log = build_log(config.server.log_format)
    options = Options(files=files, signals=signals(os.environ), pages_secret=secret)
    app = Application(config, models, server_auth(os.environ, config), log, options)
    signal.signal(signal.SIGHUP, hangup_handler(app.reload_soon))
    server = uvicorn.Server(server_config(config, app.asgi))
    tune()
    server.run(sockets=[sock])
    if not server.started or app.has_failed:
        sys.exit(1)


def _serve_workers(config: Config, flags: dict[str, Any], models: dict[str, LocalModel], sock: socket.socket) -> None:
    """Runs uvicorn's supervisor. This process owns the embedded model, which the workers reach over a Unix socket, and
    the folder in which the workers share their metrics.
    """
    build_log(config.server.log_format)  # for the embedded model, and for what uvicorn says of dead workers
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(scratch_folder())
        except OSError as error:
            fail(f"several workers share a temporary folder, but none can be written: {error.strerror or error}.")
        path = str(folder / "models.sock")
        broker = LocalModelBroker(models, path)
        broker.start()
        try:
            os.environ[BROKER_VARIABLE] = path
            os.environ[METRICS_VARIABLE] = str(folder)
            for name, variable in _INHERITED.items():
                if flags.get(name) is not None:
                    os.environ[variable] = str(flags[name])
            served = server_config(config, "proxy.cli.worker:application", factory=True, workers=config.server.workers)
            Supervisor(served, [sock], folder).run()
        finally:
            broker.stop()


_INHERITED = {
    "config_path": "PROXY_CONFIG",
    "pricing_path": "PROXY_PRICING",
    "db": "PROXY_DB",
    "host": "PROXY_HOST",
    "log_format": "PROXY_LOG_FORMAT",
}


def _refuse_open_bind(config: Config) -> None:
    server = config.server
    if (server.require_key is not True and is_loopback(server.host)) or any(map(os.environ.get, OWN_KEYS)):
        return
    if not any(key.opens(time.time_ns()) for key in _stored_keys(config)):
        fail(
            f"a server on {server.host} needs a key, or anyone who reaches it can spend your money. Create one first:\n"
            '  export PROXY_API_KEY="$(python3 -c \'import secrets; print("mmp-" + secrets.token_urlsafe(32))\')"\n'
            "and pass it to a container with: docker run --env PROXY_API_KEY ...\n"
            "Or store a key in the database, with a name, limits and an expiry date:\n"
            "  proxy keys create NAME"
        )


def _stored_keys(config: Config) -> list[StoredKey]:
    """Every key in the database."""
    store = key_store(config)
    try:
        return store.all() if store.is_there else []
    except StoreError as error:
        store_problem(error)


def _key_variable(config: Config) -> str | None:
    """The variable that holds the API key in the suggested `curl` line; None if no key is required."""
    if config.server.require_key is False and is_loopback(config.server.host):
        return None
    own = next((name for name in OWN_KEYS if os.environ.get(name)), None)
    has_stored = any(key.revoked_ns is None for key in _stored_keys(config))
    return own or ("KEY" if config.server.require_key is True or has_stored else None)


def _allow_files(max_in_flight: int) -> None:
    """Raises the limit on open files as far as the system allows. A call in flight holds two connections, and the
    default on most systems is 1,024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * max_in_flight + 256
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_DEFER_ACCEPT"):  # Linux: a new connection shows up with its request, or a second later
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
        sock.bind(address)
        sock.listen(2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            fail(f"port {port} on {host} is in use. Choose another with --port, or stop the process that uses it.")
        fail(f"cannot listen on {host}:{port}: {error.strerror or error}.")
    sock.set_inheritable(True)
    return sock


def _try_store(config: Config) -> None:
    """Opens the database once before anything else, so that a wrong path gives one line and not a traceback."""

    async def once() -> None:
        ledger = build_ledger(config, build_store(config))
        await ledger.start()
        await ledger.stop()

    try:
        asyncio.run(once())
    except StoreError as error:
        store_problem(error)


def _banner(config: Config, used: dict[str, str | None], models: dict[str, LocalModel], port: int) -> str:
    base_url = f"{address(config, port)}/v1"
    lines = [f"multi-model-proxy {__version__} on {base_url}", ""]
    lines += [
        f"  files       {used['routing']}, {used['pricing'] or 'no prices'}",
        f"  database    {used['database']}",
        f"  dashboard   {used['dashboard']}",
        "",
    ]
    for name in enabled(config):
        missing = models[name].missing() if name in models else None
        about = config.providers[name].about
        lines.append(f"  {name:<12}{missing or 'on'}" + (f": {about}" if about and not missing else ""))
    lines += [f"  {name:<12}off: {why}" for name, why in config.disabled.items()]
    lines += [f"  note: {notice}" for notice in [*config.notices, *_short_keys()]]
    lines += ["", "Try it:", *_key_hint(config), f"  {_trial(config, base_url)}", ""]
    return "\n".join(lines)


def _key_hint(config: Config) -> list[str]:
    """How to set the variable of the `curl` line, if the environment has no key."""
    return (
        ["  KEY=mmp-...   # one of your keys; `proxy keys create NAME` prints a new one"]
        if (_key_variable(config) == "KEY")
        else []
    )


def _short_keys() -> list[str]:
    """A warning for each short environment key: only a long random key cannot be guessed."""
    short = [name for name in OWN_KEYS if 0 < len(trimmed(os.environ.get(name, ""))) < MIN_KEY]
    return [f"{name} has fewer than {MIN_KEY} characters and can be guessed; use a long, random one" for name in short]


def _trial(config: Config, base_url: str) -> str:
    """A `curl` line that works as printed: a question to a model that answers (`auto` first), or the model list."""
    variable = _key_variable(config)
    key = f' -H "authorization: Bearer ${variable}"' if variable else ""
    name = next(iter(names_now(config)), None)
    if name is None:
        return f"curl {base_url}/models{key}"
    body = shlex.quote(json.dumps({"model": name, "messages": [{"role": "user", "content": "Say hello."}]}))
    return f"curl {base_url}/chat/completions{key} -H 'content-type: application/json' -d {body}"
