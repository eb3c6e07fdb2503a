"""Single calls are read back as they were written, with their decision and attempts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from proxy.schema.records import Decided, Outcome, PastCall, Tokens
from proxy.storage.base import StoreError, TooSlow
from proxy.storage.batch import Batch, OpenCall
from proxy.storage.migrations import MIGRATIONS, migrate
from proxy.storage.sqlite import SqliteStore
from tests.storage.samples import attempt, attempt_end, call, call_end, fill_calls

DECIDED = Decided("rule", "cheap chat", "cost_optimized", '{"task":"chat","difficulty":0.2}', "v1/7", '[{"m":"a/b"}]')


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "usage.db")
    store.open()
    yield store
    store.close()


def write(store: SqliteStore, call_id: str, decided: Decided = DECIDED, **changes: object) -> None:
    """A call whose first attempt failed and whose second answered."""
    opening = call(call_id, decided=decided, **changes)
    entry = OpenCall(opening)
    first, second = attempt(call_id), attempt(call_id, 2, model="other", seat=1, parent=f"{call_id}-1")
    entry.start(first)
    entry.start(second)
    failed = attempt_end(call_id, outcome=Outcome.UPSTREAM_ERROR, tokens=Tokens(), cost_nano=0, error_code="e500")
    ended = [entry.finish(failed, 5), entry.finish(attempt_end(call_id, 2, upstream_request_id="req"), 6)]
    late, closed = entry.close(call_end(call_id, dropped=["seed"]), 7)
    intents = {first.id: first, second.id: second}
    batch = Batch(opened={call_id: (opening, first)}, intents=intents, closed={call_id: closed})
    batch.ended = [each for each in ended if each is not None] + late
    store.write(batch)


def test_a_call_comes_back_with_its_decision_and_attempts(store: SqliteStore) -> None:
    """In the order in which they were made."""
    write(store, "c", opened_ns=1_700_000_000_123_000_000)
    found = store.call("c", "key")
    assert found is not None
    assert (found["id"], found["timestamp"], found["dropped"]) == ("c", "2023-11-14T22:13:20.123Z", ["seed"])
    assert (found["success"], found["stream"], found["cost_usd"]) == (True, False, 3e-7)
    facts = {"task": "chat", "difficulty": 0.2}
    assert found["decision"] == {
        "step": "rule",
        "rule": "cheap chat",
        "strategy": "cost_optimized",
        "facts": facts,
        "snapshot": "v1/7",
        "candidates": '[{"m":"a/b"}]',
    }
    told = [(each["id"], each["parent"], each["seat"], each["model"], each["outcome"]) for each in found["attempts"]]
    assert told == [
        ("c-1", None, 0, "openai/gpt", "upstream_error"),
        ("c-2", "c-1", 1, "openai/other", "ok"),
    ]
    assert (found["attempts"][0]["code"], found["attempts"][1]["upstream_request_id"]) == ("e500", "req")


def test_a_key_sees_its_own_calls_only(store: SqliteStore) -> None:
    """None is an admin."""
    write(store, "c", key_id="ann")
    assert store.call("c", "ann") and store.call("c", None)
    assert store.call("c", "bob") is None
    assert store.call("d", None) is None


def test_a_call_without_a_decision_says_so(store: SqliteStore) -> None:
    """Named models need none."""
    write(store, "c", decided=Decided())
    found = store.call("c", None)
    assert found is not None and set(found["decision"].values()) == {None}


def test_the_last_calls_that_reached_a_provider(store: SqliteStore) -> None:
    """Newest first, with what a replay needs."""
    for place in range(4):
        write(store, f"c{place}", opened_ns=1_000 + place, requested_model=f"m{place}")
    rejected = call("r", opened_ns=9_000)
    _, closed = OpenCall(rejected).close(call_end("r", Outcome.REJECTED), 7)
    store.write(Batch(opened={"r": (rejected, None)}, closed={"r": closed}))
    found = store.latest(2)
    assert found == [
        PastCall(1_003, "key", "m3", "openai/other", DECIDED.facts, Tokens(input=10, output=20)),
        PastCall(1_002, "key", "m2", "openai/other", DECIDED.facts, Tokens(input=10, output=20)),
    ]


def test_a_read_gives_up_when_told(store: SqliteStore, tmp_path: Path) -> None:
    """A long read ends soon after its caller left."""
    fill_calls(tmp_path / "usage.db", 50_000)
    with pytest.raises(TooSlow):
        store.latest(50_000, lambda: True)


def test_a_missing_database_is_a_store_error(tmp_path: Path) -> None:
    """Reading creates no file."""
    with pytest.raises(StoreError):
        SqliteStore(tmp_path / "none.db").call("c", None)
    assert list(tmp_path.iterdir()) == []


def test_calls_of_an_earlier_version_have_no_decision() -> None:
    """Their rows stay as they were."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate(db, MIGRATIONS[:8])
        db.execute(
            "INSERT INTO calls (id, opened_ns, owner, requested_model, stream, outcome) VALUES ('c',1,'o','m',0,'ok')"
        )
        migrate(db)
        row = db.execute("SELECT id, step, rule, strategy, facts, snapshot FROM calls").fetchone()
    assert row == ("c", None, None, None, None, None)
