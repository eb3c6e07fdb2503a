"""What an ensemble decided is written with the end of its call, once, and goes with the call."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from proxy.schema.ensembles import EnsembleCall, EnsembleQuery, EnsembleRecord, Rating, SeatRecord
from proxy.storage.base import StoreError
from proxy.storage.batch import Batch
from proxy.storage.sqlite import SqliteStore
from tests.storage.samples import attempt, call, call_end, rows
from tests.storage.test_retention import NOW_NS, cleaned, ended
from tests.storage.test_sqlite import settled

RECORD = EnsembleRecord(
    "voting",
    "voting",
    (
        SeatRecord("fast", "ok", 0, 1.0, "groq/fast", 100, 12.5),
        SeatRecord("smart", "ok", 1, 2.0, "openai/smart", None, 80.0),
        SeatRecord("slow", "timeout_total"),
    ),
    answer=1,
    confidence=2 / 3,
    agreed=False,
)


def decided(name: str, record: EnsembleRecord = RECORD, opened_ns: int = 1_000, key_id: str | None = "key") -> Batch:
    """A call of an ensemble that has ended."""
    batch = settled(name)
    batch.opened[name] = (call(name, opened_ns=opened_ns, key_id=key_id), attempt(name, opened_ns=opened_ns))
    batch.closed[name] = replace(batch.closed[name], end=call_end(name, ensemble=record))
    return batch


def query(name: str = "voting", key_id: str | None = None, limit: int = 10, since_ns: int = 0) -> EnsembleQuery:
    return EnsembleQuery(name, since_ns, 2**62, key_id, limit)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(path)
    made.open()
    yield made
    made.close()


def test_a_record_comes_back_as_it_was(store: SqliteStore) -> None:
    """With the cost and the time of its call, and the last rating."""
    store.write(decided("a"))
    assert store.ensemble_calls(query()) == [EnsembleCall(RECORD, True, 300, 7.0, None)]
    store.rate(Rating("a", False), None, 5)
    assert [each.rating for each in store.ensemble_calls(query())] == [0.0]


def test_the_calls_of_one_ensemble_in_a_period_newest_first(store: SqliteStore) -> None:
    """Of one key, or of all; one more than the limit tells that there are more."""
    for number in range(6):
        store.write(decided(f"v{number}", replace(RECORD, confidence=number / 10), number * 10, f"k{number % 2}"))
    store.write(decided("free", replace(RECORD, confidence=0.9), 45, None))
    store.write(decided("other", replace(RECORD, name="ranking")))

    def found(**parts: object) -> list[float | None]:
        return [each.record.confidence for each in store.ensemble_calls(query(**parts))]  # type: ignore[arg-type]

    assert found() == [0.5, 0.9, 0.4, 0.3, 0.2, 0.1, 0.0]
    assert found(limit=2) == [0.5, 0.9, 0.4]
    assert found(key_id="k1") == [0.5, 0.3, 0.1]
    assert found(key_id="") == [0.9]
    assert found(since_ns=45) == [0.5, 0.9]
    assert found(name="none") == []


def test_only_the_first_end_of_a_call_leaves_a_record(store: SqliteStore, path: Path) -> None:
    """A batch that is written twice, and a late end of a call that another process has closed."""
    store.write(decided("a"))
    store.write(decided("a"))
    store.write(settled("lost"))
    late = decided("lost")
    store.write(Batch(closed=late.closed))
    assert [row["call_id"] for row in rows(path, "SELECT call_id FROM ensemble_calls")] == ["a"]


def test_a_bad_row_beside_it_keeps_no_record_back(store: SqliteStore, path: Path) -> None:
    """Calls are then written one by one."""
    batch = decided("a")
    bad = decided("b", opened_ns=2**70)
    batch.opened |= bad.opened
    batch.intents |= bad.intents
    batch.closed |= bad.closed
    assert set(store.write(batch).calls) == {"b"}
    assert [row["call_id"] for row in rows(path, "SELECT call_id FROM ensemble_calls")] == ["a"]


def test_records_and_ratings_go_with_their_calls(store: SqliteStore, path: Path) -> None:
    """After the time for which calls are kept."""
    for name, age_days in (("old", 91), ("new", 89)):
        batch = ended(name, age_days)
        end = call_end(name, ensemble=RECORD)
        batch.closed[name] = replace(batch.closed[name], end=end)
        store.write(batch)
        store.rate(Rating(name, True), None, NOW_NS)
    assert cleaned(path).calls == 1
    for table in ("ensemble_calls", "feedback"):
        assert [row["call_id"] for row in rows(path, f"SELECT call_id FROM {table}")] == ["new"], table


def test_records_and_ratings_survive_the_loss_of_the_file(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    """Those of calls since the file was opened are in the file that replaces it."""
    store.write(decided("a", opened_ns=2**62 - 1))
    store.rate(Rating("a", True), None, 5)
    other = tmp_path / "other.db"
    another = SqliteStore(other)
    another.open()
    another.write(decided("b"))
    another.close()
    other.rename(path)
    with pytest.raises(StoreError, match="removed or replaced"):
        store.write(Batch())
    store.write(Batch())
    assert {row["call_id"] for row in rows(path, "SELECT call_id FROM ensemble_calls")} == {"a", "b"}
    assert [row["call_id"] for row in rows(path, "SELECT call_id FROM feedback")] == ["a"]
