"""Nobody beside the ledger writes to a database file while the log of the one that it replaced is there."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from proxy.storage.base import StoreError
from proxy.storage.batch import Batch
from proxy.storage.connections import connect, has_log_of_another
from proxy.storage.side_store import SideStore
from proxy.storage.sqlite import SqliteStore
from tests.storage.samples import attempt, call, rows


def opened(number: int) -> Batch:
    first = attempt(str(number))
    return Batch(opened={str(number): (call(str(number)), first)}, intents={first.id: first})


def test_a_replaced_file_is_left_alone_until_its_old_log_has_gone(tmp_path: Path) -> None:
    """Whoever opens it for the first time too; reading goes on, and the ledger ends the wait."""
    path, backup = tmp_path / "usage.db", tmp_path / "backup.db"
    ledger, other = SqliteStore(path, clock_ns=lambda: 0), SqliteStore(path)
    ledger.open()
    other.open()
    ledger.write(opened(1))
    with closing(connect(path, "rw", 1.0)) as db:
        db.execute("VACUUM INTO ?", (str(backup),))
    ledger.write(opened(2))
    os.replace(backup, path)
    assert has_log_of_another(path)
    side = SideStore(path, lambda database: None)
    for open_it in (lambda: connect(path, "rw", 1.0), side.connected):
        with pytest.raises(sqlite3.OperationalError, match="was replaced"):
            open_it()
    connect(path, "ro", 1.0).close()
    with pytest.raises(StoreError, match="removed or replaced"):
        ledger.write(Batch())
    ledger.write(opened(3))
    with closing(connect(path, "rw", 1.0)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    side.close()
    assert [row["id"] for row in rows(path, "SELECT id FROM calls ORDER BY id")] == ["1", "2", "3"]
    other.close()
    ledger.close()


def test_what_cannot_be_read_in_the_folder_of_owners_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    store = SqliteStore(path)
    store.open()
    (tmp_path / "usage.db-owners" / "odd.lock").write_bytes(b"[[1, 2]")
    (tmp_path / "usage.db-owners" / "empty.lock").write_bytes(b"")
    assert not has_log_of_another(path)
    store.close()
