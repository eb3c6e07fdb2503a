"""Performs I/O: the decisions of ensembles: written with the end of a call, read for the report."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec

from proxy.schema.ensembles import EnsembleCall, EnsembleQuery, EnsembleRecord
from proxy.storage.batch import ClosedCall
from proxy.storage.feedback import last_ratings

# Before the end of the call is written, in the same transaction: only the first end of a call counts.
_ADD = """
    INSERT INTO ensemble_calls (call_id, ensemble, opened_ns, record)
    SELECT id, ?, opened_ns, ? FROM calls WHERE id = ? AND closed_ns IS NULL
"""
_DELETE = "DELETE FROM ensemble_calls WHERE call_id IN (SELECT value FROM json_each(?))"
_READ = """
    SELECT call_id, record, success, cost_nano, latency_ms
    FROM ensemble_calls AS decided CROSS JOIN calls ON calls.id = call_id
    WHERE decided.ensemble = :name AND decided.opened_ns >= :since AND decided.opened_ns < :until
        AND (:key_id IS NULL OR IFNULL(key_id, '') = :key_id)
    ORDER BY decided.opened_ns DESC LIMIT :limit
"""
_record_of = msgspec.json.Decoder(EnsembleRecord).decode


def add_decided(db: sqlite3.Connection, closed: Iterable[ClosedCall]) -> None:
    """Writes the records of those calls that have one and are still open."""
    decided = [(call.end.call_id, call.end.ensemble) for call in closed if call.end.ensemble is not None]
    if decided:
        values = [(record.name, msgspec.json.encode(record).decode(), call_id) for call_id, record in decided]
        db.executemany(_ADD, values)


def read_decided(db: sqlite3.Connection, call_id: str) -> EnsembleRecord | None:
    """The decision of an ensemble in this call; None: there was none."""
    row = db.execute("SELECT record FROM ensemble_calls WHERE call_id = ?", (call_id,)).fetchone()
    return None if row is None else _record_of(row[0])


def delete_decided(db: sqlite3.Connection, call_ids: str) -> None:
    """Deletes the records of calls. `call_ids`: a JSON array."""
    db.execute(_DELETE, (call_ids,))


def read_ensemble_calls(db: sqlite3.Connection, query: EnsembleQuery) -> list[EnsembleCall]:
    """Newest first, with the last rating of each; one more than the limit if there are more."""
    values = {
        "name": query.name,
        "since": query.since_ns,
        "until": query.until_ns,
        "key_id": query.key_id,
        "limit": query.limit + 1,
    }
    db.execute("BEGIN")
    rows = db.execute(_READ, values).fetchall()
    ratings = last_ratings(db, [row[0] for row in rows])
    db.execute("COMMIT")
    return [
        EnsembleCall(_record_of(record), bool(success), cost_nano, latency_ms or 0.0, ratings.get(call_id))
        for call_id, record, success, cost_nano, latency_ms in rows
    ]
