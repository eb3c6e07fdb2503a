"""Performs I/O: the keys created by `proxy keys`, in the usage database. Only the SHA-256 of a key is stored.

Every call opens its own connection, so that the store works from any thread, and from the command line while a server
runs. Reading never creates a file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from proxy.storage.base import StoreError
from proxy.storage.connections import connect
from proxy.storage.sqlite import SqliteStore

_COLUMNS = "id, name, role, last4, models, created_ns, expires_ns, revoked_ns"


class StoredKey(Struct, frozen=True):
    """A stored key, without the key itself. Times are Unix nanoseconds; `models` None: every model.

    The key is refused from `expires_ns` on. Keys with the same name belong to one caller.
    """

    id: str
    name: str
    role: str
    last4: str
    models: tuple[str, ...] | None
    created_ns: int
    expires_ns: int | None = None
    revoked_ns: int | None = None

    def opens(self, now_ns: int) -> bool:
        """True while servers accept the key."""
        return self.revoked_ns is None and (self.expires_ns is None or self.expires_ns > now_ns)


class KeysFound(Struct, frozen=True):
    """The result of `look`: the keys by hash, whether any key is unrevoked, and whether one was ever created."""

    keys: dict[bytes, StoredKey]
    exist: bool
    made: bool = True


class KeyStore:
    """The table `keys` of one SQLite file. `busy_s`: how long a call waits for other processes, in seconds."""

    def __init__(self, path: Path, *, busy_s: float = 2.0) -> None:
        self._path = path
        self._busy_s = busy_s

    def add(self, key: StoredKey, digest: bytes) -> None:
        """Stores a new key by its SHA-256; creates the database if needed. Raises StoreError: place and fix."""
        store = SqliteStore(self._path, busy_s=self._busy_s)
        store.open()  # sets the file mode, the journal and the schema
        store.close()
        models = None if key.models is None else msgspec.json.encode(key.models).decode()
        values = (key.id, key.name, key.role, key.last4, models, key.created_ns, key.expires_ns, digest)
        with self._connected() as db:
            db.execute(
                "INSERT INTO keys (id, name, role, last4, models, created_ns, expires_ns, digest)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )

    def revoke(self, name_or_id: str, now_ns: int) -> list[StoredKey]:
        """Revokes the key with this id, or all keys of this name. Returns those revoked now. Raises StoreError."""
        with self._connected() as db:
            if not _has_table(db):
                return []
            rows = db.execute(
                "UPDATE keys SET revoked_ns = ? WHERE (id = ? OR name = ?) AND revoked_ns IS NULL RETURNING "
                + _COLUMNS,
                (now_ns, name_or_id, name_or_id),
            ).fetchall()
        return [_key_of(row) for row in rows]

    def all(self) -> list[StoredKey]:
        """All keys ever created, oldest first. Raises StoreError."""
        with self._connected("ro") as db:
            if not _has_table(db):
                return []
            rows = db.execute("SELECT " + _COLUMNS + " FROM keys ORDER BY created_ns, id").fetchall()
        return [_key_of(row) for row in rows]

    def look(self, digests: Sequence[bytes]) -> KeysFound:
        """The unrevoked keys with these hashes. Raises StoreError, also if there is no database."""
        marks = ", ".join("?" * len(digests))
        with self._connected("ro") as db:
            rows = db.execute(
                "SELECT digest, " + _COLUMNS + " FROM keys WHERE revoked_ns IS NULL AND digest IN (" + marks + ")",
                tuple(digests),
            ).fetchall()
            made, exist = db.execute(
                "SELECT EXISTS (SELECT 1 FROM keys), EXISTS (SELECT 1 FROM keys WHERE revoked_ns IS NULL)"
            ).fetchone()
        return KeysFound({bytes(row[0]): _key_of(row[1:]) for row in rows}, bool(exist), bool(made))

    @property
    def is_there(self) -> bool:
        """False if there is no database yet, and so no keys."""
        return self._path.exists()

    @contextmanager
    def _connected(self, mode: str = "rw") -> Iterator[sqlite3.Connection]:
        """A connection. Its changes are committed and on disk when the block ends.

        `mode` as in `connect`.
        """
        try:
            with closing(connect(self._path, mode, self._busy_s)) as db:
                db.execute("PRAGMA synchronous=FULL")  # a revoked key stays revoked after a power loss
                yield db
        except sqlite3.Error as error:
            raise StoreError(f"Cannot use the keys in the database {self._path}: {error}.") from error


def _has_table(db: sqlite3.Connection) -> bool:
    """False in a database from an older version."""
    return db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'keys'").fetchone() is not None


def _key_of(row: tuple[str, str, str, str, str | None, int, int | None, int | None]) -> StoredKey:
    key_id, name, role, last4, models, created_ns, expires_ns, revoked_ns = row
    allowed = None if models is None else msgspec.json.decode(models, type=tuple[str, ...])
    return StoredKey(key_id, name, role, last4, allowed, created_ns, expires_ns, revoked_ns)
