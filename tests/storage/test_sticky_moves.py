"""The moves of sticky sessions: what one worker stores, the others read once, and nothing stays for ever."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from proxy.schema.records import StickyMove
from proxy.storage.base import StoreError
from proxy.storage.sqlite import SqliteStore
from proxy.storage.sticky_moves import StickyMoves


def move(session: str, model: str = "b/m", until_ns: int = 100) -> StickyMove:
    return StickyMove(session, model, 5, until_ns)


def rows_of(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT session, model FROM sticky_moves ORDER BY seq").fetchall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    database = SqliteStore(tmp_path / "usage.db")
    database.open()
    database.close()
    return tmp_path / "usage.db"


def test_a_reader_gets_each_word_once_and_the_last_about_a_session(path: Path) -> None:
    """In the order in which they were told, its own among them."""
    ours, theirs = StickyMoves(path), StickyMoves(path)
    _, seen = theirs.exchange([], 0, 1)
    assert ours.exchange([move("s"), move("t")], 0, 1) == ([move("s"), move("t")], 2)
    ours.exchange([move("s", "a/m")], 2, 1)
    found, seen = theirs.exchange([], seen, 1)
    assert found == [move("t"), move("s", "a/m")]
    assert theirs.exchange([], seen, 1) == ([], seen)


def test_moves_that_are_over_are_dropped_also_if_nobody_writes(path: Path) -> None:
    """The number of the newest row is not used again: a reader that saw it misses nothing."""
    store = StickyMoves(path)
    _, seen = store.exchange([move("s", until_ns=10), move("t", until_ns=20)], 0, 1)
    store.exchange([], 0, 10)
    assert rows_of(path) == [("t", "b/m")]
    store.exchange([], 0, 20)
    assert rows_of(path) == []
    assert store.exchange([move("u")], seen, 21)[0] == [move("u")]


def test_the_table_is_bounded(path: Path) -> None:
    """The oldest go."""
    store = StickyMoves(path)
    store.exchange([move(str(number)) for number in range(9)], 0, 1, most=5)
    assert [session for session, _ in rows_of(path)] == ["4", "5", "6", "7", "8"]


def test_another_file_in_its_place_is_read_from_its_beginning(path: Path) -> None:
    """Its numbers begin again."""
    StickyMoves(path).exchange([move("s")], 0, 1)
    assert StickyMoves(path).exchange([], 999, 1) == ([move("s")], 1)


def test_a_database_of_an_earlier_version_has_no_moves(path: Path) -> None:
    """Nothing is created in it, and what was to be stored is dropped."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE sticky_moves")
    assert StickyMoves(path).exchange([move("s")], 7, 1) == ([], 0)


def test_without_a_database_the_error_names_it(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Cannot use the sticky sessions in the database"):
        StickyMoves(tmp_path / "none.db").exchange([move("s")], 0, 1)
    assert not (tmp_path / "none.db").exists()
