"""Performs I/O: the spend of budgets, for a database file that replaces another (storage/rescue.py).

Several processes may carry over the rows of one lost file, one after another, and each may have written to it until it
noticed the loss. So the spend of a carried row is booked with the row, once. The spend of earlier rows, which are not
carried, is known only from the lost file's figures: no window may have spent less than those.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from proxy.storage.spending import Figures, Key

_CALLS = "calls WHERE opened_ns >= :since"
_ATTEMPTS = "attempts WHERE call_id IN (SELECT id FROM calls WHERE opened_ns >= :since)"
# Only in the budgets of keys does the amount that the key pays differ from the provider's bill.
_SPENT = """
    SELECT each.value ->> 0 AS budget, each.value ->> 1 AS start_ns, SUM(IFNULL({cost}, 0))
    FROM (SELECT * FROM {rows} AND closed_ns IS NOT NULL AND charges IS NOT NULL) AS row, json_each(row.charges) AS each
    GROUP BY 1, 2
"""
_COST_OF_CALL = "IIF(each.value ->> 0 LIKE 'key %', row.charged_nano, row.cost_nano)"
_HELD = """
    SELECT each.value ->> 0, each.value ->> 1, SUM(IFNULL(row.hold_nano, 0))
    FROM {rows} AS row, json_each(row.charges) AS each
    WHERE row.closed_ns IS NULL AND row.charges IS NOT NULL GROUP BY 1, 2
"""
# Only attempts of open calls are open: an index finds them.
_OPEN_ATTEMPTS = "(SELECT * FROM attempts WHERE call_id IN (SELECT id FROM calls WHERE closed_ns IS NULL))"
_OPEN_CALLS = "(SELECT * FROM calls WHERE closed_ns IS NULL)"
_ALL = "SELECT budget, start_ns, spent_nano, reserved_nano FROM spending"
_SAVE = """
    INSERT INTO spending (budget, start_ns, spent_nano, reserved_nano, used_ns)
    VALUES (?, ?, ?, ?, strftime('%s', 'now') * 1000000000)
    ON CONFLICT DO UPDATE SET spent_nano = excluded.spent_nano, reserved_nano = excluded.reserved_nano
"""
_ALERTS = "SELECT budget, start_ns, share, limit_nano, seen_ns FROM alerts"
_ADD_ALERTS = "INSERT OR IGNORE INTO alerts (budget, start_ns, share, limit_nano, seen_ns) VALUES (?, ?, ?, ?, ?)"


def spent_since(db: sqlite3.Connection, since_ns: int) -> dict[Key, int]:
    """The spend in each window of calls opened since then, and of their attempts."""
    spent: dict[Key, int] = {}
    for rows, cost in ((_CALLS, _COST_OF_CALL), (_ATTEMPTS, "row.cost_nano")):
        statement = _SPENT.replace("{rows}", rows).replace("{cost}", cost)
        for budget, start_ns, cost_nano in db.execute(statement, {"since": since_ns}):
            spent[budget, start_ns] = spent.get((budget, start_ns), 0) + cost_nano
    return spent


def carry_spending(
    orphan: sqlite3.Connection, db: sqlite3.Connection, before: Mapping[Key, int], since_ns: int
) -> None:
    """Books the spend that the carried rows add to `before`, and copies the reported alerts. Raises sqlite3.Error."""
    figures: dict[Key, Figures] = {(budget, start): (spent, 0) for budget, start, spent, _ in db.execute(_ALL)}
    for key, spent in spent_since(db, since_ns).items():
        figures[key] = (figures.get(key, (0, 0))[0] + spent - before.get(key, 0), 0)
    for budget, start_ns, spent, _ in orphan.execute(_ALL):
        figures[budget, start_ns] = (max(spent, figures.get((budget, start_ns), (0, 0))[0]), 0)
    for rows in (_OPEN_CALLS, _OPEN_ATTEMPTS):
        for budget, start_ns, held in db.execute(_HELD.replace("{rows}", rows)):
            spent, others = figures.get((budget, start_ns), (0, 0))
            figures[budget, start_ns] = (spent, others + held)
    db.executemany(_SAVE, [(*key, *each) for key, each in figures.items()])
    db.executemany(_ADD_ALERTS, orphan.execute(_ALERTS).fetchall())
