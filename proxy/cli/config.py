"""`proxy config`: the configurations that servers have run, and a rollback to one of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from proxy.cli.output import json_option, print_json, print_table
from proxy.cli.settings import config_files, configuration_options, fail, store_problem
from proxy.config import ConfigError, Source
from proxy.config.files import is_installed, keep_copy, write_all
from proxy.config.load import version_of
from proxy.config.source import ConfigFiles
from proxy.schema.records import NANO_PER_USD
from proxy.server.history import keep_files
from proxy.storage.base import StoreError
from proxy.storage.configurations import ConfigStore, StoredConfig
from proxy.storage.sqlite import sqlite_path


@click.group()
def config() -> None:
    """List past configurations, show them, and restore one."""


@config.command("list")
@json_option
@configuration_options
def list_configs(as_json: bool, **flags: Any) -> None:
    """List the versions that servers have run, the latest first."""
    files, store = _opened(flags)
    now = _version_of_files(files)
    found = [{**_record(each), "in_files": each.version == now} for each in _stored(store)]
    if as_json:
        print_json({"versions": found, "files": now})
    elif not found:
        click.echo("No versions yet. A server stores each configuration that it runs.", err=True)
    else:
        rows = [(row["version"], row["applied"], "yes" if row["in_files"] else "no") for row in found]
        print_table(("VERSION", "APPLIED", "IN_FILES"), rows)


@config.command()
@click.argument("version")
@click.option("--prices", is_flag=True, help="Print its pricing.yaml instead of its routing_rules.yaml.")
@json_option
@configuration_options
def show(version: str, prices: bool, as_json: bool, **flags: Any) -> None:
    """Print the files of VERSION; its first digits are enough."""
    _, store = _opened(flags)
    found = _one(store, version)
    if as_json:
        texts = {"routing_rules": _text(found.routing), "pricing": found.pricing and _text(found.pricing)}
        print_json({**_record(found), **texts})
        return
    data = found.pricing if prices else found.routing
    if data is None:
        fail(f"version {found.version} had no pricing.yaml.")
    click.echo(_text(data), nl=False)


@config.command()
@click.argument("version")
@json_option
@configuration_options
def rollback(version: str, as_json: bool, **flags: Any) -> None:
    """Write the files of VERSION back. The files before are kept beside them, and as a version if they load."""
    files, store = _opened(flags)
    found = _one(store, version)
    try:
        before = keep_files(files, store)
        written = _write(files, found)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    except StoreError as error:
        store_problem(error)
    if as_json:
        print_json({"version": found.version, "before": before, "written": written})
        return
    for path in written:
        click.echo(f"wrote {path}")
    if not written:
        click.echo(f"The files are already those of version {found.version}.")
    elif before is not None:
        click.echo(f"A running server follows at once. To undo: proxy config rollback {before}")


def _opened(flags: Mapping[str, Any]) -> tuple[ConfigFiles, ConfigStore]:
    """The files, which need not load: a mistake in them may be the reason for the rollback."""
    files = config_files(flags, os.environ)
    try:
        path = sqlite_path(files.storage_url())
    except StoreError as error:
        store_problem(error)
    if not path.is_file():
        fail(f"there is no database at {path} yet. `proxy serve` creates it; --db selects another.")
    return files, ConfigStore(path)


def _stored(store: ConfigStore, version: str | None = None) -> list[StoredConfig]:
    try:
        return store.all() if version is None else store.find(version)
    except StoreError as error:
        store_problem(error)


def _one(store: ConfigStore, version: str) -> StoredConfig:
    found = _stored(store, version)
    if not found or not version:
        fail(f"there is no version {version[:32]!r}. `proxy config list` lists them.")
    if len(found) > 1:
        fail(f"{version!r} is the beginning of {len(found)} versions. Give more digits.")
    return found[0]


def _write(files: ConfigFiles, found: StoredConfig) -> list[str]:
    """Writes the files that differ, both or none. Raises ConfigError if the version does not load here."""
    routing, pricing = [*files.paths, None][:2]
    data = {routing: found.routing}
    if pricing is not None and found.pricing is not None:
        data[pricing] = found.pricing
    sources = [Source(str(path), text) for path, text in data.items() if path is not None]
    files.tried(sources[0], sources[1] if len(sources) > 1 else None)
    before = {path: path.read_bytes() if path.is_file() else None for path in data if path is not None}
    changed = [path for path, text in before.items() if text != data[path]]
    for path in changed:
        if is_installed(path):
            fail(f"{path} belongs to the installed package. Create your own files with `proxy init`.")
    for path in changed:
        if before[path] is not None:
            keep_copy(path)
    write_all({path: data[path] for path in changed})
    return [str(path) for path in changed]


def _version_of_files(files: ConfigFiles) -> str | None:
    try:
        return version_of(*files.texts())
    except ConfigError:
        return None


def _record(found: StoredConfig) -> dict[str, Any]:
    if found.applied_ns is None:
        return {"version": found.version, "applied": None}
    moment = datetime.fromtimestamp(found.applied_ns // NANO_PER_USD, UTC)
    return {"version": found.version, "applied": moment.strftime("%Y-%m-%dT%H:%M:%SZ")}


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
