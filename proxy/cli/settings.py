"""Performs I/O: reads the configuration that every command needs first, or exits with a clear error."""

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
    click.option("--config", "config_path", metavar="FILE", help="Path of routing_rules.yaml (PROXY_CONFIG)."),
    click.option("--pricing", "pricing_path", metavar="FILE", help="Path of pricing.yaml (PROXY_PRICING)."),
    click.option("--db", metavar="FILE", help="Path of the SQLite database (PROXY_DB)."),
)


def configuration_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of every command that reads the configuration."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def fail(message: str) -> NoReturn:
    """Prints one line on standard error and exits with code 2."""
    click.echo(f"proxy: {message}", err=True)
    sys.exit(2)


def config_files(flags: Mapping[str, Any], environ: Mapping[str, str]) -> ConfigFiles:
    """The sources of the configuration, in order of precedence: flag, environment, file, default."""
    given = {f"PROXY_{name.upper()}": str(flags[name]) for name in _SERVER_FLAGS if flags.get(name) is not None}
    routing, pricing = find_files(_path(flags, "config_path"), _path(flags, "pricing_path"), environ, Path.cwd())
    db = flags.get("db") or environ.get("PROXY_DB")
    return ConfigFiles(routing, pricing, {**environ, **given}, f"sqlite:///{db}" if db else None)


def seed_volume(flags: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    """Copies the shipped files to an empty /data, unless the user named other files. Exits if that fails."""
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
    """The paths in use, relative to the working directory where possible: `routing`, `pricing` (None: no file) and
    `database` (None: the files do not load).
    """
    routing, pricing = [*map(_short_path, files.paths), None][:2]
    database = config.storage.url.removeprefix("sqlite:///") if config else None
    return {"routing": routing, "pricing": pricing, "database": database}


def _short_path(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def read_config(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Config:
    """The configuration. If a file has mistakes, prints all of them and exits with code 2."""
    try:
        return config_files(flags, environ).load()
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)


def _path(flags: Mapping[str, Any], name: str) -> Path | None:
    return Path(flags[name]) if flags.get(name) else None


def store_problem(error: StoreError) -> NoReturn:
    """Reports an unusable database in one line and exits."""
    fail(str(error))
