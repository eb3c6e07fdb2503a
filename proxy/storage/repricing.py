"""Performs I/O: reads attempts in order of time, and writes their new costs into attempts, calls and sums.

Each chunk is one short transaction, so a server can go on writing. An interrupted run can be repeated: it finds the
remaining changes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec

from proxy.schema.queries import Repriced, StoredAttempt
from proxy.storage import rollups
from proxy.storage.connections import connected
from proxy.storage.migrations import migrate

_CALLS_AT_ONCE = 500
_BUSY_S = 10.0
_CALLS = """
    SELECT opened_ns, id FROM calls WHERE closed_ns IS NOT NULL AND opened_ns >= :after_ns
        AND (opened_ns > :after_ns OR id > :after_id)
    ORDER BY opened_ns, id LIMIT :most
"""
# Attempts charged by their hold, or by the vendor's own figure, were not priced from tokens, and stay unchanged.
_ATTEMPTS = """
    SELECT attempts.id, call_id, seq, provider, IFNULL(answered_model, model) AS model, opened_ns, cost_nano, input,
        cache_read, cache_write, output, reasoning, cache_write_1h, searches, input_audio, input_image,
        cache_read_audio, output_audio, output_image, service_tier, others
    FROM json_each(?) AS named CROSS JOIN attempts ON attempts.call_id = named.value
    WHERE usage_source IN ('provider', 'estimated') AND outcome <> 'unknown'
        AND (provider_cost_nano IS NULL OR provider_cost_nano IS NOT cost_nano)
    ORDER BY call_id, seq
"""
_SET_ATTEMPT = "UPDATE attempts SET cost_nano = ?, price_version = ? WHERE call_id = ? AND seq = ?"
_COSTS = (
    "SELECT calls.id, cost_nano, charged_nano FROM json_each(?) AS named CROSS JOIN calls ON calls.id = named.value"
)
# As in a sweep: null if a relevant price is unknown.
_SET_CALL = """
    UPDATE calls SET cost_nano = (
        SELECT CASE WHEN IFNULL(MAX(cost_nano IS NULL AND (outcome = 'unknown'
            OR input + cache_read + cache_write + output > 0)), 0) = 0 THEN IFNULL(SUM(cost_nano), 0) END
        FROM attempts WHERE call_id = calls.id)
    WHERE id = ? RETURNING opened_ns, provider, model, key_id, rule, task_type, cost_nano
"""
# The key pays the cost of the call, unless the call was forgiven.
_SET_CHARGE = "UPDATE calls SET charged_nano = cost_nano WHERE id = ?"
_BY_DAY = """
    SELECT strftime('%Y-%m-%d', attempts.opened_ns / 1000000000, 'unixepoch') AS day, attempts.provider, attempts.model,
        SUM(attempts.cost_nano)
    FROM calls JOIN attempts ON attempts.call_id = calls.id
    WHERE calls.opened_ns >= :since - 86400000000000 AND calls.opened_ns < :until
        AND attempts.opened_ns >= :since AND attempts.opened_ns < :until
    GROUP BY 1, 2, 3
"""


class Repricing:
    """The attempts of one SQLite file. Raises StoreError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def attempts(self, since_ns: int) -> Iterator[list[StoredAttempt]]:
        """The priced attempts of the calls that began since then and have ended, a few calls at a time."""
        with self._connected("ro") as db:
            after: tuple[int, str] = (since_ns, "")
            while True:
                parameters = {"after_ns": after[0], "after_id": after[1], "most": _CALLS_AT_ONCE}
                calls = db.execute(_CALLS, parameters).fetchall()
                if not calls:
                    return
                after = calls[-1]
                yield priced_attempts(db, [call_id for _, call_id in calls])

    def write(self, changes: Iterable[Repriced]) -> None:
        """Writes the new costs in one transaction."""
        changed = list(changes)
        with self._connected("rw") as db:
            rollups.prepare(db)
            migrate(db)
            db.execute("BEGIN IMMEDIATE")
            while rollups.sum_up(db):  # after that the sums include every call, at its old cost
                pass
            call_ids = list(dict.fromkeys(each.attempt.call_id for each in changed))
            before = {row[0]: row[1:] for row in db.execute(_COSTS, (_json(call_ids),))}
            db.executemany(
                _SET_ATTEMPT,
                [(each.cost_nano, each.price_version, each.attempt.call_id, each.attempt.seq) for each in changed],
            )
            corrections = []
            for call_id in call_ids:
                opened_ns, *key, after = db.execute(_SET_CALL, (call_id,)).fetchone()
                cost, charged = before[call_id]
                change = {"cost_nano": (after or 0) - (cost or 0), "unpriced_calls": (after is None) - (cost is None)}
                if charged == cost:
                    db.execute(_SET_CHARGE, (call_id,))
                    change["charged_nano"] = change["cost_nano"]
                corrections.append((opened_ns, key, change))
            rollups.correct(db, corrections)
            db.execute("COMMIT")

    def costs_by_day(self, since_ns: int, until_ns: int) -> dict[tuple[str, str, str], int | None]:
        """Nano-USD by UTC day, provider and model; None: no price is known."""
        with self._connected("ro") as db:
            rows = db.execute(_BY_DAY, {"since": since_ns, "until": until_ns}).fetchall()
        return {(day, provider, model): cost for day, provider, model, cost in rows}

    def _connected(self, mode: str) -> AbstractContextManager[sqlite3.Connection]:
        return connected(self._path, mode, _BUSY_S, "usage database")


def priced_attempts(db: sqlite3.Connection, call_ids: list[str]) -> list[StoredAttempt]:
    """The attempts of these calls whose cost follows from their tokens."""
    cursor = db.execute(_ATTEMPTS, (_json(call_ids),))
    cursor.row_factory = sqlite3.Row
    return [_stored(dict(row)) for row in cursor.fetchall()]


def _stored(row: dict[str, Any]) -> StoredAttempt:
    names = ("id", "call_id", "seq", "provider", "model", "opened_ns", "cost_nano")
    fields = {name: row.pop(name) for name in names}
    return StoredAttempt(**fields, parts=row)


def _json(call_ids: Iterable[str]) -> str:
    return msgspec.json.encode(list(call_ids)).decode()
