"""Performs I/O: sums of ended calls per hour and per UTC day.

A row sums the calls of one provider, model, key, rule and task that began in its span. Further rows sum over some of
these (`KEPT`), so that a common question reads few rows, however many combinations there are. In a row's key '' is an
unknown value, because NULLs are never equal.

When a call ends, a trigger lists it in `calls_to_sum`, in the transaction that ends it, whether that is a settle,
another process's sweep or a rescue. Only the first end of a call changes its row, so it is listed once. `sum_up` moves
listed calls into the sums. Usage is read as the sums and the listed calls together, in one snapshot, so it is exact at
any time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from operator import add
from typing import Any

from proxy.storage.histograms import Merging, merged, pack, unpack

HOUR_S, DAY_S = 3_600, 86_400
AT_ONCE = 500  # calls; summing them takes about a millisecond
KEY = ("provider", "model", "key_id", "rule", "task_type")
# The columns that rows of each kind distinguish, from the fewest rows to the most; '' stands for everything else.
KEPT = {"none": (), "key": ("key_id",), "model": ("provider", "model"), "task": ("rule", "task_type"), "all": KEY}
# Each sum, and the amount that a call adds. The limit keeps SUM within 64 bits, whatever a vendor reports.
SUMS = {
    "calls": "1",
    "successes": "success",
    **{
        name: "MIN(" + name + ", 9007199254740992)"
        for name in ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
    },
    "cost_nano": "MIN(IFNULL(cost_nano, 0), 9007199254740992)",
    "unpriced_calls": "cost_nano IS NULL",
    "fallbacks": "fallback",
    "replays": "replay_of IS NOT NULL",
    "timed_calls": "attempts > 0 AND latency_ms IS NOT NULL",  # times of calls without attempts are meaningless
    "latency_ms": "IIF(attempts > 0, IFNULL(latency_ms, 0.0), 0.0)",
    "charged_nano": "MIN(COALESCE(charged_nano, cost_nano, 0), 9007199254740992)",
}
TIMES = {"latencies": "latency_ms", "first_tokens": "first_token_ms"}  # a histogram, and its column
TIMED = "IIF(attempts > 0, {}, NULL)"
# The list decides the order of the join: it is short.
LISTED = "calls_to_sum CROSS JOIN calls ON calls.id = calls_to_sum.call_id"
_LAST = "SELECT MAX(seq) FROM (SELECT seq FROM calls_to_sum ORDER BY seq LIMIT ?)"
_GROUPED = (
    "SELECT opened_ns / 3600000000000 * 3600 AS start_s, "
    + ", ".join("IFNULL(" + name + ", '') AS key_" + name for name in KEY)
    + "".join(", SUM(" + value + ")" for value in SUMS.values())
    + "".join(", histogram(" + TIMED.replace("{}", name) + ")" for name in TIMES.values())
    + " FROM "
    + LISTED
    + " WHERE seq <= ? GROUP BY start_s, "
    + ", ".join("key_" + name for name in KEY)
)
_COLUMNS = ("kept", "span_s", "start_s", *KEY, *SUMS, *TIMES)
_MASKS = [(kept, tuple(name in names for name in KEY)) for kept, names in KEPT.items()]
_ADD = (
    "INSERT INTO rollups (" + ", ".join(_COLUMNS) + ") VALUES (" + ", ".join("?" * len(_COLUMNS)) + ")"
    " ON CONFLICT DO UPDATE SET "
    + ", ".join(name + " = " + name + " + excluded." + name for name in SUMS)
    + "".join(", " + name + " = merged(" + name + ", excluded." + name + ")" for name in TIMES)
)


def prepare(db: sqlite3.Connection) -> None:
    """Registers the SQL functions that sums need, for writing and for reading."""
    db.create_function("merged", 2, merged, deterministic=True)
    db.create_aggregate("histogram", 1, Merging)  # type: ignore[arg-type]  # typeshed knows only integers


def sum_up(db: sqlite3.Connection, most: int = AT_ONCE) -> int:
    """Moves the first `most` listed calls into the sums, in the caller's transaction; returns their number."""
    (last,) = db.execute(_LAST, (most,)).fetchone()
    if last is None:
        return 0
    found: dict[tuple[Any, ...], list[Any]] = {}
    for start_s, *rest in db.execute(_GROUPED, (last,)):
        key, values = rest[: len(KEY)], [*rest[len(KEY) : -2], unpack(rest[-2]), unpack(rest[-1])]
        for kept, mask in _MASKS:
            part = [value if is_kept else "" for value, is_kept in zip(key, mask, strict=True)]
            for span_s in (HOUR_S, DAY_S):
                place = (kept, span_s, start_s - start_s % span_s, *part)
                sums = found.get(place)
                found[place] = values if sums is None else [*map(add, sums, values)]
    db.executemany(_ADD, [(*place, *sums[:-2], pack(sums[-2]), pack(sums[-1])) for place, sums in found.items()])
    return db.execute("DELETE FROM calls_to_sum WHERE seq <= ?", (last,)).rowcount


def list_all(db: sqlite3.Connection) -> None:
    """Lists every ended call, for a database without sums."""
    db.execute("INSERT INTO calls_to_sum (call_id) SELECT id FROM calls WHERE closed_ns IS NOT NULL ORDER BY opened_ns")


def correct(db: sqlite3.Connection, changes: Iterable[tuple[int, list[str | None], Mapping[str, int]]]) -> None:
    """Corrects sums for calls already in them: `opened_ns`, the values of `KEY`, and the changes by name."""
    rows = []
    for opened_ns, key, change in changes:
        values = [*(change.get(name, 0) for name in SUMS), *(None for _ in TIMES)]
        for kept, mask in _MASKS:
            part = [value or "" if is_kept else "" for value, is_kept in zip(key, mask, strict=True)]
            for span_s in (HOUR_S, DAY_S):
                start_s = opened_ns // 1_000_000_000
                rows.append((kept, span_s, start_s - start_s % span_s, *part, *values))
    db.executemany(_ADD, rows)
