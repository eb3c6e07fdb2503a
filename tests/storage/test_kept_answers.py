"""Kept answers: claims between processes, encryption, and limits on age, number and size."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.schema.records import Secret
from proxy.storage.base import StoreError
from proxy.storage.kept_answers import KEPT, LOST, OPEN, TOO_LARGE, AnswerLimits, KeptAnswers, Place
from proxy.storage.sqlite import SqliteStore

NOW, SECOND = 1_760_000_000_000_000_000, 1_000_000_000
LATER = NOW + 3600 * SECOND
PLACE = Place("mobile", b"name", b"request")
DATA = b"the answer " * 20


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A database with its schema, as the ledger makes it."""
    store = SqliteStore(tmp_path / "usage.db")
    store.open()
    yield tmp_path / "usage.db"
    store.close()


@pytest.fixture
def made(path: Path) -> Iterator[KeptAnswers]:
    answers = KeptAnswers(path, lambda: "one")
    yield answers
    answers.close()


@pytest.fixture
def other(path: Path) -> Iterator[KeptAnswers]:
    """Another process."""
    answers = KeptAnswers(path, lambda: "two")
    yield answers
    answers.close()


def test_one_process_claims_and_the_others_see_what_becomes_of_it(made: KeptAnswers, other: KeptAnswers) -> None:
    """Open, then kept; the answer is readable by both."""
    assert made.claim(PLACE, "call-1", NOW, LATER) is None
    found = other.claim(PLACE, "call-2", NOW, LATER)
    assert found is not None
    assert (found.state, found.call_id, found.data) == (OPEN, "call-1", None)
    made.keep(PLACE, "call-1", DATA, NOW, LATER)
    for each in (made, other):
        found = each.claim(PLACE, "call-3", NOW, LATER)
        assert found is not None
        assert (found.state, found.call_id, found.data, found.request) == (KEPT, "call-1", DATA, b"request")


def test_a_claim_that_ended_without_an_answer_is_free(made: KeptAnswers, other: KeptAnswers) -> None:
    """For everybody; freeing another call's claim has no effect."""
    made.claim(PLACE, "call-1", NOW, LATER)
    other.free(PLACE, "call-2")
    assert other.claim(PLACE, "call-2", NOW, LATER) is not None
    made.free(PLACE, "call-1")
    assert other.claim(PLACE, "call-2", NOW, LATER) is None


def test_a_process_takes_back_what_it_could_not_free(made: KeptAnswers) -> None:
    """It would know the call if it still ran."""
    made.claim(PLACE, "call-1", NOW, LATER)
    assert made.claim(PLACE, "call-2", NOW, LATER) is None
    made.keep(PLACE, "call-1", DATA, NOW, LATER)  # too late: another call has the place
    assert made.claim(PLACE, "call-3", NOW, LATER) is None


def test_the_claims_of_a_dead_process_are_lost_and_can_be_taken(path: Path, made: KeptAnswers) -> None:
    """Once the ledger's sweep finds the owner dead. The next call takes the place and learns which was lost."""
    dead = KeptAnswers(path, lambda: "dead")
    dead.claim(PLACE, "call-1", NOW, LATER)
    dead.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("INSERT INTO owners VALUES ('dead', 0)")
        db.commit()
    waiting = made.claim(PLACE, "call-2", NOW, LATER)
    assert waiting is not None
    assert waiting.state == OPEN
    store = SqliteStore(path)
    store.open()
    store.sweep(NOW)
    store.close()
    lost = made.claim(PLACE, "call-2", NOW, LATER)
    assert lost is not None
    assert (lost.state, lost.call_id) == (LOST, "call-1")
    made.keep(PLACE, "call-2", DATA, NOW, LATER)
    found = made.find(PLACE, NOW)
    assert found is not None
    assert found.data == DATA


def test_a_claim_ends_by_itself(made: KeptAnswers, other: KeptAnswers) -> None:
    """Whatever became of its process."""
    made.claim(PLACE, "call-1", NOW, NOW + SECOND)
    assert other.claim(PLACE, "call-2", NOW + 2 * SECOND, LATER) is None


def test_a_new_beginning_replaces_what_is_there(made: KeptAnswers, other: KeptAnswers) -> None:
    """Kept or open."""
    made.claim(PLACE, "call-1", NOW, LATER)
    assert other.claim(PLACE, "call-2", NOW, LATER, anew=True) is None
    other.keep(PLACE, "call-2", DATA, NOW, LATER)
    assert made.claim(PLACE, "call-3", NOW, LATER, anew=True) is None


def test_an_answer_ends_with_its_time(made: KeptAnswers) -> None:
    """It is not found any more, and `expire` drops the row."""
    made.keep(PLACE, "call-1", DATA, NOW, NOW + SECOND)
    assert made.find(PLACE, NOW) is not None
    assert made.find(PLACE, NOW + SECOND) is None
    assert (made.expire(NOW), made.expire(NOW + SECOND), made.expire(NOW + SECOND)) == (0, 1, 0)


def test_an_answer_that_is_too_large_is_remembered_as_such(path: Path, made: KeptAnswers) -> None:
    """So that it is not bought again: by the caller's word, or because it alone would fill the limit."""
    made.keep(PLACE, "call-1", None, NOW, LATER)
    found = made.find(PLACE, NOW)
    assert found is not None
    assert (found.state, found.data) == (TOO_LARGE, None)
    small = KeptAnswers(path, lambda: "one", limits=AnswerLimits(caller_bytes=100))
    small.keep(PLACE, "call-2", os.urandom(200), NOW, LATER)
    found = small.find(PLACE, NOW)
    small.close()
    assert found is not None
    assert found.state == TOO_LARGE


def test_nobody_else_can_read_an_answer(path: Path, made: KeptAnswers) -> None:
    """Not with another key, not at another place; it is not in the file as it is, and a broken row is no answer."""
    made.keep(PLACE, "call-1", DATA, NOW, LATER)
    made.close()
    stranger = KeptAnswers(path, lambda: "one", Secret("another key, long enough for anybody"))
    assert stranger.find(PLACE, NOW) is None
    stranger.close()
    with closing(sqlite3.connect(path)) as db:
        (sealed,) = db.execute("SELECT sealed FROM kept_answers").fetchone()
        assert b"answer" not in sealed
        db.execute("UPDATE kept_answers SET caller = 'thief'")
        db.commit()
        assert made.find(Place("thief", b"name", b"request"), NOW) is None
        db.execute("UPDATE kept_answers SET caller = 'mobile', sealed = x'00'")
        db.commit()
    assert made.find(PLACE, NOW) is None
    assert made.claim(PLACE, "call-2", NOW, LATER) is None  # its place is free


@pytest.mark.parametrize(
    "limits", [AnswerLimits(caller_answers=3), AnswerLimits(all_answers=3), AnswerLimits(caller_bytes=450)]
)
def test_the_oldest_answers_go_first(path: Path, limits: AnswerLimits) -> None:
    """Claims stay: their calls run."""
    answers = KeptAnswers(path, lambda: "one", limits=limits)
    claimed = Place("mobile", b"claimed", b"request")
    for number in range(8):
        answers.keep(
            Place("mobile", b"%d" % number, b"request"), f"call-{number}", os.urandom(100), NOW + number, LATER
        )
        if number == 0:
            answers.claim(claimed, "call-c", NOW, LATER)
    found = [number for number in range(8) if answers.find(Place("mobile", b"%d" % number, b"request"), NOW)]
    answers.close()
    assert found == list(range(8))[-len(found) :]
    assert 2 <= len(found) <= 3
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT COUNT(*) FROM kept_answers WHERE state = 'open'").fetchone() == (1,)


STEPS = st.lists(
    st.tuples(st.sampled_from(["claim", "keep", "free", "expire"]), st.sampled_from("ab"), st.integers(0, 5)),
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_the_sums_are_those_of_the_rows(steps: list[tuple[str, str, int]]) -> None:
    """Whatever happened: limits are checked against the sums alone."""
    answers = KeptAnswers(None, lambda: "one", limits=AnswerLimits(caller_answers=4, all_answers=6))
    for number, (what, caller, name) in enumerate(steps):
        place, now = Place(caller, b"%d" % name, b"request"), NOW + number
        if what == "claim":
            answers.claim(place, f"call-{number}", now, LATER, anew=name == 3)
        elif what == "keep":
            answers.keep(place, f"call-{number}", DATA, now, NOW + name * 10)
        elif what == "free":
            answers.free(place, f"call-{name}")
        else:
            answers.expire(now)
    db = answers._store.connected()
    sums = {scope: (count, size) for scope, count, size in db.execute("SELECT * FROM kept_answer_sums")}
    rows = db.execute("SELECT 'of ' || caller, COUNT(*), SUM(size) FROM kept_answers GROUP BY caller").fetchall()
    total = db.execute("SELECT COUNT(*), IFNULL(SUM(size), 0) FROM kept_answers").fetchone()
    answers.close()
    assert sums == {"all": total, **{scope: (count, size) for scope, count, size in rows}}


def test_a_store_that_fails_says_so(tmp_path: Path) -> None:
    """And works again as soon as it can."""
    answers = KeptAnswers(tmp_path / "none.db", lambda: "one")
    for work in (
        lambda: answers.find(PLACE, NOW),
        lambda: answers.claim(PLACE, "call-1", NOW, LATER),
        lambda: answers.keep(PLACE, "call-1", DATA, NOW, LATER),
        lambda: answers.free(PLACE, "call-1"),
        lambda: answers.expire(NOW),
    ):
        with pytest.raises(StoreError):
            work()
    store = SqliteStore(tmp_path / "none.db")
    store.open()
    assert answers.claim(PLACE, "call-1", NOW, LATER) is None
    answers.close()
    store.close()
