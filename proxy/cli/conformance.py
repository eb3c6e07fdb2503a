"""`proxy conformance`: what a server, or one name behind the configured proxy, does of OpenAI's wire."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import uvicorn
from msgspec.structs import replace

from proxy.app import Application, server_auth
from proxy.cli.output import json_option, print_json, print_table
from proxy.cli.serve import server_config
from proxy.cli.settings import configuration_options, fail, read_config, store_problem
from proxy.config import Config
from proxy.conformance import CHECKS, GROUPS
from proxy.conformance.base import Check, Verdict, calls_of
from proxy.conformance.formats import image_link
from proxy.conformance.run import Unreachable, run
from proxy.log import build_log
from proxy.parts import local_models
from proxy.storage.base import StoreError

_HEADINGS = ("CHECK", "GROUP", "RESULT", "SEEN")
_RESULTS = ("passed", "failed", "not supported")


@click.command()
@click.option("-m", "--model", required=True, metavar="NAME", help="The name that is called.")
@click.option(
    "--base-url", metavar="URL", help="A server to talk to directly, up to /v1. Default: the configured proxy."
)
@click.option("--api-key-env", metavar="VAR", help="The variable that holds its key.")
@click.option("--only", multiple=True, type=click.Choice(GROUPS), help="Run this group of checks; may come repeatedly.")
@click.option("--image-link", metavar="URL", help="Also ask about this picture, which the provider fetches.")
@json_option
@configuration_options
def conformance(model: str, base_url: str | None, only: tuple[str, ...], as_json: bool, **flags: Any) -> None:
    """Check what a model, or a server, does of OpenAI's wire.

    It makes real calls, which may cost.
    """
    key = _key(base_url, flags.pop("api_key_env"))
    link = flags.pop("image_link")
    chosen = [check for check in CHECKS if not only or check.group in only]
    chosen += [image_link(link)] if link else []
    config = read_config(flags, os.environ) if base_url is None else None
    click.echo(f"{len(chosen)} checks of {model}, in about {calls_of(chosen, model)} calls", err=True)
    try:
        verdicts = asyncio.run(_verdicts(config, chosen, model, (base_url or "", key)))
    except StoreError as error:
        store_problem(error)
    except Unreachable as error:
        fail(f"{base_url} cannot be reached: {error}.")
    counts = {result: sum(each.outcome == result for each in verdicts) for result in _RESULTS}
    if as_json:
        print_json({"model": model, "base_url": base_url, "counts": counts, "checks": verdicts})
    else:
        print_table(_HEADINGS, [(each.check, each.group, each.outcome, each.seen) for each in verdicts])
        click.echo(", ".join(f"{count} {result}" for result, count in counts.items()), err=True)
    if counts["failed"]:
        sys.exit(1)


def _key(base_url: str | None, variable: str | None) -> str | None:
    """The key of the server at `base_url`. Ends the process where that, or the key, cannot be used."""
    if base_url is None:
        if variable is not None:
            fail("--api-key-env is the key of a --base-url; the configured proxy has those of its providers.")
        return None
    if urlsplit(base_url).scheme not in ("http", "https") or not urlsplit(base_url).netloc:
        fail("--base-url must be an http or https address, as http://127.0.0.1:8000/v1.")
    if variable is None:
        return None
    key = os.environ.get(variable, "")
    if not key or not key.isascii() or not key.isprintable():
        fail(f"{variable} is not set, or holds what cannot be a key.")
    return key


async def _verdicts(
    config: Config | None, chosen: list[Check], model: str, server: tuple[str, str | None]
) -> list[Verdict]:
    """Of the server at a base URL with its key; where there is a configuration, of one that is started for this."""
    if config is not None:
        async with _started(config) as base_url:
            return await _run(chosen, model, (base_url, None), environment=False)
    return await _run(chosen, model, server, environment=True)


async def _run(chosen: list[Check], model: str, server: tuple[str, str | None], *, environment: bool) -> list[Verdict]:
    async with aclosing(run(chosen, model, *server, environment=environment)) as verdicts:
        return [verdict async for verdict in verdicts]


class _Server(uvicorn.Server):
    """uvicorn's own, but that signals stay with the command, and that it says when it listens, or never will."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit:  # what the application could not do at its start is in the log
            self.should_exit = True
        finally:
            self.ready.set()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@asynccontextmanager
async def _started(config: Config) -> AsyncGenerator[str, None]:
    """The base URL of a proxy on loopback that asks for no key and keeps its books in a folder that is gone later."""
    with tempfile.TemporaryDirectory(prefix="multi-model-proxy-") as folder:
        own = replace(config.server, host="127.0.0.1", workers=1, require_key=False)
        storage = replace(config.storage, url=f"sqlite:///{Path(folder) / 'usage.db'}")
        config = replace(config, server=own, storage=storage)
        log = build_log("json", quiet=True)
        application = Application(config, local_models(config), server_auth({}, config), log)
        with socket.create_server(("127.0.0.1", 0)) as sock:
            server = _Server(server_config(config, application.asgi))
            serving = asyncio.create_task(server.serve(sockets=[sock]))
            try:
                await server.ready.wait()
                if not server.started:
                    fail("the proxy did not start; `proxy serve` says why.")
                yield f"http://127.0.0.1:{sock.getsockname()[1]}/v1"
            finally:
                server.should_exit = True
                await serving
