"""Performs I/O: encrypted reasoning states in the usage database, by caller and tool call id, for an hour.

One connection, used from one thread of the owner. Without a database the same table is in memory and ends with the
process. States that cannot be decrypted (another key, a broken row, another caller's row) are treated as missing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct
from sqlite_utils import Database

from proxy.schema.records import Secret
from proxy.storage.migrations import m005_reasoning_states, m008_sums_of_reasoning_states
from proxy.storage.side_store import Seal, SideStore

_WHAT = "reasoning states"


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
        self._limits = limits or StateLimits()
        self._store = SideStore(database, _schema, busy_s=busy_s)
        self._seal = Seal(self._store.database, key, b"reasoning vault")

    def put(self, caller: str, states: Mapping[str, bytes], now_ns: int) -> None:
        """Commits states by tool call id, replacing earlier ones, and drops states beyond the limits.

        Raises StoreError.
        """
        rows = []
        for tool_call_id, state in states.items():
            sealed = self._seal.seal(state, [caller, tool_call_id])
            rows.append((caller, tool_call_id, now_ns, len(sealed), sealed))
        try:
            db = self._store.connected()
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
            raise self._store.failed(error, _WHAT) from error

    def find(self, caller: str, tool_call_ids: Iterable[str], now_ns: int) -> dict[str, bytes]:
        """This caller's unexpired states. Raises StoreError."""
        self._seal.open()
        ids = msgspec.json.encode(list(tool_call_ids)).decode()
        try:
            rows = (
                self._store.connected()
                .execute(
                    "SELECT tool_call_id, sealed FROM reasoning_states WHERE caller = ? AND kept_ns > ?"
                    " AND tool_call_id IN (SELECT value FROM json_each(?))",
                    (caller, self._oldest_ns(now_ns), ids),
                )
                .fetchall()
            )
        except (OSError, sqlite3.Error) as error:
            raise self._store.failed(error, _WHAT) from error
        found = {}
        for tool_call_id, sealed in rows:
            if (state := self._seal.unseal(sealed, [caller, tool_call_id])) is not None:
                found[tool_call_id] = state
        return found

    def find_again(self, caller: str, names: Iterable[str], now_ns: int) -> dict[str, bytes]:
        """The same, and renews their time. Raises StoreError."""
        found = self.find(caller, names, now_ns)
        renewed = {"caller": caller, "names": msgspec.json.encode(list(found)).decode(), "now": now_ns}
        renewed["before"] = now_ns - int(self._limits.ttl_s * 1e9) // _RENEWALS
        try:
            db = self._store.connected()
            if db.execute(_OLDER, renewed).fetchone() is not None:  # usually none is; takes no write lock
                db.execute(_RENEW, renewed)
        except (OSError, sqlite3.Error) as error:
            raise self._store.failed(error, _WHAT) from error
        return found

    def expire(self, now_ns: int) -> int:
        """Drops expired states of all callers, at most _EXPIRED_AT_ONCE of them; returns their number.

        Raises StoreError.
        """
        too_old = {"oldest": self._oldest_ns(now_ns), "most": _EXPIRED_AT_ONCE}
        try:
            db = self._store.connected()
            if db.execute(_EXPIRED, too_old).fetchone() is None:  # the usual case; takes no write lock
                return 0
            return db.execute(_EXPIRE, too_old).rowcount
        except (OSError, sqlite3.Error) as error:
            raise self._store.failed(error, _WHAT) from error

    def close(self) -> None:
        """Safe to call twice."""
        self._store.close()

    def _oldest_ns(self, now_ns: int) -> int:
        return now_ns - int(self._limits.ttl_s * 1e9)

    def _drop(self, db: sqlite3.Connection, caller: str, now_ns: int) -> None:
        """Drops states beyond the limits, oldest first. The time depends on the dropped states only."""
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


def _schema(db: Database) -> None:
    m005_reasoning_states(db)
    m008_sums_of_reasoning_states(db)


_EXPIRED_AT_ONCE = 1_000
_EXPIRED = "SELECT rowid FROM reasoning_states WHERE kept_ns <= :oldest LIMIT :most"
_EXPIRE = "DELETE FROM reasoning_states WHERE rowid IN (" + _EXPIRED + ")"
_RENEWALS = 12  # within the time of a state, at most
_OLDER = (
    "SELECT rowid FROM reasoning_states WHERE caller = :caller AND kept_ns <= :before"
    " AND tool_call_id IN (SELECT value FROM json_each(:names))"
)
_RENEW = "UPDATE reasoning_states SET kept_ns = :now WHERE rowid IN (" + _OLDER + ")"
_OLDEST = "SELECT rowid, size FROM reasoning_states ORDER BY kept_ns, rowid"
_OLDEST_OF_CALLER = "SELECT rowid, size FROM reasoning_states WHERE caller = ? ORDER BY kept_ns, rowid"
