"""`proxy keys`: creates, lists and revokes API keys. A running server picks changes up within two seconds."""

from __future__ import annotations

import os
import re
import secrets
import sys
import time
from datetime import UTC, date, datetime
from typing import Any

import click
from msgspec import structs

from proxy.cli.output import json_option, print_json, print_table
from proxy.cli.settings import configuration_options, fail, read_config, store_problem
from proxy.config import Config
from proxy.config.references import name_problems
from proxy.config.server import is_loopback
from proxy.pipeline.key_settings import KeyConfig, day_ns
from proxy.schema.records import NANO_PER_USD
from proxy.server.auth import ADMIN_KEY_NAME, KEY_NAME, digest_of
from proxy.storage.base import StoreError
from proxy.storage.keys import KeyStore, StoredKey
from proxy.storage.sqlite import sqlite_path

PREFIX = "mmp-"
_BYTES = 32  # 256 bits of randomness
_NAME = re.compile(r"(?!mmp-|key_)[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LAST_NS = 2**63 - 1  # the largest value a row can hold
_RESERVED = (KEY_NAME, ADMIN_KEY_NAME, "cli")  # the two environment keys, and `proxy ask`


@click.group()
def keys() -> None:
    """Create, list and revoke API keys for this proxy."""


@keys.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["key", "admin"]), default="key", show_default=True)
@click.option("--models", metavar="A,B", help="Allow only these models; globs such as 'groq/*' work.")
@click.option("--expires", metavar="DATE", help="First day (UTC) on which the key is refused, like 2027-01-31.")
@json_option
@configuration_options
def create(name: str, role: str, models: str | None, expires: str | None, **flags: Any) -> None:
    """Create a key for NAME and print it once. Only its SHA-256 is stored."""
    config = read_config(flags, os.environ)
    if not _NAME.fullmatch(name) or name in _RESERVED:
        fail(f"{name[:64]!r} is not a valid key name. {_name_rule()}")
    allowed = _models(config, name, models)
    now_ns = time.time_ns()
    key = PREFIX + secrets.token_urlsafe(_BYTES)
    made = StoredKey(
        f"key_{secrets.token_hex(4)}", name, role, key[-4:], allowed, now_ns, _expiry(expires, now_ns), None
    )
    store = _store(config)
    try:
        store.add(made, digest_of(key))
        stored = store.all()
        others = sum(other.name == name and other.opens(now_ns) for other in stored) - 1
    except StoreError as error:
        store_problem(error)
    if flags["as_json"]:
        print_json({"key": key, **_record(made, now_ns)})
        return
    click.echo(key)
    click.echo(f"proxy: this key of {name} ({made.id}) is shown only once and stored nowhere. Save it now.", err=True)
    if _opens_without_keys(config) and sum(other.revoked_ns is None for other in stored) == 1:
        click.echo(
            "proxy: this is the first key: from now on a server with this database refuses callers without a key, "
            f"a running one within two seconds. To open it again: proxy keys revoke {name}, or start it with "
            "PROXY_REQUIRE_KEY=false.",
            err=True,
        )
    if others:
        click.echo(f"proxy: {name} now has {others + 1} keys; they share limits, budget and usage.", err=True)


@keys.command("list")
@json_option
@configuration_options
def list_keys(**flags: Any) -> None:
    """List all created keys, without the secret keys themselves."""
    now_ns = time.time_ns()
    found = [_record(key, now_ns) for key in _all(_store(read_config(flags, os.environ)))]
    if flags["as_json"]:
        print_json({"keys": found})
    elif not found:
        click.echo("No keys. Create one: proxy keys create NAME", err=True)
    else:
        columns = ["id", "name", "role", "state", "ends_in", "created", "expires", "revoked", "models"]
        rows = [[",".join(row[c] or ()) if c == "models" else row[c] for c in columns] for row in found]
        print_table([column.upper() for column in columns], rows)


@keys.command()
@click.argument("name_or_id")
@json_option
@configuration_options
def revoke(name_or_id: str, **flags: Any) -> None:
    """Revoke a key by its ID, or all keys of a NAME."""
    config = read_config(flags, os.environ)
    store = _store(config)
    now_ns = time.time_ns()
    known = [key for key in _all(store) if name_or_id in (key.id, key.name)]
    try:
        ended = store.revoke(name_or_id, now_ns) if known else []
    except StoreError as error:
        store_problem(error)
    if flags["as_json"]:
        print_json({"revoked": [_record(key, now_ns) for key in ended]})
    elif ended:
        named = ", ".join(f"{key.name} ({key.id})" for key in ended)
        click.echo(f"Revoked {named}. A running server refuses it within two seconds.")
        if _opens_without_keys(config) and all(key.revoked_ns is not None for key in _all(store)):
            click.echo(
                "No key is left: a server on this machine serves callers without a key again. "
                "Set server.require_key to true, or PROXY_REQUIRE_KEY=true, to keep it closed."
            )
    elif known:
        click.echo("Already revoked.")
    if not known:
        # Never repeat an API key that was given by mistake.
        quoted = "you gave (it looks like a key)" if name_or_id.startswith(PREFIX) else repr(name_or_id[:64])
        click.echo(f"proxy: no key has the name or id {quoted}. `proxy keys list` shows them.", err=True)
        sys.exit(1)


def _opens_without_keys(config: Config) -> bool:
    """True if a server without any key serves every caller that can reach it."""
    has_own = any(os.environ.get(name) for name in ("PROXY_API_KEY", "PROXY_ADMIN_KEY"))
    return config.server.require_key == "auto" and is_loopback(config.server.host) and not has_own


def _store(config: Config) -> KeyStore:
    """The key store; does not open the database yet."""
    return KeyStore(sqlite_path(config.storage.url))


def _all(store: KeyStore) -> list[StoredKey]:
    try:
        return store.all() if store.is_there else []
    except StoreError as error:
        store_problem(error)


def _models(config: Config, name: str, given: str | None) -> tuple[str, ...] | None:
    """The entries of `--models`: globs, or names that resolve."""
    if given is None:
        return None
    entries = tuple(dict.fromkeys(part.strip() for part in given.split(",") if part.strip()))
    if not entries:
        fail("--models is empty. Omit it to allow every model.")
    path = f"keys.{name}.models."
    checked = structs.replace(config, keys={name: KeyConfig(models=list(entries))})
    for problem in name_problems(checked):
        if problem.path.startswith(path):
            fail(f"--models: {problem.message}")
    return entries


def _expiry(given: str | None, now_ns: int) -> int | None:
    if given is None:
        return None
    try:
        expires_ns = day_ns(date.fromisoformat(given).isoformat())
    except ValueError:
        fail(f"--expires {given[:32]!r}: expected a valid date, like 2027-01-31.")
    if expires_ns <= now_ns:
        fail(f"--expires {given}: that day has already begun.")
    if expires_ns > _LAST_NS:
        fail(f"--expires {given}: the latest possible day is 2262-04-11. Omit it for a key that never expires.")
    return expires_ns


def _name_rule() -> str:
    return (
        "Use 1 to 64 letters, digits, dots, dashes and underscores; "
        f"{', '.join(_RESERVED)} and names that start with {PREFIX} or key_ are reserved."
    )


def _record(key: StoredKey, now_ns: int) -> dict[str, Any]:
    state = "on" if key.opens(now_ns) else "revoked" if key.revoked_ns is not None else "expired"
    return {
        "id": key.id,
        "name": key.name,
        "role": key.role,
        "state": state,
        "ends_in": key.last4,
        "created": _time(key.created_ns),
        "expires": _time(key.expires_ns),
        "revoked": _time(key.revoked_ns),
        "models": key.models,
    }


def _time(unix_ns: int | None) -> str | None:
    if unix_ns is None:
        return None
    return datetime.fromtimestamp(unix_ns // NANO_PER_USD, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
