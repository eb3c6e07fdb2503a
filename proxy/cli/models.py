"""`proxy models`: what `/v1/models` lists, servers' own lists included."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

import click

from proxy.api.cards import model_card
from proxy.cli.output import json_option, print_json, print_table
from proxy.cli.settings import configuration_options, read_config
from proxy.config import Config, ConfigError
from proxy.log import build_log
from proxy.parts import Running, build_ledger


@click.command()
@json_option
@configuration_options
def models(as_json: bool, **flags: Any) -> None:
    """List the names that can be called, as /v1/models does."""
    config = read_config(flags, os.environ)
    try:
        cards = asyncio.run(_cards(config))
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    if as_json:
        print_json({"object": "list", "data": cards})
    else:
        headings = ("NAME", "CONTEXT", "INPUT", "OUTPUT", "CACHED", "MODEL")
        print_table(headings, [_row(card) for card in cards])


async def _cards(config: Config) -> list[dict[str, Any]]:
    """Nothing is called but the servers that list their models; the ledger stays closed."""
    server = Running(build_ledger(config), {}, build_log("json", quiet=True))
    try:
        server.run(config)
        parts = server.parts.current
        await parts.lists.settled()
        return [model_card(parts.names.resolve(name), int(time.time())) for name in parts.names.names()]
    finally:
        await server.close()


def _row(card: dict[str, Any]) -> list[Any]:
    prices = card["pricing"] or {}
    sizes = [card.get("context_length"), prices.get("input"), prices.get("output"), prices.get("cached_input")]
    return [card["id"], *sizes, card.get("resolves_to", card["id"])]
