"""Performs I/O: reads of the SQLite store, and ratings, from any thread, even while it is written.

Each opens its own connection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from proxy.schema.ensembles import EnsembleCall, EnsembleQuery, Rating, StoredRating
from proxy.schema.queries import CallDetails, LogQuery, UsageQuery
from proxy.schema.records import PastCall
from proxy.storage.base import StoreError, TooSlow
from proxy.storage.connections import connect
from proxy.storage.ensemble_calls import read_ensemble_calls
from proxy.storage.feedback import add_rating
from proxy.storage.migrations import MIGRATIONS
from proxy.storage.past_calls import read_call, read_details, read_latest
from proxy.storage.request_log import read_log
from proxy.storage.spending import read_spending
from proxy.storage.usage import read_usage

_PROGRESS_STEPS = 20_000  # of SQLite's virtual machine, about a millisecond


class SqliteReader:
    """The reads of a `Store`. `busy_s`: how long they wait for other processes, in seconds."""

    def __init__(self, path: Path, busy_s: float) -> None:
        self._path = path
        self._busy_s = busy_s

    def usage(self, query: UsageQuery, give_up: Callable[[], bool] = lambda: False) -> dict[str, Any]:
        with self._reading(give_up) as db:
            return read_usage(db, query)

    def call(
        self, call_id: str, key_id: str | None, give_up: Callable[[], bool] = lambda: False
    ) -> dict[str, Any] | None:
        with self._reading(give_up) as db:
            return read_call(db, call_id, key_id)

    def details(self, call_id: str, give_up: Callable[[], bool] = lambda: False) -> CallDetails:
        with self._reading(give_up) as db:
            return read_details(db, call_id)

    def log(self, query: LogQuery, give_up: Callable[[], bool] = lambda: False) -> list[dict[str, Any]]:
        with self._reading(give_up) as db:
            return read_log(db, query)

    def latest(self, count: int, give_up: Callable[[], bool] = lambda: False) -> list[PastCall]:
        with self._reading(give_up) as db:
            return read_latest(db, count)

    def spending(self, give_up: Callable[[], bool] = lambda: False) -> dict[tuple[str, int], tuple[int, int]]:
        with self._reading(give_up) as db:
            return read_spending(db)

    def ensemble_calls(self, query: EnsembleQuery, give_up: Callable[[], bool] = lambda: False) -> list[EnsembleCall]:
        with self._reading(give_up) as db:
            return read_ensemble_calls(db, query)

    def rate(self, rating: Rating, key_id: str | None, now_ns: int) -> StoredRating | None:
        with self._reading(lambda: False, "rw") as db:
            return add_rating(db, rating, key_id, now_ns)

    @contextmanager
    def _reading(self, give_up: Callable[[], bool], mode: str = "ro") -> Iterator[sqlite3.Connection]:
        try:
            with closing(connect(self._path, mode, self._busy_s)) as db:
                db.set_progress_handler(give_up, _PROGRESS_STEPS)
                if db.execute("PRAGMA user_version").fetchone()[0] < len(MIGRATIONS):
                    raise StoreError(f"{self._path} is from an earlier version; `proxy serve` brings it up to date")
                yield db
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
                raise TooSlow("the query took too long") from error
            raise StoreError(str(error)) from error
