"""Performs I/O: encrypted reasoning states in the usage database, by caller and tool call id, for an hour.

One connection, used from one thread of the owner. Without a database the same table is in memory and ends with the
process. States that cannot be decrypted (another key, a broken row, another caller's row) are treated as missing.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct
from sqlite_utils import Database

from proxy.schema.records import Secret
from proxy.storage.base import StoreError
from proxy.storage.migrations import m005_reasoning_states, m008_sums_of_reasoning_states
from proxy.storage.rescue import Files, file_and_logs, identity, keep_open

KEY_SUFFIX = "-vault-key"  # the key file is next to the database
_KEY_BYTES = 32
_NONCE_BYTES = 12


class StateLimits(Struct, frozen=True):
    """Limits on age (seconds), number and size (bytes, encrypted). The oldest states are dropped first."""

    ttl_s: float = 3600.0
    caller_states: int = 2_000
    caller_bytes: int = 32 * 1024 * 1024
    all_states: int = 20_000
    all_bytes: int = 256 * 1024 * 1024


class ReasoningStates:
    """The states of all callers. `database` None: in memory. `key` None: the key in the file next to the database."""

    def __init__(
        self,
        database: Path | None,
        key: Secret | None = None,
        limits: StateLimits | None = None,
        *,
        busy_s: float = 1.0,
    ) -> None:
        self._database = None if database is None else Path(os.path.realpath(database))
        self._key = key
        self._limits = limits or StateLimits()
        self._busy_s = busy_s
        self._cipher: AESGCM | None = None
        self._db: sqlite3.Connection | None = None
        self._files: Files = ()  # opened by the connection

    def put(self, caller: str, states: Mapping[str, bytes], now_ns: int) -> None:
        """Commits states by tool call id, replacing earlier ones, and drops states beyond the limits.

        Raises StoreError.
        """
        cipher = self._open_cipher()
        rows = []
        for tool_call_id, state in states.items():
            nonce = os.urandom(_NONCE_BYTES)
            sealed = nonce + cipher.encrypt(nonce, state, _associated_data(caller, tool_call_id))
            rows.append((caller, tool_call_id, now_ns, len(sealed), sealed))
        try:
            db = self._connected()
            db.execute("BEGIN IMMEDIATE")
            db.executemany(
                "INSERT INTO reasoning_states (caller, tool_call_id, kept_ns, size, sealed) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (caller, tool_call_id) DO UPDATE"
                " SET kept_ns = excluded.kept_ns, size = excluded.size, sealed = excluded.sealed",
                rows,
            )
            self._drop(db, caller, now_ns)
            db.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            raise self._fail(error) from error

    def find(self, caller: str, tool_call_ids: Iterable[str], now_ns: int) -> dict[str, bytes]:
        """This caller's unexpired states. Raises StoreError."""
        cipher = self._open_cipher()
        ids = msgspec.json.encode(list(tool_call_ids)).decode()
        try:
            rows = (
                self._connected()
                .execute(
                    "SELECT tool_call_id, sealed FROM reasoning_states WHERE caller = ? AND kept_ns > ?"
                    " AND tool_call_id IN (SELECT value FROM json_each(?))",
                    (caller, self._oldest_ns(now_ns), ids),
                )
                .fetchall()
            )
        except (OSError, sqlite3.Error) as error:
            raise self._fail(error) from error
        found = {}
        for tool_call_id, sealed in rows:
            with suppress(InvalidTag, ValueError):
                associated = _associated_data(caller, tool_call_id)
                found[tool_call_id] = cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], associated)
        return found

    def expire(self, now_ns: int) -> int:
        """Drops expired states of all callers, at most _EXPIRED_AT_ONCE of them; returns their number.

        Raises StoreError.
        """
        too_old = {"oldest": self._oldest_ns(now_ns), "most": _EXPIRED_AT_ONCE}
        try:
            db = self._connected()
            if db.execute(_EXPIRED, too_old).fetchone() is None:  # the usual case; takes no write lock
                return 0
            return db.execute(_EXPIRE, too_old).rowcount
        except (OSError, sqlite3.Error) as error:
            raise self._fail(error) from error

    def close(self) -> None:
        """Safe to call twice."""
        db, self._db = self._db, None
        if db is None:
            return
        if self._is_gone():
            keep_open(db)
            return
        with suppress(sqlite3.Error):  # the connection is dropped either way
            db.close()

    def _oldest_ns(self, now_ns: int) -> int:
        return now_ns - int(self._limits.ttl_s * 1e9)

    def _drop(self, db: sqlite3.Connection, caller: str, now_ns: int) -> None:
        """Drops states beyond the limits, oldest first. The time depends on what is dropped, not on what is kept."""
        limits = self._limits
        db.execute(_EXPIRE, {"oldest": self._oldest_ns(now_ns), "most": _EXPIRED_AT_ONCE})
        own = (f"of {caller}", limits.caller_states, limits.caller_bytes)
        for scope, most_states, most_bytes in (own, ("all", limits.all_states, limits.all_bytes)):
            row = db.execute("SELECT states, bytes FROM reasoning_state_sums WHERE scope = ?", (scope,)).fetchone()
            states, size = row or (0, 0)
            if states <= most_states and size <= most_bytes:
                continue
            excess: list[tuple[int]] = []
            for rowid, sealed in db.execute(*((_OLDEST, ()) if scope == "all" else (_OLDEST_OF_CALLER, (caller,)))):
                if states <= most_states and size <= most_bytes:
                    break
                states, size = states - 1, size - sealed
                excess.append((rowid,))
            db.executemany("DELETE FROM reasoning_states WHERE rowid = ?", excess)

    def _open_cipher(self) -> AESGCM:
        if self._cipher is None:
            self._cipher = AESGCM(self._key_bytes())
        return self._cipher

    def _key_bytes(self) -> bytes:
        if self._key is not None:
            return hashlib.sha256(b"reasoning vault\0" + self._key.reveal().encode()).digest()
        if self._database is None:
            return os.urandom(_KEY_BYTES)
        return shared_key(self._database.with_name(self._database.name + KEY_SUFFIX))

    def _connected(self) -> sqlite3.Connection:
        if self._db is not None and self._is_gone():
            keep_open(self._db)
            self._db = None
        if self._db is None:
            self._db = self._connect()
        return self._db

    def _is_gone(self) -> bool:
        """True if the file was removed or replaced; the ledger creates another."""
        if self._database is None:
            return False
        try:
            return bool(self._files) and identity(self._database) != self._files[0]
        except OSError:
            return True

    def _connect(self) -> sqlite3.Connection:
        if self._database is None:
            db = sqlite3.connect(":memory:", isolation_level=None)
            schema = Database(db, recursive_triggers=False, execute_plugins=False)
            m005_reasoning_states(schema)
            m008_sums_of_reasoning_states(schema)
            return db
        found = file_and_logs(self._database)
        if self._files and found[0] != self._files[0] and {*found[1:]} & {*self._files[1:]} - {None}:
            raise sqlite3.OperationalError("the file was replaced, and the ledger has not removed its old log yet")
        place = self._database.as_uri() + "?mode=rw"  # the ledger creates the file and its schema
        db = sqlite3.connect(place, uri=True, timeout=self._busy_s, isolation_level=None)
        try:
            db.execute("PRAGMA synchronous=NORMAL")  # survives the process; loss at a power failure is acceptable
            db.execute("SELECT 1 FROM sqlite_master").fetchone()  # opens the logs
            self._files = file_and_logs(self._database)
        except BaseException:
            db.close()
            raise
        return db

    def _fail(self, error: Exception) -> StoreError:
        """Resets the connection, so that no transaction stays open; the next call reconnects."""
        if self._database is not None:
            self.close()
        elif self._db is not None and self._db.in_transaction:
            self._db.execute("ROLLBACK")
        return StoreError(f"Cannot use the reasoning states in {self._database or 'memory'}: {error}.")


_EXPIRED_AT_ONCE = 1_000
_EXPIRED = "SELECT rowid FROM reasoning_states WHERE kept_ns <= :oldest LIMIT :most"
_EXPIRE = "DELETE FROM reasoning_states WHERE rowid IN (" + _EXPIRED + ")"
_OLDEST = "SELECT rowid, size FROM reasoning_states ORDER BY kept_ns, rowid"
_OLDEST_OF_CALLER = "SELECT rowid, size FROM reasoning_states WHERE caller = ? ORDER BY kept_ns, rowid"


def shared_key(path: Path) -> bytes:
    """The key in a file that only this user can read. The first process creates it; concurrent ones wait.

    Raises StoreError.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(fd).st_mode & 0o077:
                message = f"Other users may read the key file {path}. Run `chmod 600` on it, or set PROXY_VAULT_KEY."
                raise StoreError(message)
            fcntl.flock(fd, fcntl.LOCK_EX)  # released when the process ends, even during the write
            key = os.read(fd, _KEY_BYTES + 1)
            if not key:  # new, or left by a process that died here: not used yet
                key = os.urandom(_KEY_BYTES)
                if os.write(fd, key) < _KEY_BYTES:
                    os.ftruncate(fd, 0)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(fd)
            if len(key) != _KEY_BYTES:
                raise StoreError(f"{path} is not a valid key file. Move it away, or set PROXY_VAULT_KEY.")
            return key
        finally:
            os.close(fd)
    except OSError as error:
        raise StoreError(f"Cannot use the key file {path}: {error.strerror}.") from error


def _associated_data(caller: str, tool_call_id: str) -> bytes:
    """The data a state is authenticated with, so that it cannot be moved to another row."""
    return msgspec.json.encode([caller, tool_call_id])
