"""`proxy usage reprice` and `proxy usage reconcile`: corrected costs of calls, and a vendor's bill against them."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from proxy.cli.output import json_option, print_json, print_table
from proxy.cli.progress import Progress
from proxy.cli.settings import configuration_options, fail, read_config, store_problem
from proxy.config import Config, Source
from proxy.config.load import read_pricing
from proxy.config.namespace import catalogues
from proxy.config.problems import Problem
from proxy.metering.invoice import BadInvoice, compared, read_invoice
from proxy.metering.price_book import PriceBook
from proxy.metering.pricing import Pricing
from proxy.metering.repricing import repriced
from proxy.schema.errors import BadRequest
from proxy.schema.queries import Repriced
from proxy.schema.records import NANO_PER_USD
from proxy.server.api.periods import unix_ns
from proxy.storage.base import StoreError
from proxy.storage.configurations import ConfigStore
from proxy.storage.repricing import Repricing
from proxy.storage.sqlite import sqlite_path

BY_DAY, CURRENT = "by-day", "current"


@click.command()
@click.option("--since", required=True, metavar="TIME", help="Calls that began then or later.")
@click.option(
    "--price-version",
    default=BY_DAY,
    show_default=True,
    metavar="VERSION",
    help="by-day: pricing.yaml with its history; current: without; or the price version of a row.",
)
@click.option("--apply", is_flag=True, help="Write the new costs. Otherwise they are only shown.")
@json_option
@configuration_options
def reprice(since: str, price_version: str, apply: bool, as_json: bool, **flags: Any) -> None:
    """Compute past costs again from their tokens.

    Attempts charged by their hold keep it, because their tokens are unknown. Budgets are not changed.
    """
    config = read_config(flags, os.environ)
    path = _database(config)
    try:
        begin = unix_ns({"since": since}, "since", "UTC") or 0
        pricing = _pricing(config, path, price_version)
        book = PriceBook(pricing, catalogues(config))
        asyncio.run(book.load())
        models: dict[str, dict[str, Any]] = {}
        store = Repricing(path)
        with Progress("attempts repriced" if apply else "attempts priced") as progress:
            for attempts in store.attempts(begin):
                changes = list(repriced(attempts, book.find, by_day=price_version == BY_DAY))
                if apply and changes:
                    store.write(changes)
                _count(models, changes)
                progress.add(len(attempts))
    except BadRequest as error:
        fail(error.message)
    except StoreError as error:
        store_problem(error)
    rows = [_shown(model, models[model]) for model in sorted(models)]
    if as_json:
        print_json({"price_version": pricing.version, "applied": apply, "models": rows})
    else:
        print_table(
            ("MODEL", "ATTEMPTS", "BEFORE_USD", "AFTER_USD", "DIFFERENCE", "UNPRICED"),
            [[*row.values()] for row in rows],
        )
        click.echo("written" if apply else "nothing was written; --apply writes these costs")


@click.command()
@click.argument("invoice", metavar="INVOICE.csv", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--provider", metavar="NAME", help="Compare with this provider's calls only.")
@json_option
@configuration_options
def reconcile(invoice: Path, provider: str | None, as_json: bool, **flags: Any) -> None:
    """Compare a vendor's bill with the costs here, per day and model.

    INVOICE.csv has the columns date, model and cost, or those of OpenAI's or Anthropic's cost export.
    """
    config = read_config(flags, os.environ)
    path = _database(config)
    try:
        billed = read_invoice(invoice.read_bytes())
        if not billed:
            fail(f"{invoice}: there are no rows.")
        days = sorted(day for day, _ in billed)
        ours = Repricing(path).costs_by_day(_unix(days[0], 0), _unix(days[-1], 1))
    except (BadInvoice, OSError) as error:
        fail(f"{invoice}: {error}")
    except StoreError as error:
        store_problem(error)
    chosen = {key: cost for key, cost in ours.items() if provider is None or key[1] == provider}
    found = [
        {
            "day": each.day,
            "model": each.model,
            "ours_usd": _usd(each.ours_nano),
            "billed_usd": _usd(each.billed_nano),
            "difference_usd": _usd(each.nano),
        }
        for each in compared(chosen, billed)
    ]
    totals = [sum(float(row[name] or 0) for row in found) for name in ("ours_usd", "billed_usd", "difference_usd")]
    if as_json:
        total = dict(zip(("ours_usd", "billed_usd", "difference_usd"), totals, strict=True))
        print_json({"rows": found, "total": total})
    else:
        rows = [[*row.values()] for row in found]
        print_table(("DAY", "MODEL", "OURS_USD", "BILLED_USD", "DIFFERENCE"), [*rows, ["total", "", *totals]])


def _database(config: Config) -> Path:
    path = sqlite_path(config.storage.url)
    if not path.is_file():
        fail(f"there is no database at {path} yet. `proxy serve` creates it; --db selects another.")
    return path


def _pricing(config: Config, path: Path, version: str) -> Pricing:
    """The current prices, or those of a version that a server has run with."""
    if version in (BY_DAY, CURRENT, config.pricing.version):
        return config.pricing
    known = {config.pricing.version: config.pricing}
    for stored in ConfigStore(path).all():
        problems: list[Problem] = []
        pricing = read_pricing(Source("pricing.yaml", stored.pricing), problems, {}) if stored.pricing else None
        if pricing is not None and not problems:
            known[pricing.version] = pricing
    if version not in known:
        fail(f"--price-version: unknown version {version!r}. Known: {BY_DAY}, {CURRENT}, {', '.join(sorted(known))}.")
    return known[version]


def _count(models: dict[str, dict[str, Any]], changes: list[Repriced]) -> None:
    for each in changes:
        name = f"{each.attempt.provider}/{each.attempt.model}"
        found = models.setdefault(name, dict.fromkeys(("attempts", "before", "after", "unpriced"), 0))
        found["attempts"] += 1
        found["before"] += each.attempt.cost_nano or 0
        found["after"] += each.cost_nano or 0
        found["unpriced"] += each.cost_nano is None


def _shown(model: str, found: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": model,
        "attempts": found["attempts"],
        "before_usd": found["before"] / NANO_PER_USD,
        "after_usd": found["after"] / NANO_PER_USD,
        "difference_usd": (found["after"] - found["before"]) / NANO_PER_USD,
        "unpriced": found["unpriced"],
    }


def _unix(day: str, later_days: int) -> int:
    moment = datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(days=later_days)
    return int(moment.timestamp()) * NANO_PER_USD


def _usd(nano: int | None) -> float | None:
    return None if nano is None else nano / NANO_PER_USD
