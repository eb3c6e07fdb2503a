"""Performs I/O: the migration that makes the tables of stored prompts, and the columns of calls that used one."""

from __future__ import annotations

from sqlite_utils import Database


def m026_prompts(db: Database) -> None:
    """Prompts, their versions and labels (storage/prompts.py). `content` is JSON. Labels keep every move."""
    db.execute(
        """
        CREATE TABLE prompts (
            id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, revision INTEGER NOT NULL, created_ns INTEGER NOT NULL,
            archived_ns INTEGER
        ) STRICT, WITHOUT ROWID
        """
    )
    # With a rowid: contents may be large, and a look-up of labels reads none of them.
    db.execute(
        """
        CREATE TABLE prompt_versions (
            prompt TEXT NOT NULL, version INTEGER NOT NULL, created_ns INTEGER NOT NULL, archived_ns INTEGER,
            content TEXT NOT NULL, UNIQUE (prompt, version)
        ) STRICT
        """
    )
    db.execute(
        """
        CREATE TABLE prompt_labels (
            prompt TEXT NOT NULL, label TEXT NOT NULL, seq INTEGER NOT NULL, version INTEGER, moved_ns INTEGER NOT NULL,
            moved_by TEXT, note TEXT, PRIMARY KEY (prompt, label, seq)
        ) STRICT, WITHOUT ROWID
        """
    )
    # The column `prompt` came with the rollups.
    db.execute("ALTER TABLE calls ADD COLUMN prompt_version INTEGER")
    for column in ("prompt_label", "experiment", "variant"):
        db.execute("ALTER TABLE calls ADD COLUMN " + column + " TEXT")
