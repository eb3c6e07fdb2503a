"""Sums of ended calls: each call is in them once, however it ended, and usage is the same before and after."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlite_utils import Database

from proxy.schema.errors import BadRequest
from proxy.schema.queries import UsageQuery
from proxy.schema.records import Decided, Labels, Outcome
from proxy.storage import rollups, usage
from proxy.storage.base import StoreError
from proxy.storage.batch import Batch, OpenCall, rejected
from proxy.storage.histograms import ERROR
from proxy.storage.migrations import MIGRATIONS, migrate
from proxy.storage.rollup_table import m025_charges
from proxy.storage.sqlite import SqliteStore
from tests.storage.samples import attempt, attempt_end, call, call_end, rows

HOUR_NS = rollups.HOUR_S * 10**9
START_NS = 1_767_225_600 * 10**9  # 2026-01-01T00:00:00Z
SPANS = (rollups.HOUR_S, rollups.DAY_S)


def opened(store: SqliteStore, name: str, **changes: Any) -> OpenCall:
    entry = OpenCall(call(name, **changes))
    first = attempt(name)
    entry.start(first)
    store.write(Batch(opened={name: (entry.call, first)}, intents={first.id: first}))
    return entry


def ending(entry: OpenCall, outcome: Outcome = Outcome.OK, **changes: Any) -> Batch:
    ended = entry.finish(attempt_end(entry.call_id), 9)
    assert ended is not None
    _, closed = entry.close(call_end(entry.call_id, outcome, **changes), 9)
    return Batch(ended=[ended], closed={entry.call_id: closed})


def summed(store: SqliteStore, path: Path) -> dict[int, tuple[int, int, int]]:
    """Calls, successes and cost per span, once everything is summed up."""
    store.sweep(1)
    assert rows(path, "SELECT * FROM calls_to_sum") == []
    found = rows(
        path,
        "SELECT span_s, SUM(calls) c, SUM(successes) s, SUM(cost_nano) n FROM rollups WHERE kept = 'all' GROUP BY 1",
    )
    return {row["span_s"]: (row["c"], row["s"], row["n"]) for row in found}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


@pytest.fixture
def store(path: Path) -> Any:
    made = SqliteStore(path)
    made.open()
    yield made
    made.close()


def test_a_batch_written_twice_counts_once(store: SqliteStore, path: Path) -> None:
    """The answer to a commit may be lost; before or after the call was summed up makes no difference."""
    batch = ending(opened(store, "a"))
    store.write(batch)
    store.write(batch)
    assert summed(store, path) == dict.fromkeys(SPANS, (1, 1, 300))
    store.write(batch)
    assert summed(store, path) == dict.fromkeys(SPANS, (1, 1, 300))


def test_a_call_swept_by_another_process_counts_once(store: SqliteStore, path: Path) -> None:
    """The sweep is the first end of the call; its settle comes too late, and changes nothing."""
    entry = opened(store, "a")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE calls SET owner = 'dead'")
    assert store.sweep(5) == 1
    store.write(ending(entry))
    assert summed(store, path) == dict.fromkeys(SPANS, (1, 0, 5_000))


def test_rejected_and_abandoned_calls_count(store: SqliteStore, path: Path) -> None:
    """A rejected call costs nothing; one whose end could not be written costs its hold."""
    end = call_end("r", Outcome.REJECTED)
    store.write(Batch(opened={"r": (call("r"), None)}, closed={"r": rejected(end, 5)}))
    opened(store, "a")
    for _ in range(2):
        store.write(Batch(abandoned={"a": 9}))
    assert summed(store, path) == dict.fromkeys(SPANS, (2, 0, 5_000))


def test_many_calls_are_summed_without_a_sweep(store: SqliteStore, path: Path) -> None:
    """The list of calls that are not summed stays short under load."""
    for number in range(rollups.AT_ONCE + 1):
        store.write(ending(opened(store, f"c-{number}")))
    assert rows(path, "SELECT COUNT(*) AS n FROM calls_to_sum") == [{"n": 1}]


def test_sums_that_fail_fail_no_call(store: SqliteStore, path: Path) -> None:
    """The calls stay listed, and usage counts them all the same."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TRIGGER broken BEFORE INSERT ON rollups BEGIN SELECT RAISE(ABORT, 'broken'); END")
    store.write(ending(opened(store, "a")))
    assert store.sweep(1) == 0
    assert store.usage(UsageQuery())["total"]["calls"] == 1
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TRIGGER broken")
    assert summed(store, path) == dict.fromkeys(SPANS, (1, 1, 300))


def test_absurd_counts_do_not_stop_the_sums(store: SqliteStore, path: Path) -> None:
    """Sums stay within 64 bits, whatever is in the rows."""
    for name in ("a", "b", "c"):
        opened(store, name)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "UPDATE calls SET closed_ns = 5, input_tokens = 9223372036854775807, cost_nano = 9223372036854775807"
        )
    assert summed(store, path)[rollups.HOUR_S] == (3, 0, 3 * 2**53)


def test_an_earlier_database_is_summed_when_it_is_migrated() -> None:
    """All its ended calls, and none that is open."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate(db, MIGRATIONS[:11])
        insert = "INSERT INTO calls (id, opened_ns, closed_ns, owner, requested_model, stream, outcome, success)"
        values = [(str(n), START_NS + n * HOUR_NS // 7, None if n % 10 == 0 else 5) for n in range(100)]
        db.executemany(insert + " VALUES (?, ?, ?, 'o', 'm', 0, 'ok', 1)", values)
        migrate(db)
        found = dict(db.execute("SELECT span_s, SUM(calls) FROM rollups WHERE kept = 'none' GROUP BY 1").fetchall())
        listed = db.execute("SELECT COUNT(*) FROM calls_to_sum").fetchone()
    assert (found, listed) == (dict.fromkeys(SPANS, 90), (0,))


def test_sums_of_an_earlier_version_learn_what_keys_pay() -> None:
    """The cost, and nothing for a forgiven call. Calls that are not summed yet add their own charge when they are."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate(db, MIGRATIONS[:11])
        columns = "id, opened_ns, closed_ns, owner, requested_model, stream, outcome, provider, cost_nano"
        values = [(str(number), START_NS, 5, "p", 7) for number in range(4)]
        insert = "INSERT INTO calls (" + columns + ") VALUES (?, ?, ?, 'o', 'm', 0, 'ok', ?, ?)"
        db.executemany(insert, values)
        migrate(db)
        # As an earlier version left it: sums without charges, one forgiven call in them, one listed only.
        db.execute("ALTER TABLE rollups DROP COLUMN charged_nano")
        db.execute("UPDATE calls SET charged_nano = 0 WHERE id = '1'")
        insert = insert.replace("cost_nano)", "cost_nano, charged_nano)").replace("?, ?)", "?, ?, 0)")
        db.execute(insert, ("listed", START_NS, 5, "p", 7))
        db.execute("INSERT INTO calls_to_sum (call_id) VALUES ('listed')")
        m025_charges(Database(db))
        sums = "SELECT DISTINCT kept, span_s, cost_nano, charged_nano FROM rollups"
        before = db.execute(sums).fetchall()
        rollups.prepare(db)
        rollups.sum_up(db)
        after = db.execute(sums).fetchall()
    assert {row[2:] for row in before} == {(28, 21)}
    assert {row[2:] for row in after} == {(35, 21)}
    assert len(before) == len(after) == 2 * len(rollups.KEPT)


def fill(store: SqliteStore, count: int, seed: int) -> list[dict[str, Any]]:
    """Random calls over four days, a third of them not yet summed up; returns them as plain values."""
    rng = random.Random(seed)
    known = []
    for number in range(count):
        fact = {
            "opened_ns": START_NS + rng.randrange(96 * HOUR_NS),
            "key_id": rng.choice(["ann", "bob", None]),
            "task_type": rng.choice(["chat", "code", None]),
            "decided": Decided(rule=rng.choice(["r1", None]), strategy=rng.choice(["speed_optimized", None])),
            "labels": Labels(rng.choice([(), ("x",), ("x", "y")]), rng.choice(["s1", "s2", None]), None, None),
        }
        latency_ms = rng.lognormvariate(6, 2)
        store.write(ending(opened(store, f"c-{number}", **fact), latency_ms=latency_ms))
        known.append(fact | {"latency_ms": latency_ms})
        if number == count * 2 // 3:
            store.sweep(1)
    return known


PERIODS = [
    (None, None),
    (0, 96 * HOUR_NS),
    (HOUR_NS // 2, None),
    (5 * HOUR_NS + 1, 80 * HOUR_NS + 7),
    (30 * HOUR_NS, 31 * HOUR_NS),
    (30 * HOUR_NS + 5, 31 * HOUR_NS + 5),
    (30 * HOUR_NS + 5, 30 * HOUR_NS + HOUR_NS // 3),
    (40 * HOUR_NS, 20 * HOUR_NS),
    (47 * HOUR_NS, 49 * HOUR_NS),
]


def keyed(fact: dict[str, Any], name: str, zone: ZoneInfo) -> list[str | None]:
    moment = datetime.fromtimestamp(fact["opened_ns"] // 10**9, zone)
    values: dict[str, Any] = {
        "key": fact["key_id"],
        "task": fact["task_type"],
        "rule": fact["decided"].rule,
        "strategy": fact["decided"].strategy,
        "session": fact["labels"].session,
        "day": moment.date().isoformat(),
        "hour": moment.replace(minute=0, second=0).isoformat().replace("+00:00", "Z"),
    }
    return list(fact["labels"].tags) or [None] if name == "tag" else [values[name]]


@pytest.mark.parametrize("tz", ["UTC", "Europe/Berlin", "America/New_York"])
def test_usage_by_rollups_equals_usage_by_calls(store: SqliteStore, tz: str) -> None:
    """For every period, whatever its ends, every time zone, and every grouping."""
    known = fill(store, 300, seed=7)
    zone = ZoneInfo(tz)
    for since, until in PERIODS:
        begin, end = (None if each is None else START_NS + each for each in (since, until))
        chosen = [f for f in known if (begin or 0) <= f["opened_ns"] < (end or 2**63)]
        for keys in [
            ("day",),
            ("hour",),
            ("key", "day"),
            ("rule", "task"),
            ("tag",),
            ("session", "day"),
            ("strategy",),
        ]:
            answer = store.usage(UsageQuery(begin, end, None, keys, tz))
            counts: dict[tuple[Any, ...], int] = {}
            for fact in chosen:
                first, *more = (keyed(fact, name, zone) for name in keys)
                for group in [(one, *(each[0] for each in more)) for one in first]:
                    counts[group] = counts.get(group, 0) + 1
            told = {tuple(group[name] for name in keys): group["calls"] for group in answer["groups"]}
            assert told == counts, (since, until, keys)
            assert answer["total"]["calls"] == len(chosen)
            by_call = store.usage(UsageQuery(begin, end, None, keys, tz, by_call=True))
            assert by_call == answer
    assert store.usage(UsageQuery(key_id="ann"))["total"]["calls"] == sum(f["key_id"] == "ann" for f in known)


def test_a_percentile_is_within_the_stated_error(store: SqliteStore) -> None:
    """At most 2.5 %, over five orders of magnitude."""
    known = sorted(fact["latency_ms"] for fact in fill(store, 200, seed=3))
    total = store.usage(UsageQuery())["total"]
    for name, percent in (("p50_latency_ms", 50), ("p95_latency_ms", 95)):
        assert total[name] == pytest.approx(known[-(-len(known) * percent // 100) - 1], rel=ERROR)


def test_too_many_groups_are_refused(store: SqliteStore, path: Path) -> None:
    """An answer is bounded; the caller is told to ask for less."""
    store.write(ending(opened(store, "a")))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i <= ?) INSERT INTO calls (id,"
            " opened_ns, closed_ns, owner, requested_model, stream, outcome, session)"
            " SELECT i, 1, 1, 'o', 'm', 0, 'ok', 's' || i FROM n",
            (usage.MAX_GROUPS,),
        )
    with pytest.raises(BadRequest, match="more than 5000 groups") as caught:
        store.usage(UsageQuery(group_by=("session",)))
    assert caught.value.param == "group_by"


def test_a_database_of_an_earlier_version_is_not_read_as_empty(path: Path) -> None:
    """A command that only reads does not migrate; it says what does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        migrate(db, MIGRATIONS[:11])
    with pytest.raises(StoreError, match="is from an earlier version"):
        SqliteStore(path).usage(UsageQuery())
