"""`proxy usage`: the answer of `GET /v1/usage`, read from the same ledger. No server need be running."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from proxy.cli.bills import reconcile, reprice
from proxy.cli.output import format_cell, json_option, print_budget, print_json, print_table
from proxy.cli.settings import configuration_options, fail, read_config, store_problem
from proxy.cli.spending import spending_of
from proxy.config.namespace import baseline_of, build_names
from proxy.metering.charges import Budgets
from proxy.metering.price_book import PriceBook
from proxy.metering.standing import windows
from proxy.routing.allowed import meaning
from proxy.schema.dimensions import DIMENSIONS
from proxy.schema.errors import BadRequest
from proxy.schema.records import Caller
from proxy.server.api.csv_table import csv_table
from proxy.server.api.queries import usage_answer, usage_columns, usage_query
from proxy.storage.base import StoreError
from proxy.storage.sqlite import SqliteStore, sqlite_path

_COLUMNS = {
    "CALLS": "calls",
    "OK": "successes",
    "ERRORS": "errors",
    "INPUT": "input_tokens",
    "OUTPUT": "output_tokens",
    "COST_USD": "cost_usd",
    "CHARGED_USD": "charged_usd",
    "UNPRICED": "unpriced_calls",
    "P50_MS": "p50_latency_ms",
    "P95_MS": "p95_latency_ms",
}


_MOST_BAR, _LEAST_BAR = 40, 8  # characters
_EIGHTHS = " ▏▎▍▌▋▊▉"


@click.group(invoke_without_command=True, commands={"reprice": reprice, "reconcile": reconcile})
@click.option("--since", metavar="TIME", help="Start of the period, inclusive: 2026-11-22 or 2026-11-22T08:00:00Z.")
@click.option("--until", metavar="TIME", help="End of the period, exclusive.")
@click.option("--tz", metavar="ZONE", help="Time zone of days, like Europe/Berlin. Default: UTC.")
@click.option("--group-by", metavar="KEYS", help=f"Comma-separated: {', '.join(DIMENSIONS)}.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@json_option
@configuration_options
@click.pass_context
def usage(ctx: click.Context, /, as_csv: bool, as_json: bool, **flags: Any) -> None:
    """Report usage and cost."""
    if ctx.invoked_subcommand is not None:
        return
    given = {name: flags.pop(name) for name in ("since", "until", "tz", "group_by")}
    config = read_config(flags, os.environ)
    names, now_ns = build_names(config, PriceBook(config.pricing, {}), {}), time.time_ns()
    try:
        query = usage_query(
            {name: value for name, value in given.items() if value},
            Caller("cli", admin=True),
            now_ns,
            baseline_of(config, names),
        )
    except BadRequest as error:
        fail(error.message)
    try:
        path = sqlite_path(config.storage.url)
        if not path.is_file():
            fail(f"there is no database at {path} yet. `proxy serve` creates it; --db selects another.")
        budgets = Budgets(config.budget, lambda name: meaning(names, name))
        charges = budgets.of_caller(None, every=True, now_ns=now_ns)
        answer = usage_answer(query, SqliteStore(path).usage(query), windows(charges, spending_of(config), now_ns))
    except StoreError as error:
        store_problem(error)
    except BadRequest as error:
        fail(error.message)
    if as_json:
        print_json(answer)
    elif as_csv:
        rows = answer["groups"] if query.group_by else [answer["total"]]
        click.echo(csv_table(usage_columns(query), rows), nl=False)
    else:
        _print(query.group_by, answer)
        if answer["budget"] is not None:
            click.echo()
            print_budget(answer["budget"]["windows"])


def _print(keys: tuple[str, ...], answer: Mapping[str, Any]) -> None:
    """One row per group, with a bar of its share, then the total."""
    rows = [[*(group[key] for key in keys), *_values(group)] for group in answer["groups"]]
    total = [["total", *("" for _ in keys[1:])][: len(keys)] + _values(answer["total"])]
    headings = [*(key.upper() for key in keys), *_COLUMNS]
    if rows:
        by = "cost_usd" if any(group["cost_usd"] for group in answer["groups"]) else "calls"
        bars = _bars([group[by] or 0 for group in answer["groups"]], _room(headings, rows + total))
        headings.append("BY_COST" if by == "cost_usd" else "BY_CALLS")
        rows = [[*row, bar] for row, bar in zip(rows, bars, strict=True)]
        total = [[*total[0], ""]]
    print_table(headings, rows + total)


def _room(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> int:
    """The characters of a line that are left beside the table."""
    cells = [[*map(format_cell, row)] for row in rows]
    taken = sum(max(map(len, column)) + 2 for column in zip(headings, *cells, strict=True))
    return min(max(shutil.get_terminal_size().columns - taken, _LEAST_BAR), _MOST_BAR)


def _bars(values: Sequence[float], room: int) -> list[str]:
    """The longest bar fills the room."""
    most = max(values, default=0) or 1
    if not (sys.stdout.encoding or "").lower().startswith("utf"):
        return ["#" * round(value / most * room) for value in values]
    eighths = [round(value / most * room * 8) for value in values]
    return [("█" * (each // 8) + _EIGHTHS[each % 8]).strip() for each in eighths]


def _values(group: Mapping[str, Any]) -> list[object]:
    found = [(name, group[name]) for name in _COLUMNS.values()]
    return [round(value) if name.endswith("_ms") and value is not None else value for name, value in found]
