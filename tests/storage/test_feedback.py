"""Ratings of calls: who may give them, how many, and that they go with their calls."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace

from proxy.schema.ensembles import Rating
from proxy.storage.base import RowRefused, StoreError
from proxy.storage.batch import Batch
from proxy.storage.feedback import MOST_PER_CALL, last_ratings
from proxy.storage.sqlite import SqliteStore
from tests.storage.samples import call, rows
from tests.storage.test_sqlite import settled

HOSTILE = ("'); DROP TABLE calls; --", "\x00\x1b[31m", "=cmd|' /C calc'!A0", "<script>", "\u202e\U0001f600", " ")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(tmp_path / "x.db")
    made.open()
    made.write(settled("one"))
    yield made
    made.close()


def keyless(name: str) -> Batch:
    batch = settled(name)
    opening, attempt = batch.opened[name]
    batch.opened[name] = (replace(opening, key_id=None), attempt)
    return batch


def test_a_rating_is_stored_as_it_was_given(store: SqliteStore, tmp_path: Path) -> None:
    """What was not said is null."""
    stored = store.rate(Rating("one", True, 0.25, "good", "cli", "bob"), None, 1_700_000_000_123_456_789)
    assert stored == {
        "id": "one",
        "success": True,
        "score": 0.25,
        "comment": "good",
        "source": "cli",
        "key_id": "bob",
        "timestamp": "2023-11-14T22:13:20.123Z",
    }
    store.rate(Rating("one", comment="only words"), None, 5)
    assert [tuple(row.values()) for row in rows(tmp_path / "x.db", "SELECT * FROM feedback")] == [
        ("one", 1, 1_700_000_000_123_456_789, "bob", 1, 0.25, "good", "cli"),
        ("one", 2, 5, None, None, None, "only words", "api"),
    ]
    found = store.call("one", "key")
    assert found is not None
    assert [each["comment"] for each in found["feedback"]] == ["good", "only words"]


def test_a_key_rates_its_own_calls(store: SqliteStore) -> None:
    """Callers without a key theirs; an admin (None) those of all."""
    store.write(keyless("free"))
    for name, key, is_there in [
        ("one", "key", True),
        ("one", "other", False),
        ("one", "", False),
        ("one", None, True),
        ("free", "", True),
        ("free", "key", False),
        ("nothing", None, False),
    ]:
        assert (store.rate(Rating(name, True), key, 5) is not None) == is_there, (name, key)


@pytest.mark.parametrize("comment", HOSTILE)
def test_a_comment_is_a_text(store: SqliteStore, comment: str) -> None:
    """Whatever is in it."""
    stored = store.rate(Rating("one", comment=comment), None, 5)
    found = store.call("one", None)
    assert stored is not None and found is not None
    assert [each["comment"] for each in found["feedback"]] == [stored["comment"]] == [comment]


def test_a_call_has_a_bounded_number_of_ratings(store: SqliteStore, tmp_path: Path) -> None:
    """The next one is refused, and the store goes on working."""
    for number in range(MOST_PER_CALL):
        store.rate(Rating("one", score=number / MOST_PER_CALL), None, number)
    with pytest.raises(RowRefused, match=f"one already has {MOST_PER_CALL} ratings"):
        store.rate(Rating("one", True), None, 5)
    assert rows(tmp_path / "x.db", "SELECT COUNT(*) AS n FROM feedback") == [{"n": MOST_PER_CALL}]
    store.write(settled("two"))
    assert store.rate(Rating("two", True), None, 5) is not None


def test_concurrent_ratings_are_all_kept(store: SqliteStore, tmp_path: Path) -> None:
    """Each gets a number of its own."""
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: store.rate(Rating("one", score=number / 100), None, 5), range(40)))
    found = rows(tmp_path / "x.db", "SELECT seq, score FROM feedback ORDER BY seq")
    assert [row["seq"] for row in found] == list(range(1, 41))
    assert sorted(row["score"] for row in found) == [number / 100 for number in range(40)]


def test_a_rating_of_a_repeat_is_one_of_the_call_whose_answer_it_got(store: SqliteStore) -> None:
    """If that call is gone, the repeat keeps it."""
    store.write(Batch(opened={name: (call(name, replay_of=of), None) for name, of in (("r", "one"), ("s", "gone"))}))
    first, second = (store.rate(Rating(name, True), "key", 5) for name in ("r", "s"))
    assert (first and first["id"], second and second["id"]) == ("one", "s")


def test_the_last_rating_counts(store: SqliteStore) -> None:
    """`success` before `score`; a comment alone rates nothing."""
    for number in range(5):
        store.write(settled(f"call{number}"))
    for name, rating in [
        ("call0", Rating("call0", True)),
        ("call0", Rating("call0", False, 0.9)),
        ("call1", Rating("call1", False)),
        ("call1", Rating("call1", score=0.75)),
        ("call1", Rating("call1", comment="later")),
        ("call2", Rating("call2", comment="words")),
    ]:
        assert store.rate(rating, None, 5) is not None, name
    with store._reading(lambda: False) as db:
        assert last_ratings(db, [f"call{number}" for number in range(5)]) == {"call0": 0.0, "call1": 0.75}


def test_a_store_that_cannot_be_written_says_so(store: SqliteStore, tmp_path: Path) -> None:
    """A file that is gone, or one of an earlier version; none is created."""
    with pytest.raises(StoreError):
        SqliteStore(tmp_path / "y.db").rate(Rating("one", True), None, 5)
    assert not (tmp_path / "y.db").exists()
    with store._reading(lambda: False, "rw") as db:
        db.execute("PRAGMA user_version = 20")
    with pytest.raises(StoreError, match="earlier version"):
        store.rate(Rating("one", True), None, 5)
