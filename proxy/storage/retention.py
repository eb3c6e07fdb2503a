"""Performs I/O: deletes rows that are older than their retention, and reports the size of the database.

A clean-up deletes in transactions of a few milliseconds and pauses between them, so that other writers hardly wait. It
may stop anywhere: the next one continues. Calls stay until they are in the sums. Only one process cleans up at a time,
coordinated by the row of `clean_ups`.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Struct
from sqlite_utils import Database

from proxy.storage.base import StoreError
from proxy.storage.connections import connect
from proxy.storage.ensemble_calls import delete_decided
from proxy.storage.feedback import delete_ratings
from proxy.storage.side_store import SideStore
from proxy.storage.spending import Key, is_over

EVERY_S = 3600.0
LEASE_S = 60.0  # after which another process continues the clean-up of a dead one
AIM_S = 0.0008  # for the statements of one transaction
_REST = 79  # pause, as a multiple of the transaction's time: the write lock is held for an eightieth of the time
_LEAST_REST_S = 0.002
_FIRST, _MOST = 16, 400  # calls per transaction
_CHECKPOINT_AFTER = 10  # transactions, so that the ledger's commits need not do it; no caller waits for it
_WINDOWS = 500  # read at once
_NS = 1_000_000_000
# A due time after `latest` means that the clock was set back.
_CLAIM = "UPDATE clean_ups SET due_ns = :until WHERE due_ns <= :now OR due_ns > :latest"
_SET_DUE = "UPDATE clean_ups SET due_ns = ?"
_OLD_CALLS = """
    SELECT opened_ns, rowid, id, closed_ns IS NOT NULL AND id NOT IN (SELECT call_id FROM calls_to_sum), success
    FROM calls
    WHERE opened_ns >= ? AND (opened_ns, rowid) > (?, ?) AND opened_ns < ? ORDER BY opened_ns, rowid LIMIT ?
"""
_DELETE_ATTEMPTS = "DELETE FROM attempts WHERE call_id IN (SELECT value FROM json_each(?))"
_DELETE_CALLS = "DELETE FROM calls WHERE rowid IN (SELECT value FROM json_each(?)) AND closed_ns IS NOT NULL"
_DELETE_TEXTS = "DELETE FROM call_texts WHERE call_id IN (SELECT value FROM json_each(?))"
_HAS_OLD_TEXTS = "SELECT 1 FROM call_texts WHERE opened_ns < ? LIMIT 1"
_DELETE_OLD_TEXTS = """
    DELETE FROM call_texts WHERE rowid IN (SELECT rowid FROM call_texts WHERE opened_ns < ? ORDER BY opened_ns LIMIT ?)
"""
_OLD_WINDOWS = "SELECT budget, start_ns, used_ns FROM spending WHERE (budget, start_ns) > (?, ?) ORDER BY 1, 2 LIMIT ?"
_DELETE_WINDOW = "DELETE FROM spending WHERE budget = ? AND start_ns = ? AND used_ns = ? AND reserved_nano = 0"
_DELETE_ALERTS = """
    DELETE FROM alerts WHERE budget = :budget AND start_ns = :start_ns
        AND NOT EXISTS (SELECT 1 FROM spending WHERE budget = :budget AND start_ns = :start_ns)
"""
_STATE = "SELECT (SELECT COUNT(*) FROM calls), (SELECT MIN(opened_ns) FROM calls), (SELECT due_ns FROM clean_ups)"


class StorageState(Struct, frozen=True):
    """The size of the database. `next_clean_up_ns` in the past: it is due; while one runs, within LEASE_S from now."""

    calls: int
    oldest_ns: int | None
    next_clean_up_ns: int
    file_bytes: int
    wal_bytes: int


class KeptDays(Struct, frozen=True):
    """How long rows are kept: calls, calls that did not succeed, and texts, deleted with their calls at the latest."""

    calls: int
    errors: int
    texts: int


class Cleaned(Struct):
    """The result of a clean-up. `longest_s`: the longest time for which it held the write lock."""

    calls: int = 0
    attempts: int = 0
    texts: int = 0
    windows: int = 0
    transactions: int = 0
    longest_s: float = 0.0


class Retention:
    """The clean-ups of one SQLite file.

    Every method opens its own connection. `busy_s`: how long a transaction waits for other processes.
    """

    def __init__(
        self,
        path: Path,
        days: KeptDays,
        *,
        busy_s: float = 2.0,
        clock_ns: Callable[[], int] = time.time_ns,
        rest: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path = path
        self._days = days
        self._busy_s = busy_s
        self._clock_ns = clock_ns
        self._rest = rest
        self._size = _FIRST

    def clean_up(self, give_up: Callable[[], bool] = lambda: False) -> Cleaned | None:
        """Deletes expired rows if a clean-up is due; None if it is not. Raises StoreError.

        It may take minutes. `give_up` is polled.
        """
        store = SideStore(self._path, _no_schema, busy_s=self._busy_s)
        try:
            db = store.connected()
            db.execute("PRAGMA wal_autocheckpoint = 0")  # _CHECKPOINT_AFTER
            now_ns = self._clock_ns()
            if not self._claim(db, now_ns):
                return None
            done = Cleaned()
            for _ in self._transactions(store, now_ns, done):
                if give_up():
                    break
            with self._transaction(store.connected(), done) as db:
                db.execute(_SET_DUE, (self._clock_ns() + (0 if give_up() else int(EVERY_S * _NS)),))
            return done
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"Cannot clean up the usage database {self._path}: {error}.") from error
        finally:
            store.close()

    def state(self) -> StorageState:
        """The state. It counts all calls, so ask rarely. Raises StoreError."""
        try:
            with closing(connect(self._path, "ro", self._busy_s)) as db:
                calls, oldest_ns, due_ns = db.execute(_STATE).fetchone()
            return StorageState(calls, oldest_ns, due_ns, _bytes(self._path), _bytes(Path(f"{self._path}-wal")))
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"Cannot read the usage database {self._path}: {error}.") from error

    def _claim(self, db: sqlite3.Connection, now_ns: int) -> bool:
        (due_ns,) = db.execute("SELECT due_ns FROM clean_ups").fetchone()
        times = {"now": now_ns, "until": now_ns + int(LEASE_S * _NS), "latest": now_ns + int(EVERY_S * _NS)}
        if times["now"] < due_ns <= times["latest"]:
            return False
        return db.execute(_CLAIM, times).rowcount == 1

    def _transactions(self, store: SideStore, now_ns: int, done: Cleaned) -> Iterator[None]:
        """Deletes calls, texts and windows; each step is at most one transaction."""
        before = [max(0, now_ns - days * 86_400 * _NS) for days in (self._days.errors, self._days.calls)]  # by success
        position = (0, 0)
        while (
            found := store.connected().execute(_OLD_CALLS, (position[0], *position, max(before), self._size)).fetchall()
        ):
            position = found[-1][:2]
            old = [(rowid, id) for opened, rowid, id, is_done, success in found if is_done and opened < before[success]]
            if old:
                with self._transaction(store.connected(), done) as db:
                    rowids, ids = (msgspec.json.encode(each).decode() for each in zip(*old, strict=True))
                    done.attempts += db.execute(_DELETE_ATTEMPTS, (ids,)).rowcount
                    done.texts += db.execute(_DELETE_TEXTS, (ids,)).rowcount
                    delete_decided(db, ids)
                    delete_ratings(db, ids)
                    done.calls += db.execute(_DELETE_CALLS, (rowids,)).rowcount
            else:
                self._rest(_LEAST_REST_S)
            yield
        yield from self._old_texts(store, now_ns - self._days.texts * 86_400 * _NS, done)
        yield from self._old_windows(store, now_ns, done)

    def _old_texts(self, store: SideStore, before_ns: int, done: Cleaned) -> Iterator[None]:
        while store.connected().execute(_HAS_OLD_TEXTS, (before_ns,)).fetchone():
            with self._transaction(store.connected(), done) as db:
                done.texts += db.execute(_DELETE_OLD_TEXTS, (before_ns, self._size)).rowcount
            yield

    def _old_windows(self, store: SideStore, now_ns: int, done: Cleaned) -> Iterator[None]:
        key: Key = ("", -1)
        while windows := store.connected().execute(_OLD_WINDOWS, (*key, _WINDOWS)).fetchall():
            key = windows[-1][:2]
            over = [(budget, start, used) for budget, start, used in windows if is_over(budget, start, now_ns, used)]
            for at in range(0, len(over), _FIRST):
                with self._transaction(store.connected(), done) as db:
                    done.windows += db.executemany(_DELETE_WINDOW, over[at : at + _FIRST]).rowcount
                    db.executemany(
                        _DELETE_ALERTS, [{"budget": each[0], "start_ns": each[1]} for each in over[at : at + _FIRST]]
                    )
                yield

    @contextmanager
    def _transaction(self, db: sqlite3.Connection, done: Cleaned) -> Iterator[sqlite3.Connection]:
        """Renews the claim, adapts the size of the next transaction to the time that this one took, and pauses."""
        db.execute("BEGIN IMMEDIATE")
        begun = time.perf_counter()
        try:
            db.execute(_SET_DUE, (self._clock_ns() + int(LEASE_S * _NS),))
            yield db
            db.execute("COMMIT")
            took_s = time.perf_counter() - begun
        except BaseException:
            if db.in_transaction:
                with suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
            raise
        done.transactions += 1
        done.longest_s = max(done.longest_s, took_s)
        factor = min(1.5, max(0.25, AIM_S / max(took_s, 1e-6)))
        self._size = max(1, min(_MOST, round(self._size * factor)))
        if done.transactions % _CHECKPOINT_AFTER == 0:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        self._rest(max(_LEAST_REST_S, _REST * took_s))


def _no_schema(_: Database) -> None:
    """Does nothing: the ledger creates the tables."""


def _bytes(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
