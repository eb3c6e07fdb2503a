"""`proxy ask`: asks one question and streams the answer. Runs the server's pipeline, so the call is metered too."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import click

from proxy.cli.output import json_option, print_json
from proxy.cli.settings import configuration_options, read_config, store_problem
from proxy.config import Config
from proxy.schema.errors import ProxyError
from proxy.schema.json import decode_object, encode
from proxy.schema.records import Caller
from proxy.schema.sse import EventFraming
from proxy.server.api.answers import new_id
from proxy.server.formats.chat import CHAT
from proxy.server.log import build_log
from proxy.server.wiring import local_models, running
from proxy.storage.base import StoreError


@click.command()
@click.argument("question")
@click.option("-m", "--model", default="auto", show_default=True, help="Any name that /v1/models lists.")
@json_option
@configuration_options
def ask(question: str, model: str, as_json: bool, **flags: Any) -> None:
    """Ask QUESTION and stream the answer."""
    config = read_config(flags, os.environ)
    body = encode({"model": model, "stream": not as_json, "messages": [{"role": "user", "content": question}]})
    try:
        asyncio.run(_answer(config, body, as_json))
    except ProxyError as error:
        click.echo(f"proxy: {error.message}", err=True)
        sys.exit(1)
    except StoreError as error:
        store_problem(error)


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
