"""Performs I/O: the spent and held amounts of each budget window (table `spending`).

It is read and changed inside the transaction that writes a batch, under SQLite's write lock: the figures cannot change
between a check and the write, in any process.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from proxy.schema.records import Charge

Figures = tuple[int, int]  # nano-USD: spent, reserved
Key = tuple[str, int]  # budget, start_ns
_DAY_NS = 86_400 * 1_000_000_000
_LONGEST_DAYS = {"minute": 1, "hour": 1, "daily": 2, "weekly": 8, "monthly": 32, "last_24h": 2}  # rounded up
_KEPT_DAYS, _KEPT_LONG_DAYS = 2, 400  # after the end; long: days, weeks and months, except those of sessions
IDLE_DAYS = 30  # after which the total of a session ends
_READ = "SELECT spent_nano, reserved_nano FROM spending WHERE budget = ? AND start_ns = ?"
_READ_SINCE = "SELECT start_ns, spent_nano, reserved_nano FROM spending WHERE budget = ? AND start_ns >= ?"
_SAVE = """
    INSERT INTO spending (budget, start_ns, spent_nano, reserved_nano, used_ns)
    VALUES (?, ?, ?, ?, strftime('%s', 'now') * 1000000000)
    ON CONFLICT (budget, start_ns) DO UPDATE
        SET spent_nano = excluded.spent_nano, reserved_nano = excluded.reserved_nano, used_ns = excluded.used_ns
"""
_COST_OF_CALL = "SELECT cost_nano FROM calls WHERE id = ?"
_COST_OF_ATTEMPT = "SELECT cost_nano FROM attempts WHERE call_id = ? AND seq = ?"
_OPEN_CALLS = "SELECT id, hold_nano, charges FROM calls WHERE closed_ns IS NULL AND {which}"
_OPEN_ATTEMPTS = """
    SELECT call_id, seq, hold_nano, charges FROM attempts WHERE closed_ns IS NULL AND charges IS NOT NULL
        AND call_id IN (SELECT id FROM calls WHERE closed_ns IS NULL AND {which})
"""


def is_over(budget: str, start_ns: int, now_ns: int, used_ns: int) -> bool:
    """True if the window ended so long ago that its figures are not needed. `used_ns`: when they last changed.

    `total` never ends, except for a session, whose names clients choose freely: it ends when nothing has counted
    against it for IDLE_DAYS.
    """
    kind, is_of_session = budget.rpartition(" ")[2], budget.startswith("session ")
    longest = _LONGEST_DAYS.get(kind)
    if longest is None:
        return is_of_session and kind == "total" and used_ns < now_ns - IDLE_DAYS * _DAY_NS
    is_long = kind in ("daily", "weekly", "monthly") and not is_of_session
    return start_ns < now_ns - (longest + (_KEPT_LONG_DAYS if is_long else _KEPT_DAYS)) * _DAY_NS


class Lost(NamedTuple):
    """An open row with charges that is about to be closed as `unknown`."""

    cost_of: str
    row: tuple[str] | tuple[str, int]
    hold_nano: int | None
    charges: str


def open_rows(db: sqlite3.Connection, where: str, parameters: Mapping[str, object]) -> list[Lost]:
    """The open rows with charges of the calls that `where` selects, and of their attempts. `where` is our own SQL."""
    calls = db.execute(_OPEN_CALLS.replace("{which}", where), parameters)
    found = [Lost(_COST_OF_CALL, (row[0],), row[1], row[2]) for row in calls if row[2] is not None]
    attempts = db.execute(_OPEN_ATTEMPTS.replace("{which}", where), parameters)
    return found + [Lost(_COST_OF_ATTEMPT, (row[0], row[1]), row[2], row[3]) for row in attempts]


class Spending:
    """The figures of the windows that one transaction reads and changes."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._figures: dict[Key, list[int]] = {}
        self._since: dict[str, int] = {}  # sliding budgets whose buckets have been read
        self._changed: set[Key] = set()

    def held(self, charge: Charge) -> Figures:
        """Spent and reserved in the charge's window."""
        if charge.since_ns == charge.start_ns:
            spent, reserved = self._row((charge.budget, charge.start_ns))
            return spent, reserved
        if self._since.get(charge.budget, charge.since_ns + 1) > charge.since_ns:
            for start_ns, spent, reserved in self._db.execute(_READ_SINCE, (charge.budget, charge.since_ns)):
                self._figures.setdefault((charge.budget, start_ns), [spent, reserved])
            self._since[charge.budget] = charge.since_ns
        rows = [row for key, row in self._figures.items() if key[0] == charge.budget and key[1] >= charge.since_ns]
        return sum(row[0] for row in rows), sum(row[1] for row in rows)

    def book(self, keys: Iterable[Key], *, spent: int = 0, reserved: int = 0) -> None:
        if not spent and not reserved:
            return
        for key in keys:
            row = self._row(key)
            row[0] += spent
            row[1] += reserved
            self._changed.add(key)

    def save(self) -> dict[Key, Figures]:
        """Writes the changes. Returns all figures that were read."""
        self._db.executemany(_SAVE, [(*key, *self._figures[key]) for key in self._changed])
        return {key: (row[0], row[1]) for key, row in self._figures.items()}

    def _row(self, key: Key) -> list[int]:
        row = self._figures.get(key)
        if row is None:
            row = self._figures[key] = list(self._db.execute(_READ, key).fetchone() or (0, 0))
        return row


def read_spending(db: sqlite3.Connection) -> dict[Key, Figures]:
    """The figures of all windows."""
    rows = db.execute("SELECT budget, start_ns, spent_nano, reserved_nano FROM spending")
    return {(budget, start_ns): (spent, held) for budget, start_ns, spent, held in rows}


@lru_cache(maxsize=1024)
def written(charges: tuple[Charge, ...]) -> str | None:
    """The windows of a row for its column `charges`: JSON, `[[budget, start_ns], ...]`."""
    return msgspec.json.encode([(each.budget, each.start_ns) for each in charges]).decode() if charges else None


def book_lost(db: sqlite3.Connection, lost: Sequence[Lost]) -> None:
    """Turns the holds of rows that were closed as `unknown` into spending."""
    if lost:
        spending = Spending(db)
        for each in lost:
            (cost_nano,) = db.execute(each.cost_of, each.row).fetchone()
            keys = msgspec.json.decode(each.charges, type=list[Key])
            spending.book(keys, spent=cost_nano or 0, reserved=-(each.hold_nano or 0))
        spending.save()
