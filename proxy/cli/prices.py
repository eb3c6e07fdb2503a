"""`proxy prices`: compares pricing.yaml with the price list of the package genai-prices, without network access."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click
from msgspec import Struct

from proxy.cli.output import json_option, print_json, print_table
from proxy.cli.provider_types import listed_price
from proxy.cli.settings import config_files, configuration_options, fail
from proxy.config import Config, ConfigError, Source
from proxy.config.files import is_installed, read_file, write_file
from proxy.config.price_changes import Difference, differences, updated
from proxy.config.price_file import with_prices
from proxy.metering.genai_prices import lookup_version
from proxy.metering.pricing import ModelPrice

Compared = dict[str, tuple[ModelPrice, ModelPrice | None]]


class Row(Struct, frozen=True):
    """One row of pricing.yaml. `state` is `same`, `differs`, `unlisted` or `retired` (keeps its last price)."""

    model: str
    input: float | None
    output: float | None
    cached_input: float | None
    state: str


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--diff", is_flag=True, help="Print only differences; exit with code 1 if there are any.")
@click.option("--update", is_flag=True, help="Write the listed prices to pricing.yaml, keeping comments.")
@json_option
@configuration_options
def prices(models: tuple[str, ...], diff: bool, update: bool, as_json: bool, **flags: Any) -> None:
    """Compare pricing.yaml with the bundled price list.

    MODEL limits the rows; it may be a glob such as `openai/*`.
    """
    try:
        files = config_files(flags, os.environ)
        config = files.load()
        compared = _compared(config, models)
        found = [each for name, (row, listed) in compared.items() if listed for each in differences(name, row, listed)]
        if update:
            _write(files.paths[1:], compared, found)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    rows = [_row(name, row, listed) for name, (row, listed) in compared.items()]
    left = [each for each in found if not (update and each.writable)]
    if as_json:
        shape = {"list": lookup_version(), "updated": config.pricing.updated, "models": rows}
        print_json({**shape, "differences": found, "written": update and len(left) < len(found)})
    elif found and (diff or update):
        _print_differences(found)
    elif not (diff or update):
        headings = ("MODEL", "INPUT", "OUTPUT", "CACHED", "STATE")
        print_table(headings, [(row.model, row.input, row.output, row.cached_input, row.state) for row in rows])
    if left and (diff or update):
        sys.exit(1)


def _compared(config: Config, patterns: tuple[str, ...]) -> Compared:
    """Each row with its counterpart in the list; None if the list lacks the model, or if the model is retired."""
    find = listed_price(config)
    names = [name for name in config.pricing.models if not name.endswith("/*")]
    chosen = [name for name in names if not patterns or any(fnmatchcase(name, each) for each in patterns)]
    if patterns and not chosen:
        fail(f"no row of pricing.yaml matches {' or '.join(patterns)}.")
    rows = {name: config.pricing.models[name] for name in chosen}
    return {name: (row, None if row.retired else find(name)) for name, row in rows.items()}


def _row(name: str, row: ModelPrice, listed: ModelPrice | None) -> Row:
    if listed is None:
        state = "retired" if row.retired else "unlisted"
    else:
        state = "differs" if differences(name, row, listed) else "same"
    return Row(name, row.input, row.output, row.cached_input, state)


def _write(paths: list[Path], compared: Compared, found: list[Difference]) -> None:
    """Writes the writable differences to the file. Raises ConfigError and leaves the file unchanged if it cannot."""
    if not paths or is_installed(paths[0]):
        fail("the prices in use belong to the installed package. Create your own file with `proxy init`.")
    (path,) = paths
    today = datetime.now(UTC).date()
    names = {each.model for each in found if each.writable}
    rows = {name: updated(row, listed, today) for name, (row, listed) in compared.items() if listed and name in names}
    if rows:
        write_file(path, with_prices(Source(str(path), read_file(path)), rows, today))


def _print_differences(found: list[Difference]) -> None:
    print_table(
        ("MODEL", "KEY", "FILE", "LISTED"),
        [(each.model, each.key, each.file, each.listed) for each in found],
    )
    for each in found:
        if not each.writable:
            click.echo(f"note: {each.model} has different tiers in the list; edit them by hand", err=True)
