"""`proxy plan`: the effect of a configuration change on past calls. No server need be running."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import click

from proxy.cli.output import json_option, print_json, print_table
from proxy.cli.progress import Counted, Progress
from proxy.cli.settings import config_files, configuration_options, fail, store_problem
from proxy.config import ConfigError, Source
from proxy.config.files import read_file
from proxy.server.api.admin import MAX_CALLS
from proxy.server.offline import plan_change
from proxy.storage.base import StoreError
from proxy.storage.keys import KeyStore
from proxy.storage.sqlite import SqliteStore, sqlite_path


@click.command()
@click.argument("new", metavar="NEW.yaml")
@click.option("--new-pricing", metavar="FILE", help="Also try this pricing.yaml.")
@click.option(
    "--calls",
    type=click.IntRange(1, MAX_CALLS),
    default=1000,
    show_default=True,
    metavar="N",
    help="Try it on the last N calls.",
)
@json_option
@configuration_options
def plan(new: str, new_pricing: str | None, calls: int, as_json: bool, **flags: Any) -> None:
    """Show what NEW.yaml would change for the last calls: models, cost, capabilities.

    Nothing is called or written. Exit code 1: calls would be refused.
    """
    files = config_files(flags, os.environ)
    try:
        before = files.load()
        prices = None if new_pricing is None else Source(new_pricing, read_file(Path(new_pricing)))
        after = files.tried(Source(new, read_file(Path(new))), prices)
        path = sqlite_path(before.storage.url)
        if not path.is_file():
            fail(f"there is no database at {path} yet, so there are no calls to try it on. --db selects another.")
        past, keys = SqliteStore(path).latest(calls), KeyStore(path).all()
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    except StoreError as error:
        store_problem(error)
    with Progress("calls tried", len(past)) as progress:
        calls_to_try = Counted(past)
        calls_to_try.progress = progress
        told = asyncio.run(plan_change(before, after, calls_to_try, keys=keys))
    if as_json:
        print_json(told)
    else:
        _print(told)
    if any(change["refused"] for change in told["changes"]):
        sys.exit(1)


def _print(told: dict[str, Any]) -> None:
    cost = told["cost_usd_per_day"]
    click.echo(f"{told['changed']} of {told['calls']} calls change their model ({told['from']} -> {told['to']})")
    day = f"{cost['before']:.6f} -> {cost['after']:.6f} USD a day, {cost['difference']:+.6f}"
    click.echo(day + (f"; {told['unpriced_calls']} calls have no known price" if told["unpriced_calls"] else ""))
    if told["changes"]:
        click.echo()
        print_table(("CALLS", "USD_PER_DAY", "BEFORE", "AFTER", "REQUESTED", "LOST"), _rows(told["changes"]))
    lines = [f"the rule {name!r} matches no call any more" for name in told["rules_no_longer_matching"]]
    lines += [
        f"{each['calls']} calls to {each['requested']!r} left out: {each['why']}" for each in told["not_replayed"]
    ]
    for line in [*lines, *told["notes"]]:
        click.echo(f"note: {line}")


def _rows(changes: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    return [
        (
            change["calls"],
            change["cost_usd_per_day"],
            change["before"],
            change["after"],
            change["requested"],
            change["refused"] or ", ".join(change["capabilities_lost"]),
        )
        for change in changes
    ]
