"""`proxy ask`: asks one question and streams the answer, by a running server or in a pipeline of its own.

The call is metered either way.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import click

from proxy.cli.model_names import model_option
from proxy.cli.output import json_option, print_json
from proxy.cli.settings import configuration_options, read_config, store_problem
from proxy.client.ask import NotServed, Refused, answer, runs
from proxy.config import Config
from proxy.schema.errors import ProxyError
from proxy.schema.json import decode_object, encode
from proxy.schema.records import Caller
from proxy.schema.sse import EventFraming
from proxy.server.api.answers import new_id
from proxy.server.auth import own_key
from proxy.server.formats.chat import CHAT
from proxy.server.log import build_log
from proxy.server.wiring import local_models, running
from proxy.storage.base import StoreError

KEY_VARIABLES = ("PROXY_API_KEY", "PROXY_ADMIN_KEY")


@click.command()
@click.argument("question", required=False)
@model_option(default="auto", show_default=True, help="Any name that /v1/models lists.")
@click.option("-s", "--system", metavar="TEXT", help="A system message before the question.")
@click.option("--temperature", type=float, help="Sampling temperature; default: the model's own.")
@click.option("--max-tokens", type=click.IntRange(1), help="Longest answer in tokens; default: the model's own.")
@json_option
@configuration_options
def ask(question: str | None, model: str, as_json: bool, **flags: Any) -> None:
    """Ask QUESTION and stream the answer.

    Without QUESTION, or with -, standard input is the question.
    """
    sampling = {name: flags.pop(name) for name in ("temperature", "max_tokens")}
    system = flags.pop("system")
    config = read_config(flags, os.environ)
    messages = [] if system is None else [{"role": "system", "content": system}]
    messages.append({"role": "user", "content": _question(question)})
    set_fields = {name: value for name, value in sampling.items() if value is not None}
    body = encode({"model": model, "stream": not as_json, "messages": messages, **set_fields})
    try:
        # A database that is named is the one to meter in, whichever a server uses.
        if flags.get("db") or not _asked_server(config, body, as_json):
            asyncio.run(_answer(config, body, as_json))
    except (ProxyError, Refused) as error:
        click.echo(f"proxy: {error.message if isinstance(error, ProxyError) else error}", err=True)
        sys.exit(1)
    except StoreError as error:
        store_problem(error)


def _question(given: str | None) -> str:
    if given is not None and given != "-":
        return given
    if given is None and sys.stdin.isatty():
        raise click.UsageError("Give a QUESTION, or pipe one into standard input.")
    read = sys.stdin.buffer.read().decode("utf-8", "replace").strip()
    if not read:
        raise click.UsageError("Standard input is empty. Give a QUESTION, or pipe one in.")
    return read


def _asked_server(config: Config, body: bytes, as_json: bool) -> bool:
    """True once a running server with the same configuration has answered: it has its models loaded."""
    server = config.server
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name := server.host.strip("[]"), name)
    base_url = f"http://{f'[{host}]' if ':' in host else host}:{server.port}/v1"
    if not runs(base_url, config.version):
        return False
    key = next((key for name in KEY_VARIABLES if (key := own_key(os.environ, name))), None)
    try:
        for chunk in answer(base_url, None if key is None else key.reveal(), body):
            if as_json:
                print_json(chunk)
            else:
                _print_delta(chunk)
    except NotServed:
        return False
    if not as_json:
        click.echo()
    return True


async def _answer(config: Config, body: bytes, as_json: bool) -> None:
    models = local_models(config)
    async with running(config, models, build_log("json", quiet=True)) as server:
        pipeline = server.runtimes.current.pipeline
        call, route = await pipeline.admit(new_id(), Caller("cli"), body, CHAT)
        if as_json:
            print_json(decode_object(await pipeline.start(call, route, CHAT).output.read()))
            return
        framing = EventFraming()
        output = pipeline.start(call, route, CHAT).output
        while frames := await output.read():
            for event in framing.feed(frames):
                if event.data != b"[DONE]":
                    _print_delta(decode_object(event.data))
        click.echo()


def _print_delta(chunk: dict[str, Any]) -> None:
    for choice in chunk["choices"]:
        click.echo(choice["delta"].get("content") or "", nl=False)
    sys.stdout.flush()
