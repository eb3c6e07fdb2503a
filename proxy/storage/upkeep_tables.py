"""Performs I/O: the migrations that make the tables of clean-ups, of alerts and of texts, and date windows."""

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


def m021_call_texts(db: Database) -> None:
    """Prompts and answers of calls whose keys store them, encrypted (storage/call_texts.py)."""
    # Apart from `calls`, which is read in whole: texts are large.
    db.execute(
        """
        CREATE TABLE call_texts (
            call_id TEXT PRIMARY KEY NOT NULL, opened_ns INTEGER NOT NULL, sealed BLOB NOT NULL
        ) STRICT
        """
    )
    db.execute("CREATE INDEX call_texts_by_age ON call_texts (opened_ns)")


def m022_use_of_spending(db: Database) -> None:
    """When the figures of a budget window last changed: the total of a session ends some time after that."""
    db.execute("ALTER TABLE spending ADD COLUMN used_ns INTEGER NOT NULL DEFAULT 0")
    db.execute("UPDATE spending SET used_ns = strftime('%s', 'now') * 1000000000")
