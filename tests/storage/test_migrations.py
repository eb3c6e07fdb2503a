"""Migrations are transactional and forward only."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from sqlite_utils import Database

from proxy.storage.base import StoreError
from proxy.storage.migrations import MIGRATIONS, migrate


def m901_half(db: Database) -> None:
    """Fails after its first statement."""
    db.table("half").create({"id": int}, pk="id")
    db.execute("SELECT * FROM nowhere")


def test_a_step_that_fails_leaves_the_schema_as_it_was() -> None:
    """Steps and version are one transaction; the next start tries again."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        with pytest.raises(sqlite3.OperationalError):
            migrate(db, (*MIGRATIONS, m901_half))
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == []
        assert db.execute("PRAGMA user_version").fetchone() == (0,)
        migrate(db)
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


def test_only_pending_steps_run() -> None:
    """A step that ran once does not run again."""
    ran = []
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate(db, (lambda _: ran.append("one"),))
        migrate(db, (lambda _: ran.append("one"), lambda _: ran.append("two")))
        migrate(db, (lambda _: ran.append("one"), lambda _: ran.append("two")))
    assert ran == ["one", "two"]


def test_rows_of_an_earlier_version_stay_as_they_were() -> None:
    """What they did not count is zero."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate(db, MIGRATIONS[:3])
        columns = "INSERT INTO attempts (call_id, seq, id, provider, model, opened_ns, outcome, cache_write)"
        db.execute(columns + " VALUES ('c', 1, 'c-1', 'p', 'm', 5, 'ok', 7)")
        migrate(db)
        row = db.execute("SELECT id, cache_write, cache_write_1h, searches FROM attempts").fetchone()
    assert row == ("c-1", 7, 0, 0)


def test_a_newer_schema_is_refused() -> None:
    """An older program does not write into what it does not know."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.execute("PRAGMA user_version = 99")
        with pytest.raises(StoreError, match="newer version"):
            migrate(db)
