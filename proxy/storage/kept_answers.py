"""Performs I/O: answers stored for repeats of their request, encrypted, by caller and name, in the usage database.

A row is `open` while the call for its answer runs in the process `owner`, `kept` once the answer is stored, and
`too_large` if the answer could not be stored. So an open row is a claim: no other process sends the same request. It is
`lost` once its process is found dead, and free for the next call.
One connection, used from one thread of the owner.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from proxy.schema.records import Secret
from proxy.storage.migrations import m016_kept_answers
from proxy.storage.side_store import Seal, SideStore

OPEN, KEPT, TOO_LARGE, LOST = "open", "kept", "too_large", "lost"
_WHAT = "kept answers"


class AnswerLimits(Struct, frozen=True):
    """Limits on number and size (bytes, compressed and encrypted). The oldest answers are dropped first."""

    caller_answers: int = 10_000
    caller_bytes: int = 64 * 1024 * 1024
    all_answers: int = 100_000
    all_bytes: int = 512 * 1024 * 1024


class Place(Struct, frozen=True):
    """The key of a stored answer: its caller and a digest of its name. `request`: a digest of its request."""

    caller: str
    name: bytes
    request: bytes

    @property
    def bound_to(self) -> list[str]:
        return ["kept answer", self.caller, self.name.hex(), self.request.hex()]


class Kept(Struct, frozen=True):
    """The row at a place. `data` None: the row is open, or the answer was too large."""

    request: bytes
    call_id: str
    state: str
    kept_ns: int
    data: bytes | None = None


class KeptAnswers:
    """The answers of all callers. `database` None: in memory. `key` None: the key in the file next to the database.

    `owner` returns the id of this process, whose death frees its open rows.
    """

    def __init__(
        self,
        database: Path | None,
        owner: Callable[[], str],
        key: Secret | None = None,
        limits: AnswerLimits | None = None,
        *,
        busy_s: float = 2.0,
    ) -> None:
        self._limits = limits or AnswerLimits()
        self._owner = owner
        self._store = SideStore(database, m016_kept_answers, busy_s=busy_s)
        self._seal = Seal(self._store.database, key, b"kept answers")

    def find(self, place: Place, now_ns: int) -> Kept | None:
        """The row at the place, unless it has expired or is a claim that will never end. Raises StoreError."""
        self._seal.open()
        try:
            return self._find(self._store.connected(), place, now_ns)
        except (OSError, sqlite3.Error) as error:
            raise self._store.failed(error, _WHAT) from error

    def claim(self, place: Place, call_id: str, now_ns: int, until_ns: int, *, anew: bool = False) -> Kept | None:
        """Claims the place for this call, until `keep`, `free` or `until_ns`. Returns None, or the LOST call before.

        If the place is taken, returns its row. `anew`: ignore and replace that row. Raises StoreError.
        """
        found = None if anew else self.find(place, now_ns)  # a usual repeat takes no write lock
        if found is not None and found.state != LOST:
            return found
        try:
            db = self._store.connected()
            db.execute("BEGIN IMMEDIATE")
            found = None if anew else self._find(db, place, now_ns)
            if found is None or found.state == LOST:
                db.execute(_CLAIM, (*_key(place), place.request, call_id, self._owner(), now_ns, until_ns))
            db.execute("COMMIT")
            return found
        except (OSError, sqlite3.Error) as error:
            raise self._store.failed(error, _WHAT) from error

    def keep(self, place: Place, call_id: str, data: bytes | None, now_ns: int, until_ns: int) -> None:
        """Stores the answer of this call, or that it is too large (None), unless another call claimed the place.

        Drops answers beyond the limits. Raises StoreError.
        """
        sealed = None if data is None else self._seal.seal(zlib.compress(data, 1), place.bound_to)
        if sealed is not None and len(sealed) > self._limits.caller_bytes:
            sealed = None
        values = {
            "caller": place.caller,
            "name": place.name,
            "request": place.request,
            "call_id": call_id,
            "owner": self._owner(),
            "state": TOO_LARGE if sealed is None else KEPT,
            "now": now_ns,
            "until": until_ns,
            "size": len(sealed or b""),
            "sealed": sealed,
        }
        try:
            db = self._store.connected()
            db.execute("BEGIN IMMEDIATE")
            db.execute(_KEEP, values)
            self._drop(db, place.caller, now_ns)
            db.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            raise self._store.failed(error, _WHAT) from error

    def free(self, place: Place, call_id: str) -> None:
        """Ends the claim of this call without an answer. Raises StoreError."""
        try:
            self._store.connected().execute(_FREE, (*_key(place), call_id))
        except (OSError, sqlite3.Error) as error:
            raise self._store.failed(error, _WHAT) from error

    def expire(self, now_ns: int) -> int:
        """Drops expired rows of all callers, at most _EXPIRED_AT_ONCE of them; returns their number.

        Raises StoreError.
        """
        too_old = {"now": now_ns, "most": _EXPIRED_AT_ONCE}
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

    def _find(self, db: sqlite3.Connection, place: Place, now_ns: int) -> Kept | None:
        row = db.execute(_FIND, (*_key(place), now_ns)).fetchone()
        if row is None:
            return None
        request, call_id, state, owner, kept_ns, sealed = row
        if state == OPEN and owner == self._owner():
            return None  # a claim of this process that it could not free: its call is not running here
        if sealed is None or request != place.request:
            return Kept(request, call_id, state, kept_ns)
        data = self._seal.unseal(sealed, place.bound_to)
        return None if data is None else Kept(request, call_id, state, kept_ns, zlib.decompress(data))

    def _drop(self, db: sqlite3.Connection, caller: str, now_ns: int) -> None:
        """Drops answers beyond the limits, oldest first. The time depends on the dropped answers only."""
        limits = self._limits
        db.execute(_EXPIRE, {"now": now_ns, "most": _EXPIRED_AT_ONCE})
        own = (f"of {caller}", limits.caller_answers, limits.caller_bytes)
        for scope, most_answers, most_bytes in (own, ("all", limits.all_answers, limits.all_bytes)):
            row = db.execute("SELECT answers, bytes FROM kept_answer_sums WHERE scope = ?", (scope,)).fetchone()
            answers, size = row or (0, 0)
            if answers <= most_answers and size <= most_bytes:
                continue
            excess: list[tuple[int]] = []
            for rowid, sealed in db.execute(*((_OLDEST, ()) if scope == "all" else (_OLDEST_OF_CALLER, (caller,)))):
                if answers <= most_answers and size <= most_bytes:
                    break
                answers, size = answers - 1, size - sealed
                excess.append((rowid,))
            db.executemany("DELETE FROM kept_answers WHERE rowid = ?", excess)


def lose_claims_of(db: sqlite3.Connection, owner: str) -> None:
    """Ends the claims of a dead owner, inside the caller's transaction."""
    db.execute("UPDATE kept_answers SET state = 'lost' WHERE state = 'open' AND owner = ?", (owner,))


def _key(place: Place) -> tuple[str, bytes]:
    return place.caller, place.name


_EXPIRED_AT_ONCE = 1_000
_FIND = """
    SELECT request, call_id, state, owner, kept_ns, sealed FROM kept_answers
    WHERE caller = ? AND name = ? AND expires_ns > ?
"""
_CLAIM = """
    INSERT INTO kept_answers (caller, name, request, call_id, owner, state, kept_ns, expires_ns, size, sealed)
    VALUES (?, ?, ?, ?, ?, 'open', ?, ?, 0, NULL)
    ON CONFLICT (caller, name) DO UPDATE SET request = excluded.request, call_id = excluded.call_id,
        owner = excluded.owner, state = excluded.state, kept_ns = excluded.kept_ns, expires_ns = excluded.expires_ns,
        size = excluded.size, sealed = excluded.sealed
"""
_KEEP = """
    INSERT INTO kept_answers (caller, name, request, call_id, owner, state, kept_ns, expires_ns, size, sealed)
    VALUES (:caller, :name, :request, :call_id, :owner, :state, :now, :until, :size, :sealed)
    ON CONFLICT (caller, name) DO UPDATE SET request = excluded.request, call_id = excluded.call_id,
        owner = excluded.owner, state = excluded.state, kept_ns = excluded.kept_ns, expires_ns = excluded.expires_ns,
        size = excluded.size, sealed = excluded.sealed
    WHERE state <> 'open' OR call_id = excluded.call_id
"""
_FREE = "DELETE FROM kept_answers WHERE caller = ? AND name = ? AND call_id = ? AND state = 'open'"
_EXPIRED = "SELECT rowid FROM kept_answers WHERE expires_ns <= :now LIMIT :most"
_EXPIRE = "DELETE FROM kept_answers WHERE rowid IN (" + _EXPIRED + ")"
_OLDEST = "SELECT rowid, size FROM kept_answers WHERE state <> 'open' ORDER BY kept_ns"
_OLDEST_OF_CALLER = "SELECT rowid, size FROM kept_answers WHERE caller = ? AND state <> 'open' ORDER BY kept_ns"
