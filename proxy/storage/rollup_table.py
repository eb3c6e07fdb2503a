"""Performs I/O: the migrations that make the tables of rollups, and fill them from the calls of an earlier version."""

from __future__ import annotations

import sqlite3

from sqlite_utils import Database

from proxy.storage import rollups

_AT_ONCE = 20_000
_FORGIVEN = """
    SELECT opened_ns, IFNULL(provider, ''), IFNULL(model, ''), IFNULL(key_id, ''), IFNULL(rule, ''),
        IFNULL(task_type, ''), charged_nano - cost_nano
    FROM calls WHERE closed_ns IS NOT NULL AND charged_nano <> cost_nano
        AND id NOT IN (SELECT call_id FROM calls_to_sum)
"""
_FORGIVE = """
    UPDATE rollups SET charged_nano = charged_nano + ?
    WHERE kept = ? AND span_s = ? AND start_s = ? AND provider = ? AND model = ? AND key_id = ? AND rule = ?
        AND task_type = ?
"""


def m018_rollups(db: Database) -> None:
    """Sums of ended calls per hour and per day (storage/rollups.py); what ensembles and prompts will fill in."""
    # One b-tree in the order of time; the histograms are last, so that sums skip them.
    db.execute(
        """
        CREATE TABLE rollups (
            kept TEXT NOT NULL, span_s INTEGER NOT NULL, start_s INTEGER NOT NULL, provider TEXT NOT NULL,
            model TEXT NOT NULL, key_id TEXT NOT NULL, rule TEXT NOT NULL, task_type TEXT NOT NULL,
            calls INTEGER NOT NULL, successes INTEGER NOT NULL, input_tokens INTEGER NOT NULL,
            output_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, cache_write_tokens INTEGER NOT NULL,
            reasoning_tokens INTEGER NOT NULL, cost_nano INTEGER NOT NULL, unpriced_calls INTEGER NOT NULL,
            fallbacks INTEGER NOT NULL, replays INTEGER NOT NULL, timed_calls INTEGER NOT NULL,
            latency_ms REAL NOT NULL, latencies BLOB, first_tokens BLOB,
            PRIMARY KEY (kept, span_s, start_s, provider, model, key_id, rule, task_type)
        ) STRICT, WITHOUT ROWID
        """
    )
    # No constraints: a trigger that may abort makes SQLite keep a copy of each page for each statement.
    db.execute("CREATE TABLE calls_to_sum (seq INTEGER PRIMARY KEY, call_id TEXT)")
    db.execute(
        """
        CREATE TRIGGER calls_ended AFTER UPDATE OF closed_ns ON calls
        WHEN OLD.closed_ns IS NULL AND NEW.closed_ns IS NOT NULL
        BEGIN INSERT INTO calls_to_sum (call_id) VALUES (NEW.id); END
        """
    )
    for column in ("ensemble", "prompt"):
        db.execute("ALTER TABLE calls ADD COLUMN " + column + " TEXT")


def m025_charges(db: Database) -> None:
    """What keys pay, in the sums too: the cost, and nothing for the calls that they were forgiven."""
    db.execute("ALTER TABLE rollups ADD COLUMN charged_nano INTEGER NOT NULL DEFAULT 0")
    db.execute("UPDATE rollups SET charged_nano = cost_nano")
    forgiven = db.execute(_FORGIVEN).fetchall()
    for opened_ns, *key, nano in forgiven:
        for kept, names in rollups.KEPT.items():
            part = [value if name in names else "" for name, value in zip(rollups.KEY, key, strict=True)]
            for span_s in (rollups.HOUR_S, rollups.DAY_S):
                start_s = opened_ns // 1_000_000_000
                db.execute(_FORGIVE, (nano, kept, span_s, start_s - start_s % span_s, *part))


def sum_all(db: sqlite3.Connection) -> None:
    """Sums every call that has ended, in the caller's transaction and in bounded memory."""
    rollups.prepare(db)
    rollups.list_all(db)
    while rollups.sum_up(db, _AT_ONCE):
        pass
