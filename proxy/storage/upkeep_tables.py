"""Performs I/O: the migrations that make the tables of clean-ups and of alerts."""

from __future__ import annotations

from sqlite_utils import Database


def m019_clean_ups(db: Database) -> None:
    """When the next clean-up is due (storage/retention.py): one row, which the process that cleans up moves on."""
    db.execute("CREATE TABLE clean_ups (id INTEGER PRIMARY KEY CHECK (id = 1), due_ns INTEGER NOT NULL) STRICT")
    db.execute("INSERT INTO clean_ups VALUES (1, 0)")


def m020_alerts(db: Database) -> None:
    """Shares of budgets that were reached, each once per window and limit (storage/alerts.py)."""
    db.execute(
        """
        CREATE TABLE alerts (
            budget TEXT NOT NULL, start_ns INTEGER NOT NULL, share REAL NOT NULL, limit_nano INTEGER NOT NULL,
            seen_ns INTEGER NOT NULL, PRIMARY KEY (budget, start_ns, share, limit_nano)
        ) STRICT, WITHOUT ROWID
        """
    )
