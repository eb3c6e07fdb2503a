"""The database file is removed, moved or replaced under a store that writes to it: no row is lost from then on."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from proxy.schema.queries import UsageQuery
from proxy.storage.base import StoreError
from proxy.storage.batch import Batch
from proxy.storage.owners import LEASE_S
from proxy.storage.sqlite import SqliteStore
from tests.storage.samples import attempt, call, outcomes, rows
from tests.storage.test_sqlite import settled

LOGS = ("", "-wal", "-shm")


def opened(name: str) -> Batch:
    """A call that has just begun."""
    return Batch(opened={name: (call(name, opened_ns=2 * 10**18), attempt(name))}, intents={name: attempt(name)})


def remove(path: Path) -> None:
    for suffix in LOGS:
        path.with_name(path.name + suffix).unlink()


def remove_the_file_alone(path: Path) -> None:
    path.unlink()


def move(path: Path) -> None:
    for suffix in LOGS:
        path.with_name(path.name + suffix).rename(path.with_name("moved.db" + suffix))


def move_the_file_alone(path: Path) -> None:
    path.rename(path.with_name("moved.db"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


@pytest.fixture
def store(path: Path) -> SqliteStore:
    made = SqliteStore(path)
    made.open()
    made.write(settled("before"))
    made.write(opened("open"))
    return made


def refused_once(store: SqliteStore, batch: Batch) -> None:
    """The write that finds out says so, and keeps nothing; the next one works."""
    with pytest.raises(StoreError, match="was removed or replaced while it was in use"):
        store.write(batch)
    store.write(batch)


@pytest.mark.parametrize("how", [remove, remove_the_file_alone, move, move_the_file_alone])
def test_a_file_that_is_gone_comes_back_with_all_its_rows(
    path: Path, store: SqliteStore, how: Callable[[Path], None]
) -> None:
    """It was open all the time, so nothing of it was lost."""
    how(path)
    refused_once(store, settled("after"))
    store.write(settled("later"))
    assert outcomes(path) == {"before": "ok", "open": "open", "after": "ok", "later": "ok"}
    assert rows(path, "SELECT COUNT(*) AS n FROM attempts") == [{"n": 4}]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert store.usage(UsageQuery())["total"]["calls"] == 3  # and one in flight
    store.close()
    assert rows(path, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    assert sorted(each.name for each in path.parent.glob("x.db*")) == ["x.db", "x.db-owners"]
    if moved := [each for each in path.parent.glob("moved.db") if each.exists()]:
        assert outcomes(moved[0]) == {"before": "ok", "open": "open"}
        assert rows(moved[0], "PRAGMA integrity_check") == [{"integrity_check": "ok"}]


def test_a_file_that_is_gone_is_noticed_by_a_sweep(path: Path, store: SqliteStore) -> None:
    """Without calls somebody else has to look."""
    remove(path)
    with pytest.raises(StoreError, match="was removed or replaced"):
        store.sweep(5)
    assert store.sweep(5) == 0
    assert outcomes(path) == {"before": "ok", "open": "open"}
    store.close()


@pytest.mark.parametrize("with_logs", [True, False])
def test_a_backup_renamed_over_the_file_is_used_and_given_what_it_lacks(
    path: Path, store: SqliteStore, with_logs: bool
) -> None:
    """What was written since the server started is added; the old log is not applied to it."""
    backup = path.with_name("backup.db")
    with closing(sqlite3.connect(path)) as db:
        db.execute("VACUUM INTO ?", (str(backup),))
    with closing(sqlite3.connect(backup)) as db:
        db.execute("UPDATE calls SET requested_model = 'restored' WHERE id = 'before'")
        db.execute("DELETE FROM calls WHERE id = 'open'")
        db.commit()
    store.write(opened("since"))
    if not with_logs:
        for suffix in LOGS[1:]:
            path.with_name(path.name + suffix).unlink()
    os.replace(backup, path)
    refused_once(store, settled("after"))
    assert outcomes(path) == {"before": "ok", "open": "open", "since": "open", "after": "ok"}
    assert rows(path, "SELECT requested_model FROM calls WHERE id = 'before'") == [{"requested_model": "restored"}]
    store.close()
    assert rows(path, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]


def test_a_file_that_is_moved_away_and_back_keeps_both_rows(path: Path, store: SqliteStore) -> None:
    """Those of the file, and those of the time in between."""
    away = path.with_name("away.db")
    path.rename(away)
    refused_once(store, opened("between"))
    away.rename(path)
    refused_once(store, settled("after"))
    assert outcomes(path) == {"before": "ok", "open": "open", "between": "open", "after": "ok"}
    store.close()


def test_a_folder_that_is_gone_is_waited_for(path: Path, tmp_path: Path) -> None:
    """As when a volume is detached: nothing is made elsewhere, and the rows are saved once it is back."""
    folder = tmp_path / "volume"
    folder.mkdir()
    store = SqliteStore(folder / "x.db")
    store.open()
    store.write(settled("before"))
    folder.rename(tmp_path / "detached")
    for _ in range(3):
        with pytest.raises(StoreError):
            store.write(settled("after"))
    assert not folder.exists()
    (tmp_path / "detached").rename(folder)
    other = SqliteStore(folder / "x.db")  # reads the log that came back with it
    other.open()
    store.write(settled("after"))
    assert outcomes(folder / "x.db") == {"before": "ok", "after": "ok"}
    store.close()
    other.close()
    assert rows(folder / "x.db", "PRAGMA integrity_check") == [{"integrity_check": "ok"}]


def test_two_processes_save_into_one_file(path: Path, store: SqliteStore) -> None:
    """The first that notices makes it, the other joins, and neither deletes the log of the new file at its end."""
    other = SqliteStore(path)
    other.open()
    other.write(settled("other"))
    remove(path)
    refused_once(store, settled("after"))
    refused_once(other, settled("other after"))
    store.write(settled("later"))
    assert path.with_name("x.db-wal").exists()
    other.close()
    assert path.with_name("x.db-wal").exists()
    store.write(settled("last"))
    expected = {"before", "open", "other", "after", "other after", "later", "last"}
    assert set(outcomes(path)) == expected
    store.close()
    assert rows(path, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    assert set(outcomes(path)) == expected


def test_reading_never_makes_a_file(path: Path, store: SqliteStore) -> None:
    """An empty one would stand in the way of the rows that are to be saved."""
    remove(path)
    with pytest.raises(StoreError):
        store.usage(UsageQuery())
    assert not path.exists()
    refused_once(store, settled("after"))
    assert store.usage(UsageQuery())["total"]["calls"] == 2  # and one in flight
    store.close()


def test_a_store_that_ends_without_its_file_leaves_the_new_one_alone(path: Path, store: SqliteStore) -> None:
    """Closing a connection deletes its log by name; here that name is another database's by now."""
    remove(path)
    new = SqliteStore(path)
    new.open()
    new.write(settled("new"))
    store.close()
    assert path.with_name("x.db-wal").exists()
    new.write(settled("newer"))
    new.close()
    assert outcomes(path) == {"new": "ok", "newer": "ok"}


# --- owners, found by the file ----------------------------------------------------------------------------------------


def test_two_names_of_one_file_are_one_database(path: Path, store: SqliteStore, tmp_path: Path) -> None:
    """A process that comes by a symbolic link sees the locks of the others, and they see its."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "proxy.db").symlink_to(path)
    (tmp_path / "linked").symlink_to(tmp_path, target_is_directory=True)
    for name in (tmp_path / "etc" / "proxy.db", tmp_path / "linked" / "x.db"):
        other = SqliteStore(name)
        other.open()
        other.write(opened(f"by {name.parent.name}"))
        assert (other.sweep(5), store.sweep(5)) == (0, 0)
        other.close()
        assert store.sweep(5) == 1
    assert outcomes(path)["open"] == "open"
    assert [each.name for each in tmp_path.rglob("*-owners")] == ["x.db-owners"]
    store.close()


def test_a_file_with_two_hard_links_is_refused(path: Path, store: SqliteStore) -> None:
    """SQLite would keep a log beside each name, and the two would destroy the database."""
    store.close()
    os.link(path, path.with_name("other.db"))
    with pytest.raises(StoreError, match="hard link"):
        SqliteStore(path.with_name("other.db")).open()
    path.with_name("other.db").unlink()
    store.open()
    store.close()


def test_the_folder_of_locks_may_go_while_its_owner_lives(path: Path, store: SqliteStore) -> None:
    """Its lease says so until it writes again; when that ran out nobody else can know."""
    shutil.rmtree(path.with_name("x.db-owners"))
    now_ns = [0]
    other = SqliteStore(path, clock_ns=lambda: now_ns[0])
    other.open()
    [row] = rows(path, "SELECT renewed_ns FROM owners WHERE id = ?", store.owner)
    now_ns[0] = row["renewed_ns"] + round((LEASE_S - 1) * 1e9)
    assert other.sweep(5) == 0
    now_ns[0] = row["renewed_ns"] + round((LEASE_S + 1) * 1e9)
    store.write(settled("after"))  # its lock file is there again
    assert other.sweep(5) == 0
    shutil.rmtree(path.with_name("x.db-owners"))
    assert other.sweep(5) == 1
    other.close()
    store.close()


def test_an_owner_that_ends_well_is_known_to_be_gone(path: Path, store: SqliteStore) -> None:
    """It leaves neither lock nor lease, so its open calls are swept at once."""
    store.close()
    other = SqliteStore(path)
    other.open()
    assert other.sweep(5) == 1
    assert rows(path, "SELECT id FROM owners") == [{"id": other.owner}]
    other.close()


@pytest.mark.slow
def test_an_owner_that_ends_on_a_full_disk_is_known_to_be_gone(path: Path, store: SqliteStore) -> None:
    """Its lease stays, and so does its lock file, which is free: nobody waits for the lease to run out."""
    with closing(sqlite3.connect(path, isolation_level=None)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        store.close()
        lock.execute("ROLLBACK")
    assert rows(path, "SELECT id FROM owners") == [{"id": store.owner}]
    other = SqliteStore(path)
    other.open()
    assert other.sweep(5) == 1
    assert rows(path, "SELECT id FROM owners") == [{"id": other.owner}]
    assert [each.stem for each in path.with_name("x.db-owners").iterdir()] == [other.owner]
    other.close()


def test_the_probe_does_not_touch_a_newer_schema(path: Path, store: SqliteStore) -> None:
    """A newer version has migrated the file; what an older process writes to see whether it can means nothing."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
        db.commit()
    store.write(Batch())
    assert rows(path, "PRAGMA user_version") == [{"user_version": 99}]
    store.close()
