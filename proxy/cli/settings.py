"""Performs I/O: what every command needs first: the configuration from flags, environment and files, or one clear
line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import click

from proxy.config import Config, ConfigError, find_files, seed
from proxy.config.source import ConfigFiles
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


def config_files(flags: Mapping[str, Any], environ: Mapping[str, str]) -> ConfigFiles:
    """Where the configuration comes from: flag > environment > file > default."""
    given = {f"PROXY_{name.upper()}": str(flags[name]) for name in _SERVER_FLAGS if flags.get(name) is not None}
    routing, pricing = find_files(_path(flags, "config_path"), _path(flags, "pricing_path"), environ, Path.cwd())
    db = flags.get("db") or environ.get("PROXY_DB")
    return ConfigFiles(routing, pricing, {**environ, **given}, f"sqlite:///{db}" if db else None)


def seed_volume(flags: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    """Lays the shipped files into an empty /data, unless others are named. Ends the process where that fails."""
    named = [
        flags.get("config_path"),
        flags.get("pricing_path"),
        environ.get("PROXY_CONFIG"),
        environ.get("PROXY_PRICING"),
    ]
    if any(named):
        return
    try:
        for path in seed(Path.cwd()):
            click.echo(f"wrote {path}", err=True)
    except ConfigError as error:
        fail(str(error))


def places(files: ConfigFiles, config: Config | None) -> dict[str, str | None]:
    """What is in use: `routing`, `pricing` (None: no file) and `database` (None: the files do not load), by paths as
    one would type them here.
    """
    routing, pricing = [*map(_typed, files.paths), None][:2]
    database = config.storage.url.removeprefix("sqlite:///") if config else None
    return {"routing": routing, "pricing": pricing, "database": database}


def _typed(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def read_config(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Config:
    """What the files say. Ends the process with exit code 2 and every problem when one of them is wrong."""
    try:
        return config_files(flags, environ).load()
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)


def _path(flags: Mapping[str, Any], name: str) -> Path | None:
    return Path(flags[name]) if flags.get(name) else None


def store_problem(error: StoreError) -> NoReturn:
    """An unwritable database, in one line."""
    fail(str(error))
