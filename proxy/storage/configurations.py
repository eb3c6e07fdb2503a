"""Performs I/O: the configurations that servers have run, in the usage database. The files hold no secrets.

Every call opens its own connection, as for keys. Nothing here creates a database.
"""

from __future__ import annotations

import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path

from msgspec import Struct

from proxy.storage.connections import connected

MAX_VERSIONS = 200
_COLUMNS = "version, applied_ns, routing, pricing"
_LATEST_FIRST = "ORDER BY IFNULL(applied_ns, 0) DESC, rowid DESC"
_KEEP = """
    INSERT INTO configurations (version, applied_ns, routing, pricing) VALUES (?, ?, ?, ?)
    ON CONFLICT (version) DO UPDATE SET applied_ns = IFNULL(excluded.applied_ns, applied_ns)
"""
_DROP_OLD = """
    DELETE FROM configurations WHERE version NOT IN (
        SELECT version FROM configurations ORDER BY IFNULL(applied_ns, 0) DESC, rowid DESC LIMIT ?)
        AND version <> ?
"""


class StoredConfig(Struct, frozen=True):
    """Both files of one version. `applied_ns`: when a server last began to run it, in Unix nanoseconds; None: never.

    `pricing` None: there was no pricing.yaml.
    """

    version: str
    applied_ns: int | None
    routing: bytes
    pricing: bytes | None


class ConfigStore:
    """The table `configurations` of one SQLite file. `busy_s`: how long a call waits for other processes."""

    def __init__(self, path: Path, *, busy_s: float = 2.0) -> None:
        self._path = path
        self._busy_s = busy_s

    def keep(self, config: StoredConfig) -> None:
        """Stores a version, or that it runs again; drops the oldest beyond MAX_VERSIONS. Raises StoreError."""
        with self._connected("rw") as db:
            db.execute("BEGIN IMMEDIATE")
            db.execute(_KEEP, (config.version, config.applied_ns, config.routing, config.pricing))
            db.execute(_DROP_OLD, (MAX_VERSIONS, config.version))
            db.execute("COMMIT")

    def all(self) -> list[StoredConfig]:
        """Every version, the latest first. Raises StoreError."""
        return self._read(_LATEST_FIRST)

    def names(self, most: int) -> list[tuple[str, int | None]]:
        """The latest versions, and when a server began to run each. Raises StoreError."""
        return [(each.version, each.applied_ns) for each in self._read(_LATEST_FIRST + " LIMIT ?", most)]

    def find(self, version: str) -> list[StoredConfig]:
        """The versions with this prefix. Raises StoreError."""
        return self._read("WHERE substr(version, 1, ?) = ? ORDER BY version", len(version), version)

    def _read(self, rest: str, *parameters: int | str) -> list[StoredConfig]:
        with self._connected("ro") as db:
            if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'configurations'").fetchone() is None:
                return []  # a database from an older version
            rows = db.execute("SELECT " + _COLUMNS + " FROM configurations " + rest, parameters).fetchall()
        return [StoredConfig(*row) for row in rows]

    def _connected(self, mode: str) -> AbstractContextManager[sqlite3.Connection]:
        return connected(self._path, mode, self._busy_s, "configurations in the database")
