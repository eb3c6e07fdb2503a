"""`proxy usage`: the answer of `GET /v1/usage`, read from the same ledger. No server has to run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import click

from proxy.cli.output import json_option, print_json, print_table
from proxy.cli.settings import configuration_options, fail, read_config, store_problem
from proxy.schema.errors import BadRequest
from proxy.schema.records import Caller
from proxy.server.api.queries import usage_query
from proxy.storage.base import StoreError
from proxy.storage.sqlite import SqliteStore, sqlite_path

_COLUMNS = {
    "CALLS": "calls",
    "OK": "successes",
    "ERRORS": "errors",
    "INPUT": "input_tokens",
    "OUTPUT": "output_tokens",
    "COST_USD": "cost_usd",
    "UNPRICED": "unpriced_calls",
    "P50_MS": "p50_latency_ms",
    "P95_MS": "p95_latency_ms",
}


@click.command()
@click.option("--since", metavar="TIME", help="Start of the period, inclusive: 2026-11-22 or 2026-11-22T08:00:00Z.")
@click.option("--until", metavar="TIME", help="End of the period, exclusive.")
@click.option("--group-by", metavar="KEYS", help="Comma-separated: model, provider, day, task_type.")
@json_option
@configuration_options
def usage(since: str | None, until: str | None, group_by: str | None, as_json: bool, **flags: Any) -> None:
    """Report usage and cost."""
    given = {"since": since, "until": until, "group_by": group_by}
    try:
        query = usage_query({name: value for name, value in given.items() if value}, Caller("cli", admin=True))
    except BadRequest as error:
        fail(error.message)
    config = read_config(flags, os.environ)
    try:
        path = sqlite_path(config.storage.url)
        if not path.is_file():
            fail(f"there is no database at {path} yet. `proxy serve` creates it; --db selects another.")
        answer = SqliteStore(path).usage(query)
    except StoreError as error:
        store_problem(error)
    if as_json:
        print_json({"since": since, "until": until, **answer, "budget": None})
    else:
        _print(query.group_by, answer)


def _print(keys: tuple[str, ...], answer: Mapping[str, Any]) -> None:
    """One row per group, then the total."""
    rows = [[*(group[key] for key in keys), *_values(group)] for group in answer["groups"]]
    total = [["total", *("" for _ in keys[1:])][: len(keys)] + _values(answer["total"])]
    print_table([*(key.upper() for key in keys), *_COLUMNS], rows + total)


def _values(group: Mapping[str, Any]) -> list[object]:
    found = [(name, group[name]) for name in _COLUMNS.values()]
    return [round(value) if name.endswith("_ms") and value is not None else value for name, value in found]
