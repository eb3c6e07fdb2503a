"""`proxy models`: the models of `/v1/models`, including those that servers list themselves."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack
from typing import Any

import click

from proxy.cli.output import json_option, print_json, print_table
from proxy.cli.settings import configuration_options, fail, read_config
from proxy.config import Config
from proxy.config.namespace import build_names, enabled, endpoint_of
from proxy.metering.price_book import PriceBook
from proxy.schema.records import Endpoint
from proxy.server.api.cards import model_card
from proxy.upstream.model_discovery import ModelDiscovery, models_path
from proxy.upstream.pools import Pool, tls_context
from proxy.upstream.transports.httpx import HttpxTransport
from proxy.upstream.upstream import Upstream


@click.command()
@json_option
@configuration_options
def models(as_json: bool, **flags: Any) -> None:
    """List the models you can call, like /v1/models."""
    config = read_config(flags, os.environ)
    cards = asyncio.run(_cards(config))
    if as_json:
        print_json({"object": "list", "data": cards})
    else:
        headings = ("NAME", "CONTEXT", "INPUT", "OUTPUT", "CACHED", "MODEL")
        print_table(headings, [_row(card) for card in cards])
        for name, provider in enabled(config).items():
            if provider.about:
                click.echo(f"note: {name}: {provider.about}", err=True)


async def _cards(config: Config) -> list[dict[str, Any]]:
    """Contacts only the servers that list their models, and never opens the ledger."""
    async with AsyncExitStack() as closing:
        asked = [name for name, provider in enabled(config).items() if models_path(provider) is not None]
        found = ModelDiscovery({name: await _upstream(config, name, closing) for name in asked}, _note_missing)
        found.refresh()
        await found.settled()
        names = build_names(config, PriceBook(config.pricing, {}), found)
        cards = [model_card(names.resolve(name), int(time.time())) for name in names.names()]
        await found.close()
        return cards


async def _upstream(config: Config, name: str, closing: AsyncExitStack) -> Upstream:
    """One server, always over httpx: importing aiohttp would double the run time of this command."""
    provider, endpoint = config.providers[name], endpoint_of(config, name)
    try:
        proxy = config.proxies.get(name)
        transport = HttpxTransport(tls_context(provider.ca_file), None, None if proxy is None else proxy.reveal())
    except OSError as error:
        fail(f"cannot use providers.{name}.ca_file: {(error.strerror or type(error).__name__).lower()}.")
    closing.push_async_callback(transport.close)

    async def origin() -> Endpoint:
        return endpoint

    return Upstream(name, provider, origin, Pool(transport))


def _note_missing(_: str, *, provider: str, reason: str) -> None:
    click.echo(f"note: {provider} did not list its models: {reason}", err=True)


def _row(card: dict[str, Any]) -> list[Any]:
    prices = card["pricing"] or {}
    sizes = [card.get("context_length"), prices.get("input"), prices.get("output"), prices.get("cached_input")]
    return [card["id"], *sizes, card.get("resolves_to", card["id"])]
