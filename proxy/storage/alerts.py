"""Performs I/O: the budget shares that have been reported (table `alerts`), for all workers and across restarts."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from proxy.schema.records import Crossing
from proxy.storage.base import StoreError
from proxy.storage.connections import connect

# A sliding window has a row for each of its buckets, and is reported once for all of them.
_ADD = """
    INSERT OR IGNORE INTO alerts (budget, start_ns, share, limit_nano, seen_ns)
    SELECT :budget, :start_ns, :share, :limit_nano, :now WHERE NOT EXISTS (
        SELECT 1 FROM alerts
        WHERE budget = :budget AND start_ns >= :since_ns AND share = :share AND limit_nano = :limit_nano)
"""


class AlertRows:
    """The table of one SQLite file. Every call opens its own connection; nothing here creates a database."""

    def __init__(self, path: Path, *, busy_s: float = 2.0) -> None:
        self._path = path
        self._busy_s = busy_s

    def is_first(self, crossing: Crossing, now_ns: int) -> bool:
        """Stores a crossing; False if any process stored it before. Raises StoreError."""
        values = {
            "budget": crossing.budget,
            "start_ns": crossing.start_ns,
            "since_ns": crossing.since_ns,
            "share": crossing.share,
            "limit_nano": crossing.limit_nano,
            "now": now_ns,
        }
        try:
            with closing(connect(self._path, "rw", self._busy_s)) as db:
                return db.execute(_ADD, values).rowcount == 1
        except sqlite3.Error as error:
            raise StoreError(f"Cannot store alerts in the database {self._path}: {error}.") from error
