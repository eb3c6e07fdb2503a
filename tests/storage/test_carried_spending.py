"""The database file is removed or replaced while budgets are in use: what is spent and held is not forgotten."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from proxy.schema.records import Charge
from proxy.storage.base import StoreError
from proxy.storage.batch import Batch, OpenCall
from proxy.storage.sqlite import SqliteStore
from tests.faults.books import budgets
from tests.storage.samples import attempt, attempt_end, call, call_end, rows
from tests.storage.test_rescue import move, remove

NOW_NS = 2 * 10**18  # after any store was opened
DAILY, KEY, MODEL = (
    Charge(name, 7, 7, 10**12, pays=name == "key a daily") for name in ("daily", "key a daily", "model m")
)


def opened(name: str, opened_ns: int = NOW_NS) -> Batch:
    """A call that has just begun. It holds 5,000."""
    first = attempt(name, opened_ns=opened_ns, charges=(MODEL,))
    opening = call(name, opened_ns=opened_ns, charges=(DAILY, KEY))
    return Batch(
        opened={name: (opening, first)},
        intents={name: first},
        charges={name: (DAILY, KEY)},
        attempt_charges={first.id: (MODEL,)},
    )


def ended(name: str) -> Batch:
    """The end of such a call. It costs 300."""
    batch = opened(name)
    opening, first = batch.opened[name]
    assert first is not None
    entry = OpenCall(opening)
    entry.start(first)
    finished = entry.finish(attempt_end(name), NOW_NS)
    assert finished is not None
    _, closed = entry.close(call_end(name), NOW_NS)
    return Batch(ended=[finished], closed={name: closed}, charges=batch.charges, attempt_charges=batch.attempt_charges)


def whole(store: SqliteStore, name: str) -> None:
    store.write(opened(name))
    store.write(ended(name))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.db"


@pytest.fixture
def store(path: Path) -> SqliteStore:
    made = SqliteStore(path)
    made.open()
    return made


class LateStore(SqliteStore):
    """While `is_blind`, as if it had looked just before the file was gone."""

    is_blind = False

    def _is_at_path(self) -> bool:
        return self.is_blind or super()._is_at_path()


def notice(store: SqliteStore) -> None:
    with pytest.raises(StoreError, match="was removed or replaced while it was in use"):
        store.write(Batch())
    store.write(Batch())


def booked(path: Path) -> dict[str, tuple[int, int]]:
    """What is spent and held; it must be what the rows say."""
    found = budgets(path.parent)
    assert found.booked == found.expected
    return found.booked


def every(spent: int, held: int) -> dict[str, tuple[int, int]]:
    return dict.fromkeys(("daily", "key a daily", "model m"), (spent, held))


def replace_by_backup(path: Path) -> None:
    os.replace(path.with_name("backup.db"), path)


def replace_by_an_empty_database(path: Path) -> None:
    new = SqliteStore(path.with_name("new.db"))
    new.open()
    new.close()
    os.replace(path.with_name("new.db"), path)


@pytest.mark.parametrize("how", [remove, move, replace_by_backup, replace_by_an_empty_database])
def test_what_is_spent_and_held_is_carried_over(path: Path, store: SqliteStore, how: Callable[[Path], None]) -> None:
    """Calls that ended before, calls that end afterwards, and new ones."""
    whole(store, "first")
    store.write(opened("ends before"))
    with closing(sqlite3.connect(path)) as db:
        db.execute("VACUUM INTO ?", (str(path.with_name("backup.db")),))
    store.write(ended("ends before"))
    store.write(opened("ends after"))
    assert booked(path) == every(600, 5_000)
    how(path)
    notice(store)
    assert booked(path) == every(600, 5_000)
    store.write(ended("ends after"))
    whole(store, "new")
    assert booked(path) == every(1_200, 0)
    store.close()


@pytest.mark.parametrize("how", [remove, replace_by_an_empty_database])
def test_processes_that_notice_one_after_the_other_book_each_call_once(
    path: Path, store: SqliteStore, how: Callable[[Path], None]
) -> None:
    """Also what one writes to the new file before the other comes."""
    other = SqliteStore(path)
    other.open()
    for each, name in ((store, "a"), (other, "b")):
        whole(each, name)
        each.write(opened(f"{name} open"))
    how(path)
    notice(store)
    store.write(ended("a open"))
    whole(store, "a new")
    assert booked(path) == every(1_200, 5_000)
    notice(other)
    assert booked(path) == every(1_200, 5_000)
    other.write(ended("b open"))
    assert booked(path) == every(1_500, 0)
    store.close()
    other.close()


def test_what_a_process_still_wrote_to_the_lost_file_is_booked_too(path: Path, store: SqliteStore) -> None:
    """Another had carried its rows over before."""
    other = LateStore(path)
    other.open()
    other.write(opened("late"))
    remove(path)
    notice(store)
    whole(store, "new")
    other.is_blind = True
    other.write(ended("late"))
    other.is_blind = False
    notice(other)
    assert booked(path) == every(600, 0)
    store.close()
    other.close()


def test_spending_of_earlier_calls_is_not_forgotten(path: Path) -> None:
    """Their rows are only in the lost file, but the budget's window runs on. Alerts are not sent again."""
    first = SqliteStore(path)
    first.open()
    first.write(opened("old", opened_ns=5))
    first.write(ended("old"))
    with closing(sqlite3.connect(path)) as db:
        db.execute("INSERT INTO alerts VALUES ('daily', 7, 0.8, 1, 1)")
        db.commit()
    first.close()
    store = SqliteStore(path)
    store.open()
    whole(store, "new")
    replace_by_an_empty_database(path)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    notice(store)
    assert budgets(path.parent).booked == every(600, 0)
    assert len(rows(path, "SELECT * FROM calls")) == 1
    assert len(rows(path, "SELECT * FROM alerts")) == 1
    store.close()


def test_a_write_that_is_refused_as_read_only_books_nothing_and_is_repeated(path: Path, store: SqliteStore) -> None:
    """As when a file system turns read-only for a while. The store connects anew."""
    store.write(opened("running"))
    for batch in (ended("running"), opened("next")):
        assert store._db is not None
        store._db.execute("PRAGMA query_only = 1")
        with pytest.raises(StoreError, match="readonly database"):
            store.write(batch)
        store.write(batch)
        store.write(batch)
    assert booked(path) == every(300, 5_000)
    store.close()
