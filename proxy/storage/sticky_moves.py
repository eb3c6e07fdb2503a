"""Performs I/O: conversations that left their first choice, in the usage database, for all workers on this machine.

A row has a hash, a model, a count and a time, but no text from a client. Every call opens its own connection, as for
keys; nothing here creates a database.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from proxy.schema.records import StickyMove
from proxy.storage.connections import connected

MAX_MOVES = 20_000
_AT_ONCE = 1_000  # rows dropped by one write
_MAX_READ = 10_000
# Each report about a session gets a new number. Writers take turns, so numbers become visible in order, and a reader
# that asks for those above the last it saw misses none.
_FORGET = "DELETE FROM sticky_moves WHERE session = ?"
_TELL = "INSERT INTO sticky_moves (session, model, tokens, until_ns) VALUES (?, ?, ?, ?)"
_IS_OVER = "SELECT EXISTS (SELECT 1 FROM sticky_moves WHERE until_ns <= ?)"
_DROP_OVER = "DELETE FROM sticky_moves WHERE seq IN (SELECT seq FROM sticky_moves WHERE until_ns <= ? LIMIT ?)"
_DROP_EXCESS = """
    DELETE FROM sticky_moves WHERE seq IN (SELECT seq FROM sticky_moves ORDER BY seq DESC LIMIT ? OFFSET ?)
"""
_NEW = "SELECT seq, session, model, tokens, until_ns FROM sticky_moves WHERE seq > ? ORDER BY seq LIMIT ?"
_LAST = "SELECT IFNULL(MAX(seq), 0) FROM sticky_moves"


class StickyMoves:
    """The table `sticky_moves` of one SQLite file. `busy_s`: how long a call waits for other processes."""

    def __init__(self, path: Path, *, busy_s: float = 2.0) -> None:
        self._path = path
        self._busy_s = busy_s

    def exchange(
        self, told: Sequence[StickyMove], seen: int, now_ns: int, most: int = MAX_MOVES
    ) -> tuple[list[StickyMove], int]:
        """Stores `told`, drops expired rows and, beyond `most` rows, the oldest. Returns the moves stored since `seen`,
        oldest first, and the number to pass next time (0 at first). Raises StoreError.
        """
        with self._connected("ro") as db:
            if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'sticky_moves'").fetchone() is None:
                return [], 0  # a database from an older version
            (is_over,) = db.execute(_IS_OVER, (now_ns,)).fetchone()
        if told or is_over:
            self._write(told, now_ns, most)
        with self._connected("ro") as db:
            db.execute("BEGIN")
            (last,) = db.execute(_LAST).fetchone()
            rows = db.execute(_NEW, (seen if seen <= last else 0, _MAX_READ)).fetchall()  # or the file was replaced
        seen = rows[-1][0] if rows else last
        return [StickyMove(*values) for _, *values in rows], seen

    def _write(self, told: Sequence[StickyMove], now_ns: int, most: int) -> None:
        with self._connected("rw") as db:
            db.execute("BEGIN IMMEDIATE")
            db.executemany(_FORGET, [(move.session,) for move in told])
            db.executemany(_TELL, [(move.session, move.model, move.tokens, move.until_ns) for move in told])
            db.execute(_DROP_OVER, (now_ns, _AT_ONCE))
            db.execute(_DROP_EXCESS, (_AT_ONCE, most))
            db.execute("COMMIT")

    def _connected(self, mode: str) -> AbstractContextManager[sqlite3.Connection]:
        return connected(self._path, mode, self._busy_s, "sticky sessions in the database")
