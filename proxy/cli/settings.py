"""Performs I/O: what every command needs first: the configuration from flags, environment and files, or one clear
line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import click
import msgspec

from proxy.config import Config, ConfigError, find_files, load
from proxy.storage.base import StoreError

_SERVER_FLAGS = ("host", "port", "workers", "log_format")
_OPTIONS = (
    click.option("--config", "config_path", metavar="FILE", help="routing_rules.yaml to use (PROXY_CONFIG)."),
    click.option("--pricing", "pricing_path", metavar="FILE", help="pricing.yaml to use (PROXY_PRICING)."),
    click.option("--db", metavar="FILE", help="SQLite database of usage (PROXY_DB)."),
)


def configuration_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options every command takes that reads the configuration."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def fail(message: str) -> NoReturn:
    """One clear line on standard error, exit code 2."""
    click.echo(f"proxy: {message}", err=True)
    sys.exit(2)


def read_config(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Config:
    """flag > environment > file > default. Ends the process with exit code 2 and every problem when a file is wrong."""
    given = {f"PROXY_{name.upper()}": str(flags[name]) for name in _SERVER_FLAGS if flags.get(name) is not None}
    try:
        routing, pricing = find_files(_path(flags, "config_path"), _path(flags, "pricing_path"), environ, Path.cwd())
        config = load(routing, pricing, {**environ, **given})
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    db = flags.get("db") or environ.get("PROXY_DB")
    if db:
        config = msgspec.structs.replace(config, storage=msgspec.structs.replace(config.storage, url=f"sqlite:///{db}"))
    return config


def _path(flags: Mapping[str, Any], name: str) -> Path | None:
    return Path(flags[name]) if flags.get(name) else None


def store_problem(error: StoreError) -> NoReturn:
    """An unwritable database, in one line."""
    fail(str(error))
