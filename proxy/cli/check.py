"""`proxy check`: everything that is wrong or doubtful in the two files, at once."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from typing import Any

import click

from proxy.app import enabled
from proxy.cli.settings import configuration_options, read_config
from proxy.config import check as find_problems


@click.command()
@configuration_options
def check(**flags: Any) -> None:
    """Check routing_rules.yaml and pricing.yaml without serving."""
    config = read_config(flags, os.environ)
    problems = find_problems(config, datetime.now(UTC).date())
    for problem in problems:
        click.echo(str(problem), err=True)
    for name, why in config.disabled.items():
        click.echo(f"note: {name} is off: {why}")
    for notice in config.notices:
        click.echo(f"note: {notice}")
    errors = sum(problem.severity == "error" for problem in problems)
    click.echo(f"{errors} errors, {len(problems) - errors} warnings; on: {', '.join(enabled(config)) or 'nothing'}")
    sys.exit(1 if errors else 0)
