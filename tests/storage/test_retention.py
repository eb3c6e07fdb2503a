"""Old rows go in small transactions, whoever works beside; what is open, new or an error that is kept stays."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from proxy.schema.queries import UsageQuery
from proxy.schema.records import Charge, Outcome, Secret
from proxy.storage import rollups
from proxy.storage.base import StoreError
from proxy.storage.batch import Batch
from proxy.storage.call_texts import CallTexts
from proxy.storage.retention import EVERY_S, LEASE_S, Cleaned, KeptDays, Retention
from proxy.storage.spending import is_over
from proxy.storage.sqlite import SqliteStore
from tests.storage.samples import attempt, call, call_end, outcomes, rows
from tests.storage.test_sqlite import settled

NOW_NS = 1_790_000_000 * 10**9
DAY_NS = 86_400 * 10**9
KEPT = KeptDays(90, 90, 7)


def ended(name: str, age_days: float, outcome: Outcome = Outcome.OK) -> Batch:
    """A call that opened so many days ago, with one attempt."""
    batch = settled(name)
    opened_ns = NOW_NS - int(age_days * DAY_NS)
    batch.opened = {name: (call(name, opened_ns=opened_ns), attempt(name, opened_ns=opened_ns))}
    batch.closed[name] = type(batch.closed[name])(end=call_end(name, outcome), closed_ns=opened_ns + 1)
    return batch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


@pytest.fixture
def store(path: Path) -> SqliteStore:
    made = SqliteStore(path)
    made.open()
    return made


def sum_up(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        rollups.prepare(db)
        while rollups.sum_up(db):
            pass
        db.commit()


def retention(
    path: Path, calls_days: int = 90, errors_days: int = 90, texts_days: int = 7, now_ns: int = NOW_NS
) -> Retention:
    if path.exists():
        sum_up(path)
    return Retention(path, KeptDays(calls_days, errors_days, texts_days), clock_ns=lambda: now_ns, rest=lambda _: None)


def cleaned(path: Path, **options: int) -> Cleaned:
    done = retention(path, **options).clean_up()
    assert done is not None
    return done


def test_old_calls_go_with_their_attempts(path: Path, store: SqliteStore) -> None:
    """New calls and open ones stay, however old."""
    for number in range(300):
        store.write(ended(f"old{number}", 91))
    store.write(ended("new", 89))
    opened_ns = NOW_NS - 1000 * DAY_NS
    opening = (call("open", opened_ns=opened_ns), attempt("open", opened_ns=opened_ns))
    store.write(Batch(opened={"open": opening}, intents={"open": attempt("open", opened_ns=opened_ns)}))
    done = cleaned(path)
    assert (done.calls, done.attempts) == (300, 300)
    assert done.transactions > 3
    assert outcomes(path) == {"new": "ok", "open": "open"}
    assert [row["call_id"] for row in rows(path, "SELECT call_id FROM attempts ORDER BY 1")] == ["new", "open"]
    store.close()
    assert rows(path, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]


@pytest.mark.parametrize(("errors_days", "left"), [(365, {"error": "upstream_error"}), (30, {"fine": "ok"}), (90, {})])
def test_errors_have_their_own_retention(
    path: Path, store: SqliteStore, errors_days: int, left: dict[str, str]
) -> None:
    """Longer or shorter than that of other calls."""
    store.write(ended("error", 100, Outcome.UPSTREAM_ERROR))
    store.write(ended("fine", 100 if errors_days != 30 else 50))
    store.write(ended("broken", 400 if errors_days == 365 else 100, Outcome.CLIENT_CLOSED))
    cleaned(path, errors_days=errors_days)
    assert outcomes(path) == left
    store.close()


def test_kept_errors_do_not_hide_what_is_behind_them(path: Path, store: SqliteStore) -> None:
    """A clean-up passes each row once, also where most of them stay."""
    for number in range(100):
        store.write(ended(f"error{number}", 200, Outcome.UPSTREAM_ERROR))
    store.write(ended("fine", 100))
    assert cleaned(path, errors_days=365).calls == 1
    assert len(outcomes(path)) == 100
    store.close()


def test_texts_go_earlier_than_their_calls(path: Path, store: SqliteStore) -> None:
    """And with them at the latest."""
    texts = CallTexts(path, Secret("a key of this test"))
    for number in range(100):
        store.write(ended(f"call{number}", 30))
        texts.put("ann", f"call{number}", NOW_NS - 30 * DAY_NS, b"text")
    store.write(ended("new", 1))
    for name, age_days in (("new", 1), ("old", 91), ("orphan", 8)):
        texts.put("ann", name, NOW_NS - age_days * DAY_NS, b"text")
    store.write(ended("old", 91))
    done = cleaned(path)
    assert (done.calls, done.texts) == (1, 102)
    assert done.transactions > 3
    assert rows(path, "SELECT call_id FROM call_texts") == [{"call_id": "new"}]
    assert texts.find("ann", "new") == b"text"
    assert len(outcomes(path)) == 101
    texts.close()
    store.close()


def test_texts_go_with_their_calls(path: Path, store: SqliteStore) -> None:
    """Also where they might stay longer by their own time."""
    texts = CallTexts(path, Secret("a key of this test"))
    store.write(ended("old", 91))
    texts.put("ann", "old", NOW_NS - 91 * DAY_NS, b"text")
    done = cleaned(path, texts_days=365)
    assert (done.calls, done.texts) == (1, 1)
    texts.close()
    store.close()


def test_sums_stay_and_calls_wait_until_they_are_in_them(path: Path, store: SqliteStore) -> None:
    """Usage by what the sums keep is the same before and after."""
    for number in range(30):
        store.write(ended(f"old{number}", 91))
    waiting = {row["call_id"] for row in rows(path, "SELECT call_id FROM calls_to_sum")}
    before = store.usage(UsageQuery(group_by=("model",)))
    assert before["total"]["calls"] == 30
    assert Retention(path, KEPT, clock_ns=lambda: NOW_NS, rest=lambda _: None).clean_up() is not None
    assert {*outcomes(path)} == waiting != set()
    assert store.usage(UsageQuery(group_by=("model",))) == before
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE clean_ups SET due_ns = 0")
        db.commit()
    cleaned(path)
    assert outcomes(path) == {}
    assert store.usage(UsageQuery(group_by=("model",))) == before
    store.close()


def test_one_process_at_a_time_cleans_up(path: Path, store: SqliteStore) -> None:
    """The next clean-up is an hour later; that of a process that died is continued after its lease."""
    store.write(ended("old", 91))
    second: list[object] = []
    first = Retention(path, KEPT, clock_ns=lambda: NOW_NS, rest=lambda _: second.append(retention(path).clean_up()))
    assert first.clean_up() is not None
    assert second
    assert {*second} == {None}
    assert retention(path).clean_up() is None
    assert retention(path, now_ns=NOW_NS + int(EVERY_S * 1e9)).clean_up() is not None
    store.close()


def test_an_interrupted_clean_up_is_continued(path: Path, store: SqliteStore) -> None:
    """Stopped, it is due again at once; killed, once its lease has run out. Each transaction is complete."""
    for number in range(100):
        store.write(ended(f"old{number}", 91))
    calls = count()
    done = retention(path).clean_up(lambda: next(calls) >= 1)
    assert done is not None
    assert 0 < done.calls < 100
    assert len(outcomes(path)) == len(rows(path, "SELECT * FROM attempts")) == 100 - done.calls

    def die(_: float) -> None:
        raise SystemExit

    sum_up(path)
    with pytest.raises(SystemExit):
        Retention(path, KEPT, clock_ns=lambda: NOW_NS, rest=die).clean_up()
    assert retention(path).clean_up() is None
    assert cleaned(path, now_ns=NOW_NS + int(LEASE_S * 1e9)).calls > 0
    assert outcomes(path) == {}
    store.close()


def test_a_clock_that_was_ahead_does_not_stop_clean_ups(path: Path, store: SqliteStore) -> None:
    """A due time that no clean-up can have set is over."""
    store.write(ended("old", 91))
    cleaned(path, now_ns=NOW_NS + 1000 * DAY_NS)
    assert retention(path).clean_up() is not None
    store.close()


def test_a_retention_of_more_than_all_time_keeps_everything(path: Path, store: SqliteStore) -> None:
    """No number overflows."""
    store.write(ended("old", 10_000))
    assert cleaned(path, calls_days=10**9, errors_days=10**9).calls == 0
    store.close()


def test_no_transaction_waits_for_a_rest(path: Path, store: SqliteStore) -> None:
    """While a clean-up rests, the ledger can write."""
    for number in range(50):
        store.write(ended(f"old{number}", 91))
    written = count()

    def rest(_: float) -> None:
        with closing(sqlite3.connect(path, timeout=0)) as db:
            db.execute("INSERT INTO owners VALUES (?, 0)", (str(next(written)),))
            db.commit()

    sum_up(path)
    assert Retention(path, KEPT, clock_ns=lambda: NOW_NS, rest=rest).clean_up() is not None
    assert next(written) > 2
    store.close()


def test_spending_windows_go_some_time_after_their_end(path: Path, store: SqliteStore) -> None:
    """Days, weeks and months are kept for a year; totals, and what is still held, for good."""
    at = NOW_NS - 50 * DAY_NS
    names = ("minute", "key a hour", "last_24h", "session s daily", "session s monthly", "daily", "tag t monthly")
    windows = [*((name, at, 5, 0) for name in names), ("total", 0, 5, 0), ("model m/hour total", 0, 5, 0)]
    windows += [("hour", at, 5, 7), ("daily", NOW_NS - 500 * DAY_NS, 5, 0), ("hour", NOW_NS, 5, 0)]
    with closing(sqlite3.connect(path)) as db:
        db.executemany("INSERT INTO spending VALUES (?, ?, ?, ?, ?)", [(*window, at) for window in windows])
        db.executemany("INSERT INTO alerts VALUES (?, ?, 0.8, 1, 1)", [window[:2] for window in windows])
        db.commit()
    assert cleaned(path).windows == 6
    left = {(row["budget"], row["start_ns"]) for row in rows(path, "SELECT * FROM spending")}
    kept = {("daily", at), ("tag t monthly", at), ("total", 0), ("model m/hour total", 0), ("hour", NOW_NS)}
    assert left == kept | {("hour", at)}
    assert kept <= {(row["budget"], row["start_ns"]) for row in rows(path, "SELECT * FROM alerts")}
    store.close()


def spend(path: Path, budget: str, used_days_ago: float, *, reserved: int = 0) -> None:
    used_ns = NOW_NS - int(used_days_ago * DAY_NS)
    with closing(sqlite3.connect(path)) as db:
        db.execute("REPLACE INTO spending VALUES (?, 0, 5, ?, ?)", (budget, reserved, used_ns))
        db.execute("INSERT INTO alerts VALUES (?, 0, 0.8, 1, 1)", (budget,))
        db.commit()


def test_the_total_of_a_session_ends_when_nobody_uses_it(path: Path, store: SqliteStore) -> None:
    """Clients name sessions at will, so their rows must end; every other total stays, and so does one that is held."""
    spend(path, "session ann/idle total", 31)
    spend(path, "session ann/used total", 29)
    spend(path, "session ann/held total", 31, reserved=1)
    for budget in ("total", "key session total", "tag session x total", "provider session total"):
        spend(path, budget, 4000)
    assert cleaned(path).windows == 1
    for table in ("spending", "alerts"):
        left = {row["budget"] for row in rows(path, "SELECT budget FROM " + table)}
        assert "session ann/idle total" not in left
        assert len(left) == 6
    store.close()


def test_a_session_that_goes_on_during_a_clean_up_keeps_its_spending(path: Path, store: SqliteStore) -> None:
    """Between the look at a window and its end another process may use it."""
    for number in range(40):
        spend(path, f"session {number:02} total", 31)
    used: list[str] = []

    def rest(_: float) -> None:
        if not used:  # after the first transaction, which took 16
            used.append("session 39 total")
            with closing(sqlite3.connect(path)) as db:
                db.execute("UPDATE spending SET used_ns = ? WHERE budget = 'session 39 total'", (NOW_NS,))
                db.commit()

    done = Retention(path, KEPT, clock_ns=lambda: NOW_NS, rest=rest).clean_up()
    assert done is not None
    assert done.windows == 39
    for table in ("spending", "alerts"):
        assert rows(path, "SELECT budget FROM " + table) == [{"budget": "session 39 total"}]
    store.close()


def test_each_use_of_a_window_is_dated(path: Path, store: SqliteStore) -> None:
    """A hold as well as what was spent."""
    charge = Charge("session s total", 0, 0, 10**9)
    held = Batch(opened={"a": (call("a", charges=(charge,)), attempt("a", hold_nano=7))})
    held.intents = {"a": attempt("a", hold_nano=7)}
    held.charges, held.growth = {"a": (charge,)}, {attempt("a").id: 7}
    store.write(held)
    ((row),) = rows(path, "SELECT reserved_nano, used_ns FROM spending")
    assert row["reserved_nano"] == 7
    assert abs(row["used_ns"] / 1e9 - time.time()) < 600
    store.close()


def test_a_window_that_runs_is_never_over() -> None:
    """Whatever the budget's name is."""
    for name in ("minute", "hour", "daily", "weekly", "monthly", "total", "last_24h", "session s monthly", "odd"):
        assert not is_over(name, NOW_NS - DAY_NS // 24, NOW_NS, NOW_NS)
    assert not is_over("session s monthly", NOW_NS - 31 * DAY_NS, NOW_NS, NOW_NS)
    assert is_over("session s monthly", NOW_NS - 35 * DAY_NS, NOW_NS, NOW_NS)


def test_the_state_tells_size_and_times(path: Path, store: SqliteStore) -> None:
    """For `/health`."""
    store.write(ended("old", 91))
    store.write(ended("new", 1))
    cleaned(path)
    state = retention(path).state()
    assert (state.calls, state.oldest_ns) == (1, NOW_NS - DAY_NS)
    assert state.next_clean_up_ns == NOW_NS + int(EVERY_S * 1e9)
    assert state.file_bytes > 0
    assert state.wal_bytes > 0
    store.close()


def test_a_database_that_is_not_there_is_an_error_and_is_not_made(path: Path) -> None:
    """Only the ledger makes files."""
    for ask in (retention(path).clean_up, retention(path).state):
        with pytest.raises(StoreError, match="usage database"):
            ask()
    assert not path.exists()
