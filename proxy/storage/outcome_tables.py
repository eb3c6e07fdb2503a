"""Performs I/O: the migrations that make the tables of what ensembles decided and of what callers say about answers."""

from __future__ import annotations

from sqlite_utils import Database


def m023_ensemble_calls(db: Database) -> None:
    """What an ensemble decided in a call (storage/ensemble_calls.py). `record` is JSON, without texts of answers."""
    db.execute(
        """
        CREATE TABLE ensemble_calls (
            call_id TEXT PRIMARY KEY NOT NULL, ensemble TEXT NOT NULL, opened_ns INTEGER NOT NULL, record TEXT NOT NULL
        ) STRICT
        """
    )
    db.execute("CREATE INDEX ensemble_calls_by_time ON ensemble_calls (ensemble, opened_ns)")


def m024_feedback(db: Database) -> None:
    """Ratings of answers (storage/feedback.py), numbered within their call."""
    db.execute(
        """
        CREATE TABLE feedback (
            call_id TEXT NOT NULL, seq INTEGER NOT NULL, given_ns INTEGER NOT NULL, key_id TEXT, success INTEGER,
            score REAL, comment TEXT, source TEXT NOT NULL, PRIMARY KEY (call_id, seq)
        ) STRICT, WITHOUT ROWID
        """
    )
