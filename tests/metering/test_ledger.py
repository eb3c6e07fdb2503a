"""The ledger on real files and real threads: committed when it says so, and once, whatever is cancelled or broken."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.metering.ledger import Ledger
from proxy.metering.reprice import tokens_of
from proxy.metering.writer import Waits
from proxy.schema.errors import StorageUnavailable
from proxy.schema.records import Outcome, Tokens
from proxy.storage.base import Answers, RowRefused, StoreBusy, StoreError
from proxy.storage.batch import Batch
from proxy.storage.sqlite import SqliteStore
from tests.storage.samples import HOLD_NANO, attempt, attempt_end, call, call_end, outcomes, rows
from tests.storage.stores import BrokenStore, FarStore, GatedStore, StuckStore

WAITS = Waits(settle=0.05, retry=0.02, sweep=0.05)
BLOCKED = 2  # changes of the call at the gate: its row and its end


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calls.db"


@contextlib.asynccontextmanager
async def running(store: SqliteStore, **options: Any) -> AsyncIterator[Ledger]:
    ledger = Ledger(store, **({"waits": WAITS} | options))
    await ledger.start()
    try:
        yield ledger
    finally:
        await ledger.stop()


async def settle(ledger: Ledger, name: str, outcome: Outcome = Outcome.OK, seq: int = 1) -> None:
    """The only attempt that still runs ends, and the call."""
    ledger.end(attempt_end(name, seq, outcome))
    await ledger.settle(call_end(name, outcome))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the writer is a thread
            await asyncio.sleep(0.001)


async def blocked(ledger: Ledger, store: GatedStore) -> None:
    """Closes the gate and lets the writer arrive at it with a call that is not of interest."""
    store.gate.clear()
    store.waiting.clear()
    ledger.reject(call("in-the-way"), call_end("in-the-way", Outcome.REJECTED))
    await until(store.waiting.is_set)


async def test_an_open_call_is_in_the_file_when_open_returns(path: Path) -> None:
    """Call and first attempt are committed before the request may leave."""
    async with running(SqliteStore(path)) as ledger:
        await ledger.open(call("a", stream=True), attempt("a"))
        [row] = rows(path, "SELECT * FROM calls")
        assert (row["outcome"], row["closed_ns"], row["hold_nano"], row["stream"]) == ("open", None, HOLD_NANO, 1)
        [row] = rows(path, "SELECT * FROM attempts")
        assert (row["id"], row["outcome"], row["price_version"]) == ("a-1", "open", "v1")
        assert (ledger.state.open_calls, ledger.state.reserved_nano) == (1, HOLD_NANO)


async def test_a_settled_call_sums_its_attempts(path: Path) -> None:
    """Tokens and cost of the call are those of all attempts; the raw parts stay with each attempt."""
    async with running(SqliteStore(path), clock_ns=lambda: 99) as ledger:
        await ledger.open(call("a"), attempt("a"))
        failed = attempt_end("a", outcome=Outcome.UPSTREAM_TRUNCATED, usage_source="estimated")
        ledger.end(failed)
        await ledger.intend(attempt("a", 2, provider="groq", model="oss"))
        assert rows(path, "SELECT hold_nano FROM calls") == [{"hold_nano": 300 + HOLD_NANO}]
        used = Tokens(input=1, cache_read=2, cache_write=4, output=8, reasoning=5, cache_write_1h=3, searches=6)
        last = attempt_end("a", 2, tokens=used, cost_nano=11, upstream_request_id="req-2")
        ledger.end(last)
        await ledger.settle(call_end("a", fallback=True, dropped=["seed"], provider="groq", model="oss"))
        [row] = rows(path, "SELECT * FROM calls")
        expected = {
            "closed_ns": 99,
            "outcome": "ok",
            "provider": "groq",
            "model": "oss",
            "input_tokens": 17,
            "output_tokens": 28,
            "total_tokens": 45,
            "cached_tokens": 2,
            "cache_write_tokens": 4,
            "reasoning_tokens": 5,
            "cost_nano": 311,
            "estimated": 1,
            "attempts": 2,
            "fallback": 1,
            "success": 1,
            "dropped": '["seed"]',
        }
        assert {name: row[name] for name in expected} == expected
        first, second = rows(path, "SELECT * FROM attempts ORDER BY seq")
        assert (first["outcome"], first["usage_source"], first["cost_nano"]) == ("upstream_truncated", "estimated", 300)
        assert tokens_of(second) == used
        assert second["upstream_request_id"] == "req-2"
        assert (ledger.state.open_calls, ledger.state.reserved_nano) == (0, 0)


@pytest.mark.parametrize(("tokens", "cost_nano"), [(Tokens(input=1), None), (Tokens(), 300)])
async def test_an_unknown_price_is_null_where_tokens_were_used(
    path: Path, tokens: Tokens, cost_nano: int | None
) -> None:
    """An attempt without usage has nothing to price; any other without a price makes the whole call unpriced."""
    async with running(SqliteStore(path)) as ledger:
        await ledger.open(call("a"), attempt("a", hold_nano=None))
        ledger.end(attempt_end("a", tokens=tokens, cost_nano=None))
        await ledger.intend(attempt("a", 2))
        await settle(ledger, "a", seq=2)
        assert rows(path, "SELECT cost_nano FROM calls") == [{"cost_nano": cost_nano}]


async def test_attempts_may_run_beside_each_other(path: Path) -> None:
    """What is held is what was spent and the bounds of all that run; the call is the sum over what they used."""
    async with running(SqliteStore(path)) as ledger:
        opening = asyncio.create_task(ledger.open(call("a"), attempt("a")))
        await asyncio.sleep(0)
        await asyncio.gather(opening, ledger.intend(attempt("a", 2)), ledger.intend(attempt("a", 3)))
        assert rows(path, "SELECT hold_nano FROM calls") == [{"hold_nano": 3 * HOLD_NANO}]
        assert ledger.state.reserved_nano == 3 * HOLD_NANO
        ledger.end(attempt_end("a", 2, Outcome.UPSTREAM_ERROR, cost_nano=7))
        await ledger.intend(attempt("a", 4))
        assert rows(path, "SELECT hold_nano FROM calls") == [{"hold_nano": 3 * HOLD_NANO + 7}]
        ends = [attempt_end("a", 1), attempt_end("a", 2), attempt_end("a", 3, Outcome.CANCELLED, cost_nano=5)]
        for end in ends:
            ledger.end(end)
        await settle(ledger, "a", seq=4)
        assert (ledger.state.open_calls, ledger.state.reserved_nano) == (0, 0)
    assert rows(path, "SELECT cost_nano, attempts, total_tokens FROM calls") == [
        {"cost_nano": 300 + 7 + 5 + 300, "attempts": 4, "total_tokens": 120}
    ]
    assert [row["outcome"] for row in rows(path, "SELECT outcome FROM attempts ORDER BY seq")] == [
        "ok",
        "upstream_error",
        "cancelled",
        "ok",
    ]


async def test_attempts_beside_each_other_are_refused_together(path: Path) -> None:
    """A store that fails leaves no row of them, and nothing held."""
    store = BrokenStore(path)
    async with running(store) as ledger:
        store.break_down()
        asked = [ledger.open(call("a"), attempt("a")), ledger.intend(attempt("a", 2))]
        refused = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(error) for error in refused] == [StorageUnavailable, StorageUnavailable]
        ledger.end(attempt_end("a"))
        ledger.close(call_end("a", Outcome.REJECTED))
        store.heal()
        await until(lambda: ledger.state.pending == 0)
        assert (ledger.state.open_calls, ledger.state.reserved_nano) == (0, 0)
    assert rows(path, "SELECT id FROM calls") == rows(path, "SELECT id FROM attempts") == []


async def test_an_intent_that_was_not_committed_when_its_call_ends_leaves_no_row(path: Path) -> None:
    """Its request never left; the attempt that ran beside it keeps its end."""
    store = GatedStore(path)
    async with running(store) as ledger:
        await ledger.open(call("a"), attempt("a"))
        await blocked(ledger, store)
        late = asyncio.create_task(ledger.intend(attempt("a", 2)))
        await asyncio.sleep(0)
        ledger.end(attempt_end("a", 1, Outcome.CLIENT_CLOSED))
        ledger.close(call_end("a", Outcome.CLIENT_CLOSED))
        store.gate.set()
        with pytest.raises(RowRefused):
            await late
    assert rows(path, "SELECT id, outcome FROM attempts") == [{"id": "a-1", "outcome": "client_closed"}]
    assert rows(path, "SELECT cost_nano, attempts FROM calls WHERE id = 'a'") == [{"cost_nano": 300, "attempts": 1}]


async def test_the_first_end_stands(path: Path) -> None:
    """Settling is idempotent by call id, whether the ends meet in one batch or not."""
    async with running(SqliteStore(path)) as ledger:
        await ledger.open(call("a"), attempt("a"))
        ledger.end(attempt_end("a"))
        ledger.end(attempt_end("a", outcome=Outcome.CANCELLED))
        first = asyncio.create_task(ledger.settle(call_end("a")))
        second = asyncio.create_task(ledger.settle(call_end("a", Outcome.CLIENT_CLOSED)))
        await asyncio.gather(first, second)
        await ledger.settle(call_end("a", Outcome.TIMEOUT_IDLE))
        ledger.close(call_end("a", Outcome.CANCELLED))
    assert rows(path, "SELECT outcome, total_tokens, attempts FROM calls") == [
        {"outcome": "ok", "total_tokens": 30, "attempts": 1}
    ]


async def test_a_rejected_call_has_one_row_and_no_attempt(path: Path) -> None:
    """What is refused before any attempt is in the log, free of charge."""
    async with running(SqliteStore(path)) as ledger:
        ledger.reject(call("a"), call_end("a", Outcome.REJECTED, status=404, error_code="model_not_found"))
    [row] = rows(path, "SELECT * FROM calls")
    assert (row["outcome"], row["status"], row["error_code"]) == ("rejected", 404, "model_not_found")
    assert (row["cost_nano"], row["attempts"], row["success"]) == (0, 0, 0)
    assert rows(path, "SELECT * FROM attempts") == []


async def test_calls_that_wait_together_are_committed_together(path: Path) -> None:
    """While one commit runs all others gather; they need one more."""
    store = GatedStore(path)
    async with running(store) as ledger:
        await blocked(ledger, store)
        before = ledger.state.commits
        opens = [asyncio.create_task(ledger.open(call(f"c{n}"), attempt(f"c{n}"))) for n in range(64)]
        await until(lambda: ledger.state.pending == BLOCKED + 64)
        store.gate.set()
        await asyncio.gather(*opens)
        assert ledger.state.commits - before == 2
        assert list(outcomes(path).values()).count("open") == 64


async def test_a_call_cancelled_before_its_open_is_committed_leaves_no_row(path: Path) -> None:
    """Its request never left, so there was no call."""
    store = GatedStore(path)
    async with running(store) as ledger:
        await blocked(ledger, store)
        task = asyncio.create_task(ledger.open(call("a"), attempt("a")))
        await until(lambda: ledger.state.pending == BLOCKED + 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        ledger.close(call_end("a", Outcome.CLIENT_CLOSED, status=499))
        store.gate.set()
    assert outcomes(path) == {"in-the-way": "rejected"}
    assert rows(path, "SELECT * FROM attempts") == []
    assert (ledger.state.open_calls, ledger.state.reserved_nano, ledger.state.pending) == (0, 0, 0)


async def test_a_call_cancelled_while_its_open_is_being_committed_is_settled(path: Path) -> None:
    """The row exists by then, so the close ends it; the attempt, which never left, costs nothing."""
    store = GatedStore(path)
    async with running(store) as ledger:
        store.gate.clear()
        task = asyncio.create_task(ledger.open(call("a"), attempt("a")))
        await until(store.waiting.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        ledger.close(call_end("a", Outcome.CLIENT_CLOSED, status=499))
        store.gate.set()
    assert outcomes(path) == {"a": "client_closed"}
    assert rows(path, "SELECT outcome, cost_nano FROM attempts") == [{"outcome": "cancelled", "cost_nano": 0}]


async def test_a_cancelled_caller_does_not_keep_the_others_waiting(path: Path) -> None:
    """All who share a commit are woken by one callback; one of them is gone by then."""
    store = GatedStore(path)
    async with running(store, waits=Waits(open=60)) as ledger:
        await blocked(ledger, store)
        first, second = (asyncio.create_task(ledger.open(call(name), attempt(name))) for name in ("a", "b"))
        await until(lambda: ledger.state.pending == BLOCKED + 2)
        first.cancel()
        store.gate.set()
        async with asyncio.timeout(5):
            await second
    assert first.cancelled()


async def test_a_retry_cancelled_before_its_intent_is_committed_leaves_no_attempt(path: Path) -> None:
    """The end of the attempt before it was told first, and is kept."""
    store = GatedStore(path)
    async with running(store) as ledger:
        await ledger.open(call("a"), attempt("a"))
        await blocked(ledger, store)
        ledger.end(attempt_end("a", outcome=Outcome.UPSTREAM_ERROR))
        task = asyncio.create_task(ledger.intend(attempt("a", 2, provider="groq")))
        await until(lambda: ledger.state.pending == BLOCKED + 2)
        task.cancel()
        await asyncio.wait([task])
        ledger.close(call_end("a", Outcome.CLIENT_CLOSED))
        store.gate.set()
    assert rows(path, "SELECT seq, outcome FROM attempts") == [{"seq": 1, "outcome": "upstream_error"}]
    [row] = rows(path, "SELECT attempts, cost_nano, provider FROM calls WHERE id = 'a'")
    assert row == {"attempts": 1, "cost_nano": 300, "provider": "openai"}


async def test_one_bad_row_harms_no_other_call(path: Path) -> None:
    """A used id and a number no column can take are refused alone, in a batch that the others share."""
    store = GatedStore(path)
    async with running(store) as ledger:
        for name in ("used", "huge", "fine"):
            await ledger.open(call(name), attempt(name))
        await settle(ledger, "used")
        await blocked(ledger, store)
        ledger.end(attempt_end("huge", tokens=Tokens(input=2**70)))
        results = asyncio.gather(
            ledger.open(call("new"), attempt("new")),
            ledger.open(call("used", opened_ns=2_000), attempt("used", 9)),
            ledger.open(call("\ud800"), attempt("\ud800")),
            ledger.settle(call_end("huge")),
            settle(ledger, "fine"),
            return_exceptions=True,
        )
        await until(lambda: ledger.state.pending == BLOCKED + 7)
        store.gate.set()
        new, used, surrogate, huge, fine = await results
        assert (new, huge, fine) == (None, None, None)
        assert isinstance(used, RowRefused)
        assert isinstance(surrogate, RowRefused)
        await until(lambda: ledger.state.pending == 0)
        assert not ledger.state.degraded
        found = {"used": "ok", "huge": "unknown", "fine": "ok", "new": "open", "in-the-way": "rejected"}
        assert outcomes(path) == found
        [row] = rows(path, "SELECT cost_nano, estimated FROM calls WHERE id = 'huge'")
        assert row == {"cost_nano": HOLD_NANO, "estimated": 1}
        assert (ledger.state.open_calls, ledger.state.lost) == (1, 2)


async def test_a_store_that_fails_refuses_new_calls_and_keeps_ends(path: Path) -> None:
    """503 for what would go unmetered; what runs is answered in time and written once the store works again."""
    store = BrokenStore(path)
    async with running(store) as ledger:
        await ledger.open(call("a"), attempt("a"))
        store.break_down()
        with pytest.raises(StorageUnavailable):
            await ledger.open(call("b"), attempt("b"))
        assert ledger.state.degraded
        tries = store.tries
        with pytest.raises(StorageUnavailable):
            await ledger.intend(attempt("a", 2))
        async with asyncio.timeout(1):
            await settle(ledger, "a")
        assert outcomes(path) == {"a": "open"}
        await until(lambda: store.tries > tries + 3)
        store.heal()
        await until(lambda: not ledger.state.degraded)
        assert outcomes(path) == {"a": "ok"}
        await ledger.open(call("c"), attempt("c"))
        assert (ledger.state.pending, ledger.state.open_calls) == (0, 1)


async def test_a_bug_in_the_store_does_not_end_the_writer(path: Path) -> None:
    """Whatever is raised in the writer thread, calls go on being metered."""
    store = BrokenStore(path)
    async with running(store) as ledger:
        store.fault = ZeroDivisionError("a bug")
        with pytest.raises(StorageUnavailable):
            await ledger.open(call("a"), attempt("a"))
        store.heal()
        await until(lambda: not ledger.state.degraded)
        await ledger.open(call("b"), attempt("b"))
        assert outcomes(path) == {"b": "open"}


async def test_unmetered_serves_while_the_store_is_down_and_writes_later(path: Path) -> None:
    """Every call is let out, and has its rows once the store works again."""
    store = BrokenStore(path)
    async with running(store, when_down="unmetered") as ledger:
        store.break_down()
        for name in ("a", "b", "c"):
            await ledger.open(call(name), attempt(name))
        ledger.end(attempt_end("a", outcome=Outcome.UPSTREAM_ERROR))
        await ledger.intend(attempt("a", 2))
        ledger.end(attempt_end("a", 2, Outcome.CLIENT_CLOSED))
        ledger.close(call_end("a", Outcome.CLIENT_CLOSED))
        await settle(ledger, "b")
        assert ledger.state.degraded
        assert outcomes(path) == {}
        store.heal()
        await until(lambda: ledger.state.pending == 0)
        assert outcomes(path) == {"a": "client_closed", "b": "ok", "c": "open"}
        assert rows(path, "SELECT attempts, cost_nano FROM calls WHERE id = 'a'") == [{"attempts": 2, "cost_nano": 600}]


async def test_unmetered_counts_what_it_cannot_keep(path: Path) -> None:
    """Memory is bounded: beyond `max_pending` changes a call is served, counted, and without a row."""
    store = BrokenStore(path)
    async with running(store, when_down="unmetered", max_pending=4) as ledger:
        store.break_down()
        for name in ("a", "b", "c", "d"):
            await ledger.open(call(name), attempt(name))
            await until(lambda: ledger.state.open_calls + ledger.state.lost > 0)
            await settle(ledger, name)
        lost = ledger.state.lost
        store.heal()
        await until(lambda: ledger.state.pending == 0)
        assert lost > 0
        assert len(outcomes(path)) == 4 - lost


async def test_a_lock_held_for_long_refuses_in_bounded_time_and_is_survived(path: Path) -> None:
    """Another program in the middle of a long write: 503 after the busy time-out, and no restart needed."""
    async with running(SqliteStore(path, busy_s=0.1)) as ledger:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            before = time.monotonic()
            with pytest.raises(StorageUnavailable):
                await ledger.open(call("a"), attempt("a"))
            assert time.monotonic() - before < 2
            other.execute("ROLLBACK")
        await until(lambda: not ledger.state.degraded)
        await ledger.open(call("b"), attempt("b"))
    assert outcomes(path) == {"b": "open"}


async def test_a_disk_that_hangs_is_waited_for_only_so_long(path: Path) -> None:
    """An open that gives up leaves no row, although the writer comes back to it later."""
    store = GatedStore(path)
    async with running(store, waits=Waits(open=0.02, settle=0.02)) as ledger:
        await blocked(ledger, store)
        with pytest.raises(StorageUnavailable):
            await ledger.open(call("a"), attempt("a"))
        store.gate.set()
        await until(lambda: ledger.state.pending == 0)
        assert outcomes(path) == {"in-the-way": "rejected"}
        assert ledger.state.open_calls == 0


async def test_a_cancelled_settle_is_written_all_the_same(path: Path) -> None:
    """Nobody has to wait for an end that is in the FIFO."""
    store = GatedStore(path)
    async with running(store) as ledger:
        await ledger.open(call("a"), attempt("a"))
        await blocked(ledger, store)
        task = asyncio.create_task(settle(ledger, "a"))
        await until(lambda: ledger.state.pending == BLOCKED + 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        store.gate.set()
    assert outcomes(path)["a"] == "ok"


async def test_calls_of_dead_owners_become_unknown_at_the_cost_of_their_holds(path: Path) -> None:
    """What was spent before plus what was held; the calls of those who live are left alone."""
    async with running(SqliteStore(path), waits=Waits(sweep=60)) as dying:
        await dying.open(call("held"), attempt("held"))
        dying.end(attempt_end("held"))
        await dying.intend(attempt("held", 2, provider="groq"))
        await dying.open(call("unpriced"), attempt("unpriced", hold_nano=None))
        async with running(SqliteStore(path)) as ledger:
            await ledger.open(call("own"), attempt("own"))
            assert set(outcomes(path).values()) == {"open"}
            await dying.stop()
            await until(lambda: ledger.state.swept == 2)
            assert outcomes(path) == {"held": "unknown", "unpriced": "unknown", "own": "open"}
            columns = "cost_nano, attempts, total_tokens, estimated, provider"
            assert rows(path, f"SELECT {columns} FROM calls WHERE id = 'held'") == [
                {"cost_nano": 300 + HOLD_NANO, "attempts": 2, "total_tokens": 30, "estimated": 1, "provider": "groq"}
            ]
            assert rows(path, "SELECT cost_nano FROM calls WHERE id = 'unpriced'") == [{"cost_nano": None}]
            assert rows(path, "SELECT outcome FROM attempts WHERE call_id = 'held' ORDER BY seq") == [
                {"outcome": "ok"},
                {"outcome": "unknown"},
            ]


async def test_an_unwritable_path_is_told_at_the_start(tmp_path: Path) -> None:
    """The message names the file and the way out."""
    ledger = Ledger(SqliteStore(tmp_path / "missing" / "calls.db"))
    with pytest.raises(StoreError, match=r"missing/calls\.db: No such file or directory\. Make sure .* --db"):
        await ledger.start()
    await ledger.stop()


async def test_stopping_writes_everything_and_lets_nothing_in(path: Path) -> None:
    """What was enqueued before the stop is in the file; what comes after is refused."""
    async with running(SqliteStore(path)) as ledger:
        await ledger.open(call("a"), attempt("a"))
        ledger.end(attempt_end("a"))
        ledger.close(call_end("a"))
        await ledger.stop()
        with pytest.raises(StorageUnavailable):
            await ledger.open(call("b"), attempt("b"))
    assert outcomes(path) == {"a": "ok"}
    assert list(path.with_name("calls.db-owners").iterdir()) == []


# --- the writer outlives everything -----------------------------------------------------------------------------------


async def test_an_attempt_that_ends_before_it_is_granted_cannot_stop_the_writer(path: Path) -> None:
    """A seat is cancelled while it waits for its intent, the fallback asks, and then the store fails."""
    store = StuckStore(path)
    async with running(store) as ledger:
        await ledger.open(call("a"), attempt("a"))
        await blocked(ledger, store)
        seat = asyncio.create_task(ledger.intend(attempt("a", 2)))
        await asyncio.sleep(0)
        seat.cancel()
        await asyncio.wait([seat])
        unsent = {"tokens": Tokens(), "usage_source": "none", "cost_nano": 0}
        ledger.end(attempt_end("a", 2, Outcome.CANCELLED, **unsent))
        fallback = asyncio.create_task(ledger.intend(attempt("a", 3)))
        await asyncio.sleep(0)
        store.fails = True
        store.gate.set()
        with pytest.raises(StorageUnavailable):
            await fallback
        store.fails = False
        await until(lambda: not ledger.state.degraded)
        assert ledger.state.reserved_nano == HOLD_NANO
        await ledger.intend(attempt("a", 4))
        await settle(ledger, "a", seq=4)
        assert not ledger.state.is_dead
    assert [row["seq"] for row in rows(path, "SELECT seq FROM attempts ORDER BY seq")] == [1, 4]


class Unspeakable(StoreError):
    """Even asking what it says fails."""

    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__


async def test_the_writer_outlives_an_error_in_its_error_handling(path: Path) -> None:
    """Whatever a store raises is survived, and the calls after it are metered."""
    store = BrokenStore(path)
    async with running(store) as ledger:
        store.fault = Unspeakable()
        with pytest.raises(StorageUnavailable):
            await ledger.open(call("a"), attempt("a"))
        store.heal()
        await until(lambda: not ledger.state.degraded)
        await ledger.open(call("b"), attempt("b"))
        assert not ledger.state.is_dead
    assert outcomes(path) == {"b": "open"}


@pytest.mark.parametrize("when_down", ["refuse", "unmetered"])
async def test_a_dead_writer_is_known_at_once(path: Path, when_down: str) -> None:
    """What no thread survives is no full disk: nobody waits for it, the state says so, and the process is told."""
    deaths: list[str] = []
    store = BrokenStore(path)
    waits = Waits(open=60, settle=60, stop=60)
    async with running(store, when_down=when_down, waits=waits, on_death=lambda: deaths.append("dead")) as ledger:
        await ledger.open(call("a"), attempt("a"))
        assert (ledger.state.is_dead, ledger.state.degraded, deaths) == (False, False, [])
        store.fault = SystemExit()
        expected = StorageUnavailable if when_down == "refuse" else type(None)
        async with asyncio.timeout(1):  # those who wait for it already are let go as well
            asking = asyncio.gather(ledger.intend(attempt("a", 2)), return_exceptions=True)
            assert [type(answer) for answer in await asking] == [expected]
        await until(lambda: bool(deaths))
        assert (ledger.state.is_dead, ledger.state.degraded, deaths) == (True, True, ["dead"])
        async with asyncio.timeout(1):
            opening = asyncio.gather(ledger.open(call("c"), attempt("c")), return_exceptions=True)
            assert [type(answer) for answer in await opening] == [expected]
            await settle(ledger, "a")
            await ledger.stop()
    store.close()
    assert outcomes(path) == {"a": "open"}


async def test_a_writer_that_dies_while_it_starts_fails_the_start(path: Path) -> None:
    """Nobody waits for it for ever."""

    class Dying(SqliteStore):
        def sweep(self, now_ns: int) -> int:
            raise SystemExit

    ledger = Ledger(Dying(path))
    async with asyncio.timeout(2):
        with pytest.raises(StoreError, match="thread ended"):
            await ledger.start()
        await ledger.stop()


# --- a commit whose answer is lost ------------------------------------------------------------------------------------


async def test_a_call_refused_after_a_lost_answer_leaves_no_row(path: Path) -> None:
    """It was committed, and its caller was told 503: no row stays open with a hold."""
    store = FarStore(path)
    async with running(store) as ledger:
        store.loses_answers = True
        with pytest.raises(StorageUnavailable):
            await ledger.open(call("a"), attempt("a"))
        store.loses_answers = False
        await until(lambda: not ledger.state.degraded)
        await until(lambda: ledger.state.pending == 0)
        assert (ledger.state.open_calls, ledger.state.reserved_nano) == (0, 0)
        assert rows(path, "SELECT id FROM calls") == rows(path, "SELECT id FROM attempts") == []
        await ledger.open(call("a"), attempt("a"))
        await settle(ledger, "a")
    assert outcomes(path) == {"a": "ok"}


async def test_an_attempt_refused_after_a_lost_answer_leaves_no_row(path: Path) -> None:
    """Its call goes on, with the hold of what it really runs; the same attempt may be asked for again."""
    store = FarStore(path)
    async with running(store) as ledger:
        await ledger.open(call("a"), attempt("a"))
        ledger.end(attempt_end("a", outcome=Outcome.UPSTREAM_ERROR))
        store.loses_answers = True
        with pytest.raises(StorageUnavailable):
            await ledger.intend(attempt("a", 2))
        store.loses_answers = False
        await until(lambda: not ledger.state.degraded)
        assert rows(path, "SELECT hold_nano FROM calls") == [{"hold_nano": 300}]
        await ledger.intend(attempt("a", 2))
        assert rows(path, "SELECT hold_nano FROM calls") == [{"hold_nano": 300 + HOLD_NANO}]
        await settle(ledger, "a", seq=2)
    assert rows(path, "SELECT attempts, cost_nano FROM calls") == [{"attempts": 2, "cost_nano": 600}]


@pytest.mark.parametrize("when_down", ["refuse", "unmetered"])
async def test_an_end_whose_answer_is_lost_counts_once(path: Path, when_down: str) -> None:
    """The batch is written again, and changes nothing; no row is refused as a used id."""
    store = FarStore(path)
    async with running(store, when_down=when_down) as ledger:
        await ledger.open(call("a"), attempt("a"))
        store.loses_answers = True
        await settle(ledger, "a")
        if when_down == "unmetered":
            await ledger.open(call("b"), attempt("b"))
            await settle(ledger, "b")
        ledger.reject(call("c"), call_end("c", Outcome.REJECTED))
        tries = store.tries
        await until(lambda: store.tries > tries + 2)
        store.loses_answers = False
        await until(lambda: ledger.state.pending == 0)
        assert (ledger.state.lost, ledger.state.reserved_nano) == (0, 0)
    expected = {"a": "ok", "c": "rejected"} | ({"b": "ok"} if when_down == "unmetered" else {})
    assert outcomes(path) == expected
    assert {row["cost_nano"] for row in rows(path, "SELECT cost_nano FROM calls WHERE outcome = 'ok'")} == {300}


async def test_an_id_of_another_owner_or_time_is_used(path: Path) -> None:
    """Only the very same call may be written twice."""
    async with running(SqliteStore(path)) as one, running(SqliteStore(path)) as other:
        await one.open(call("a"), attempt("a"))
        with pytest.raises(RowRefused):
            await other.open(call("a"), attempt("a"))
        await other.settle(call_end("a"))
        assert outcomes(path) == {"a": "open"}
        assert (other.state.open_calls, other.state.reserved_nano) == (0, 0)
        await settle(one, "a")
    assert outcomes(path) == {"a": "ok"}


# --- one by one -------------------------------------------------------------------------------------------------------


async def test_an_end_shares_the_commit_of_what_follows_it(path: Path) -> None:
    """The end of an attempt alone is not worth a commit: the next intent or the call's end brings it along."""
    async with running(SqliteStore(path), waits=Waits(gather=60)) as ledger:
        await ledger.open(call("a"), attempt("a"))
        before = ledger.state.commits
        ledger.end(attempt_end("a", outcome=Outcome.UPSTREAM_ERROR))
        await asyncio.sleep(0.02)
        await ledger.intend(attempt("a", 2))
        ledger.end(attempt_end("a", 2))
        await asyncio.sleep(0.02)
        await ledger.settle(call_end("a"))
        assert ledger.state.commits - before == 2
    assert rows(path, "SELECT attempts, cost_nano FROM calls") == [{"attempts": 2, "cost_nano": 600}]


async def test_an_end_that_nothing_follows_is_committed_soon(path: Path) -> None:
    """The call goes on with others; its hold is what they need."""
    async with running(SqliteStore(path), waits=Waits(gather=0.01)) as ledger:
        await ledger.open(call("a"), attempt("a"))
        await ledger.intend(attempt("a", 2, parent="a-1", seat=1))
        ledger.end(attempt_end("a", 2))
        await until(lambda: ledger.state.pending == 0)
        assert rows(path, "SELECT hold_nano FROM calls") == [{"hold_nano": HOLD_NANO + 300}]
        assert ledger.state.reserved_nano == HOLD_NANO + 300
    found = rows(path, "SELECT seq, parent, seat, outcome FROM attempts ORDER BY seq")
    assert [tuple(row.values()) for row in found] == [(1, None, 0, "open"), (2, "a-1", 1, "ok")]


async def test_an_attempt_whose_end_nobody_told_costs_its_hold(path: Path) -> None:
    """It was let out and may have used anything up to it; the call says that this is an estimate."""
    async with running(SqliteStore(path)) as ledger:
        await ledger.open(call("a"), attempt("a"))
        await ledger.intend(attempt("a", 2))
        await settle(ledger, "a", seq=2)
    assert [row["outcome"] for row in rows(path, "SELECT outcome FROM attempts ORDER BY seq")] == ["unknown", "ok"]
    [row] = rows(path, "SELECT outcome, cost_nano, estimated FROM calls")
    assert row == {"outcome": "ok", "cost_nano": HOLD_NANO + 300, "estimated": 1}


async def test_an_attempt_cancelled_before_its_call_has_a_row_leaves_the_call_open(path: Path) -> None:
    """Its sibling asks after it, and the call gets its row with that."""
    store = GatedStore(path)
    async with running(store) as ledger:
        await blocked(ledger, store)
        first = asyncio.create_task(ledger.open(call("a"), attempt("a")))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        second = asyncio.create_task(ledger.intend(attempt("a", 2, provider="groq")))
        await asyncio.sleep(0)
        store.gate.set()
        await second
        assert rows(path, "SELECT provider, hold_nano FROM calls WHERE outcome = 'open'") == [
            {"provider": "groq", "hold_nano": HOLD_NANO}
        ]
        ledger.end(attempt_end("a", 2))
        ledger.close(call_end("a"))
    assert rows(path, "SELECT attempts, cost_nano FROM calls WHERE id = 'a'") == [{"attempts": 1, "cost_nano": 300}]


async def test_a_call_that_was_refused_waits_for_nothing(path: Path) -> None:
    """There is nothing to settle where `open` raised, however long the writer waits for a lock."""
    store = GatedStore(path)
    async with running(store, waits=Waits(open=0.02, settle=60)) as ledger:
        await blocked(ledger, store)
        with pytest.raises(StorageUnavailable):
            await ledger.open(call("a"), attempt("a"))
        async with asyncio.timeout(1):
            await settle(ledger, "a", Outcome.REJECTED)
            await ledger.settle(call_end("never asked"))
        store.gate.set()


async def test_a_store_that_fails_after_each_recovery_is_tried_less_and_less(path: Path) -> None:
    """As with broken pages: what tells whether it works again does not meet them. It must not flap all the time."""

    class Spoiled(BrokenStore):
        def write(self, batch: Batch) -> Answers:
            self.fault = StoreError("database disk image is malformed") if batch.opened else None
            return super().write(batch)

    store = Spoiled(path)
    async with running(store, waits=Waits(retry=0.002, settle=0.01)) as ledger:
        begun = time.monotonic()
        for number in range(6):
            await until(lambda: not ledger.state.degraded)
            with pytest.raises(StorageUnavailable):
                await ledger.open(call(f"c{number}"), attempt(f"c{number}"))
        assert time.monotonic() - begun > 0.002 * (1 + 2 + 4 + 8 + 16)
        assert store.tries < 40
        await until(lambda: not ledger.state.degraded)


async def test_a_cancelled_open_may_be_repeated(path: Path) -> None:
    """The first candidate's attempt was cancelled while it asked; the next one opens the same call."""
    store = GatedStore(path)
    async with running(store) as ledger:
        for name, is_late in (("early", False), ("late", True)):
            if is_late:
                store.gate.clear()
                store.waiting.clear()
            else:
                await blocked(ledger, store)
            first = asyncio.create_task(ledger.open(call(name), attempt(name)))
            await (until(store.waiting.is_set) if is_late else asyncio.sleep(0))
            first.cancel()
            await asyncio.wait([first])
            second = asyncio.create_task(ledger.open(call(name), attempt(name, 2)))
            await asyncio.sleep(0)
            store.gate.set()
            await second
            await settle(ledger, name, seq=2)
        assert (ledger.state.open_calls, ledger.state.reserved_nano, ledger.state.lost) == (0, 0, 0)
    found = rows(path, "SELECT id, outcome, attempts, cost_nano FROM calls WHERE id <> 'in-the-way' ORDER BY id")
    assert [tuple(row.values()) for row in found] == [("early", "ok", 1, 300), ("late", "ok", 2, 300)]


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_call_whose_open_was_cancelled_may_be_rejected(path: Path, is_late: bool) -> None:
    """Its deadline passed: one row either way, and nothing stays open."""
    store = GatedStore(path)
    async with running(store) as ledger:
        if is_late:
            store.gate.clear()
        else:
            await blocked(ledger, store)
        opening = asyncio.create_task(ledger.open(call("a"), attempt("a")))
        await (until(store.waiting.is_set) if is_late else asyncio.sleep(0))
        opening.cancel()
        await asyncio.wait([opening])
        ledger.reject(call("a"), call_end("a", Outcome.REJECTED, status=504))
        store.gate.set()
        await until(lambda: ledger.state.pending == 0)
        assert (ledger.state.open_calls, ledger.state.reserved_nano) == (0, 0)
    found = rows(path, "SELECT outcome, status, cost_nano, attempts FROM calls WHERE id = 'a'")
    assert [tuple(row.values()) for row in found] == [("rejected", 504, 0, int(is_late))]


async def test_a_call_whose_open_was_cancelled_is_settled_by_its_other_seat(path: Path) -> None:
    """Its row came with the seat that was granted; the end is waited for, and nothing stays open."""
    store = GatedStore(path)
    async with running(store) as ledger:
        await blocked(ledger, store)
        opening = asyncio.create_task(ledger.open(call("a"), attempt("a")))
        await asyncio.sleep(0)
        seat = asyncio.create_task(ledger.intend(attempt("a", 2, seat=1)))
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
        store.gate.set()
        await seat
        await settle(ledger, "a", seq=2)
        assert outcomes(path)["a"] == "ok"
        assert (ledger.state.open_calls, ledger.state.reserved_nano) == (0, 0)


async def test_a_call_that_was_never_granted_is_forgotten_by_its_settlement(path: Path) -> None:
    """Its only seat was cancelled while it asked: no row, no wait, nothing kept in memory."""
    store = GatedStore(path)
    async with running(store, waits=Waits(settle=60)) as ledger:
        await blocked(ledger, store)
        opening = asyncio.create_task(ledger.open(call("a"), attempt("a")))
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
        async with asyncio.timeout(1):
            await ledger.settle(call_end("a", Outcome.TIMEOUT_TOTAL))
        store.gate.set()
        await until(lambda: ledger.state.pending == 0)
        assert (ledger.state.open_calls, ledger.state.reserved_nano) == (0, 0)
    assert "a" not in outcomes(path)


async def test_a_start_waits_for_a_locked_store(tmp_path: Path) -> None:
    """As long as its patience lasts; then the error says why."""
    path = tmp_path / "usage.db"
    store = SqliteStore(path)
    store.open()
    store.close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        impatient = Ledger(SqliteStore(path, busy_s=0.05), waits=Waits(start=0.1))
        with pytest.raises(StoreBusy, match="locked"):
            await impatient.start()
        patient = Ledger(SqliteStore(path, busy_s=0.05))
        starting = asyncio.create_task(patient.start())
        done, _ = await asyncio.wait([starting], timeout=0.3)
        assert not done
        other.execute("ROLLBACK")
    await starting
    assert not patient.state.degraded
    await patient.stop()
