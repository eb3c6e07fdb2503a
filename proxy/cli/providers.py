"""`proxy providers`: lists which providers can be called and, with `--ping`, which ones answer."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from proxy.cli.output import json_option, print_json, print_table
from proxy.cli.provider_types import states
from proxy.cli.settings import configuration_options, read_config, store_problem
from proxy.storage.base import StoreError


@click.command()
@click.option(
    "--ping", is_flag=True, help="Make one small call to each enabled provider. It is metered and may cost money."
)
@json_option
@configuration_options
def providers(ping: bool, as_json: bool, **flags: Any) -> None:
    """List the providers: which are on, and why the others are off."""
    config = read_config(flags, os.environ)
    rows: list[dict[str, Any]] = [{"name": name, **state} for name, state in states(config).items()]
    if ping:
        from proxy.cli.ping import ping_all  # lazy: loads the whole pipeline, twice the time of everything else here

        try:
            pings = ping_all(config)
        except StoreError as error:
            store_problem(error)
        rows = [row | {"ping": pings.get(row["name"])} for row in rows]
    if as_json:
        print_json({"providers": rows})
    elif ping:
        headings = ("NAME", "TYPE", "STATE", "MS", "COST_USD", "MODEL", "WHY")
        print_table(headings, [_ping_row(row) for row in rows])
    else:
        print_table(("NAME", "TYPE", "STATE", "WHY"), [list(row.values()) for row in rows])
    if any(row.get("ping") and not row["ping"].ok for row in rows):
        sys.exit(1)


def _ping_row(row: dict[str, Any]) -> list[Any]:
    found = row["ping"]
    if found is None:
        return [row["name"], row["type"], row["state"], None, None, None, row["why"]]
    state = "ok" if found.ok else "failed"
    return [row["name"], row["type"], state, found.latency_ms, found.cost_usd, found.model, found.error]
