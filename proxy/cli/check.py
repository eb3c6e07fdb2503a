"""`proxy check`: reports every error and warning in the two configuration files at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from proxy.cli.output import amount, json_option, print_json
from proxy.cli.provider_types import listed_price, states
from proxy.cli.settings import config_files, configuration_options, places
from proxy.config import Config, ConfigError, Problem, Severity
from proxy.config import check as find_problems
from proxy.config.problems import near, shown
from proxy.config.references import problem_at
from proxy.config.warnings import find_warnings


@click.command()
@click.option("--strict", is_flag=True, help="Exit with code 1 if there are warnings.")
@json_option
@configuration_options
def check(strict: bool, as_json: bool, **flags: Any) -> None:
    """Check routing_rules.yaml and pricing.yaml without starting the server."""
    today = datetime.now(UTC).date()
    config: Config | None = None
    files = config_files(flags, os.environ)
    try:
        config = files.load()
        problems = [*find_problems(config, today), *find_warnings(config, today, listed_price(config))]
        problems += _unknown_keys(config, Path(str(places(files, config)["database"])))
    except ConfigError as error:
        problems = error.problems
    used = places(files, config)
    errors = sum(problem.severity is Severity.ERROR for problem in problems)
    if as_json:
        print_json(_report(config, problems, errors, used))
    else:
        _print(config, problems, errors, used)
    if errors:
        sys.exit(2)
    if problems and strict:
        sys.exit(1)


def _unknown_keys(config: Config, database: Path) -> Iterator[Problem]:
    """Settings of keys that were never created. Warnings only, because a key may be created later; silent if
    there is no key at all.
    """
    if not database.is_file():
        return
    from proxy.server.auth import ADMIN_KEY_NAME, KEY_NAME  # lazy: most checks need no database
    from proxy.storage.base import StoreError  # lazy: most checks need no database
    from proxy.storage.keys import KeyStore  # lazy: most checks need no database

    try:
        names = {key.name for key in KeyStore(database).all()}
    except StoreError:
        return
    sections: dict[tuple[str, ...], Iterable[str]] = {
        ("keys",): config.keys,
        ("budget", "per_key"): config.budget.per_key if config.budget else {},
        ("rate_limits", "per_key"): config.rate_limits.per_key if config.rate_limits else {},
    }
    for path, named in sections.items() if names else ():
        for name in named:
            if name not in (*names, KEY_NAME, ADMIN_KEY_NAME):
                message = f'no key is named "{shown(name)}"{near(name, names)}'
                yield problem_at(config, (*path, name), message, Severity.WARNING)


def _print(config: Config | None, problems: list[Problem], errors: int, used: dict[str, str | None]) -> None:
    for problem in problems:
        click.echo(str(problem), err=True)
    if config is None:
        return
    click.echo(f"{used['routing']}, {used['pricing'] or 'no prices'}; database {used['database']}")
    for name, why in config.disabled.items():
        click.echo(f"note: {name} is off: {why}")
    for notice in config.notices:
        click.echo(f"note: {notice}")
    on = ", ".join(name for name in config.providers if name not in config.disabled)
    click.echo(f"{amount(errors, 'error')}, {amount(len(problems) - errors, 'warning')}; on: {on or 'nothing'}")


def _report(
    config: Config | None, problems: list[Problem], errors: int, used: dict[str, str | None]
) -> dict[str, object]:
    """The JSON report. `config_version` is null, and `providers` empty, if the files do not load."""
    return {
        "errors": errors,
        "warnings": len(problems) - errors,
        "problems": problems,
        "providers": states(config) if config else {},
        "notices": config.notices if config else [],
        "config_version": config.version if config else None,
        "files": used,
    }
