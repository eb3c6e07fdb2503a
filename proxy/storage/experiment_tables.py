"""Performs I/O: the migration that makes the tables of experiments, and what calls keep for them."""

from __future__ import annotations

from sqlite_utils import Database


def m027_experiments(db: Database) -> None:
    """Experiments, and outcomes without a call (storage/experiments.py). `content` and `state` are JSON."""
    db.execute(
        """
        CREATE TABLE experiments (
            id TEXT PRIMARY KEY NOT NULL, status TEXT NOT NULL, prompt TEXT, content TEXT NOT NULL, state TEXT NOT NULL
        ) STRICT, WITHOUT ROWID
        """
    )
    # One experiment at a time varies the uses of a prompt.
    db.execute("CREATE UNIQUE INDEX experiments_running ON experiments (prompt) WHERE status = 'running'")
    db.execute(
        """
        CREATE TABLE experiment_outcomes (
            experiment TEXT NOT NULL, seq INTEGER NOT NULL, variant TEXT NOT NULL, unit TEXT, success INTEGER,
            score REAL, given_ns INTEGER NOT NULL, PRIMARY KEY (experiment, seq)
        ) STRICT, WITHOUT ROWID
        """
    )
    # A hash of whom the variant was chosen for, and the outcomes that the answer itself shows.
    db.execute("ALTER TABLE calls ADD COLUMN experiment_unit TEXT")
    db.execute("ALTER TABLE calls ADD COLUMN valid_json INTEGER")
    db.execute("ALTER TABLE calls ADD COLUMN refusal INTEGER")
    db.execute("CREATE INDEX calls_by_experiment ON calls (experiment) WHERE experiment IS NOT NULL")
    db.execute("CREATE INDEX calls_by_prompt ON calls (prompt) WHERE prompt_version IS NOT NULL")
