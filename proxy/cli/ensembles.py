"""`proxy ensembles`: the answer of `GET /v1/ensembles/{name}/report`, from the same rows. No server need be running."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import click

from proxy.cli.output import json_option, print_json, print_table
from proxy.cli.settings import configuration_options, fail, read_config, store_problem
from proxy.config.namespace import build_names
from proxy.ensembles.report import EnsembleReport, Level, MemberReport
from proxy.metering.price_book import PriceBook
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.records import Caller
from proxy.server.api.outcome_queries import check_known, own_name, report_query, reported
from proxy.server.api.periods import zone_of
from proxy.storage.base import StoreError
from proxy.storage.sqlite import SqliteStore, sqlite_path

_MEMBERS = ("MEMBER", "CALLS", "DIFFERED", "FAILED", "TIMES_COST", "TIMES_LATENCY", "LIFT", "LOW", "HIGH")
_LEVELS = ("CONFIDENCE", "CALLS", "RATED", "ACCURACY", "HONEST")


@click.group()
def ensembles() -> None:
    """Tell whether an ensemble is worth it."""


@ensembles.command()
@click.argument("name")
@click.option("--since", metavar="TIME", help="Start of the period, inclusive. Default: seven days ago.")
@click.option("--until", metavar="TIME", help="End of the period, exclusive.")
@click.option("--tz", metavar="ZONE", help="Time zone of times without an offset, like Europe/Berlin. Default: UTC.")
@json_option
@configuration_options
def report(name: str, as_json: bool, **flags: Any) -> None:
    """Compare the ensemble NAME with each of its members, on the calls of a period."""
    given = {each: value for each in ("since", "until", "tz") if (value := flags.pop(each))}
    config = read_config(flags, os.environ)
    try:
        name = own_name(name, build_names(config, PriceBook(config.pricing, {}), {}))
        query = report_query(name, given, Caller("cli", admin=True), time.time_ns())
    except BadRequest as error:
        fail(error.message)
    try:
        path = sqlite_path(config.storage.url)
        if not path.is_file():
            fail(f"there is no database at {path} yet. `proxy serve` creates it; --db selects another.")
        found = reported(query, zone_of(given), SqliteStore(path).ensemble_calls(query))
        check_known(query, found.calls, config.ensembles)
    except StoreError as error:
        store_problem(error)
    except ProxyError as error:
        click.echo(f"proxy: {error.message}", err=True)
        sys.exit(1)
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: EnsembleReport) -> None:
    """The verdict, then the members, then the levels of agreement."""
    click.echo(found.verdict.text)
    click.echo(
        f"{found.calls} calls since {found.since}: {found.agreed} agreed, {found.escalated} escalated, "
        f"{found.failed} failed, {found.rated_calls} rated"
    )
    if found.members:
        click.echo()
        print_table(_MEMBERS, [_member(member) for member in found.members])
    if found.levels:
        click.echo()
        print_table(_LEVELS, [_level(level) for level in found.levels])


def _member(member: MemberReport) -> tuple[object, ...]:
    lift = member.lift
    lifts = (None, None, None) if lift is None else (lift.estimate, lift.low, lift.high)
    multiples = (member.cost_multiple, member.latency_multiple)
    return (member.member, member.calls, member.differed, member.failed, *map(_rounded, (*multiples, *lifts)))


def _level(level: Level) -> tuple[object, ...]:
    between = "1" if level.confidence_from == 1 else f"{level.confidence_from:g}-{level.confidence_to:g}"
    honest = {True: "yes", False: "no", None: None}[level.is_honest]
    return between, level.calls, level.rated_calls, _rounded(level.accuracy), honest


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
