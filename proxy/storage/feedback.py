"""Performs I/O: callers' ratings of answers (table `feedback`). Ratings are deleted with their calls."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from typing import Any

import msgspec

from proxy.schema.ensembles import Rating, StoredRating
from proxy.schema.records import NANO_PER_USD
from proxy.storage.base import RowRefused

MOST_PER_CALL = 100
# The call itself; for a repeat the call whose answer it got, if that still exists.
_CALL = """
    SELECT IFNULL((SELECT id FROM calls AS first WHERE first.id = calls.replay_of), id) FROM calls
    WHERE id = :id AND (:key_id IS NULL OR IFNULL(key_id, '') = :key_id)
"""
_COUNT = "SELECT COUNT(*), IFNULL(MAX(seq), 0) FROM feedback WHERE call_id = ?"
_ADD = """
    INSERT INTO feedback (call_id, seq, given_ns, key_id, success, score, comment, source)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_OF_CALL = "SELECT given_ns, key_id, success, score, comment, source FROM feedback WHERE call_id = ? ORDER BY seq"
# One row per call: a later rating corrects an earlier one. A comment alone rates nothing.
_LAST = """
    SELECT call_id, IFNULL(success, score), MAX(seq) FROM json_each(?) CROSS JOIN feedback ON call_id = value
    WHERE success IS NOT NULL OR score IS NOT NULL GROUP BY call_id
"""
_DELETE = "DELETE FROM feedback WHERE call_id IN (SELECT value FROM json_each(?))"


def add_rating(db: sqlite3.Connection, rating: Rating, key_id: str | None, now_ns: int) -> StoredRating | None:
    """Stores the rating of a call of this key (None: any key). Returns it as stored; None: there is no such call.

    Raises RowRefused if the call has too many.
    """
    success = None if rating.success is None else int(rating.success)
    values = (rating.key_id, success, rating.score, rating.comment, rating.source)
    db.execute("BEGIN IMMEDIATE")  # closing the connection after an error rolls it back
    found = db.execute(_CALL, {"id": rating.call_id, "key_id": key_id}).fetchone()
    if found is None:
        db.execute("ROLLBACK")
        return None
    (call_id,) = found
    count, last = db.execute(_COUNT, (call_id,)).fetchone()
    if count >= MOST_PER_CALL:
        raise RowRefused(f"The call {call_id} already has {count} ratings, the maximum.")
    db.execute(_ADD, (call_id, last + 1, now_ns, *values))
    db.execute("COMMIT")
    return _shown(call_id, now_ns, *values)


def ratings_of(db: sqlite3.Connection, call_id: str) -> list[StoredRating]:
    """The ratings of a call, oldest first."""
    return [_shown(call_id, *row) for row in db.execute(_OF_CALL, (call_id,)).fetchall()]


def last_ratings(db: sqlite3.Connection, call_ids: list[str]) -> dict[str, float]:
    """The last rating of each of these calls that has one, from 0 to 1: a success counts as 1, a failure as 0."""
    rows = db.execute(_LAST, (msgspec.json.encode(call_ids).decode(),)).fetchall()
    return {call_id: float(value) for call_id, value, _ in rows}


def delete_ratings(db: sqlite3.Connection, call_ids: str) -> None:
    """Deletes the ratings of calls. `call_ids`: a JSON array."""
    db.execute(_DELETE, (call_ids,))


def _shown(call_id: str, given_ns: int, *values: Any) -> StoredRating:
    key_id, success, score, comment, source = values
    moment = datetime.fromtimestamp(given_ns // NANO_PER_USD, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return {
        "id": call_id,
        "success": None if success is None else bool(success),
        "score": score,
        "comment": comment,
        "source": source,
        "key_id": key_id,
        "timestamp": f"{moment}.{given_ns // 1_000_000 % 1000:03d}Z",
    }
