"""Books over a real file, in any order of events: no attempt is lost or doubled, and the holds always add up."""

from __future__ import annotations

import faulthandler
import random
import tempfile
from asyncio import Future
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from proxy.metering.books import Books, Intent
from proxy.schema.errors import StorageUnavailable
from proxy.schema.records import AttemptEnd, AttemptOpen, CallEnd, CallOpen, Outcome, Tokens
from proxy.storage.base import Answers, Refusal, RowRefused
from proxy.storage.sqlite import SqliteStore
from tests.storage.samples import FAST_FOLDER, HOLD_NANO, attempt, attempt_end, call, call_end, rows

STEPS = 30
SHARED = 250  # interleavings on one file
ENDS = (Outcome.OK, Outcome.UPSTREAM_ERROR, Outcome.CLIENT_CLOSED, Outcome.TIMEOUT_IDLE)
UNSENT: dict[str, Any] = {"tokens": Tokens(), "usage_source": "none", "cost_nano": 0}


class Try:
    """What the rules of the design say of one attempt. `sent`: it was granted to a caller who still waited."""

    def __init__(self, intent: Intent) -> None:
        self.intent = intent
        self.id = intent.attempt.id
        self.is_asking = True
        self.sent = False
        self.end: Outcome | None = None
        self.was_withdrawn = False


class Asked:
    """What they say of one call. `settled`: the caller was told that its end is committed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tries: list[Try] = []
        self.end: Outcome | None = None
        self.settled = False
        self.was_killed = False


class Interleaving:
    """Callers with several attempts at a time, commits that fail or lose their answer, and restarts, by one seed."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.seed = seed
        self.dice = random.Random(seed)
        self.refuses = self.dice.random() < 0.7
        self.calls: list[Asked] = []
        self.waiting: dict[int, tuple[Any, Try | Asked]] = {}
        self._start()

    def _start(self) -> None:
        self.store = SqliteStore(self.path)
        self.store.open()
        self.store.sweep(7)
        self.books = Books(lambda: 5, self.refuses)

    def run(self) -> None:
        events = (self.open, self.intend, self.intend, self.cancel, self.end, self.end, self.close, self.commit)
        for _ in range(STEPS):
            self.dice.choice((*events, *events, self.commit, self.fail, self.fail, self.lose, self.lose, self.misuse))()
            if self.dice.random() < 0.02:
                self.restart()
            self.check_holds()
        self.commit()
        self.check_holds()
        self.check_rows()
        self.restart()
        assert self.books.reserved_nano == 0
        assert self._rows("calls", "closed_ns IS NULL") == self._rows("attempts", "closed_ns IS NULL") == []
        self.store.close()

    # --- what callers do ----------------------------------------------------------------------------------------------

    def open(self) -> None:
        asked = Asked(f"{self.seed}.{len(self.calls)}")
        self.calls.append(asked)
        self._ask(asked, self.books.open)

    def intend(self) -> None:
        """Sometimes as an `open` once more, as where the first one was cancelled."""
        if asked := self._pick(self.live()):
            self._ask(asked, self.books.open if self.dice.random() < 0.2 else self.books.intend)

    def cancel(self) -> None:
        """The caller of an attempt that still asks is cancelled."""
        if each := self._pick([each for asked in self.live() for each in asked.tries if each.is_asking]):
            self._withdraw(each, Outcome.CANCELLED)

    def end(self) -> None:
        """An attempt ends; also one that ended before, or that has just asked (then it is over before it began)."""
        each = self._pick([each for asked in self.live() for each in asked.tries if each.sent or each.is_asking])
        if each is not None:
            self._end(each)

    def close(self) -> None:
        """A call ends; most of its attempts ended before it, and some are left without an end."""
        asked = self._pick(self.live())
        if asked is None:
            return
        for each in asked.tries:
            if each.sent and self.dice.random() < 0.8:
                self._end(each)
            elif each.is_asking and self.dice.random() < 0.5:
                self._withdraw(each, Outcome.CLIENT_CLOSED)
        asked.end = self.dice.choice(ENDS)
        self.books.close(call_end(asked.name, asked.end), self._future(asked))
        self.books.close(call_end(asked.name, Outcome.CANCELLED), None)  # the first end stands
        for each in asked.tries:
            each.is_asking = False

    def misuse(self) -> None:
        """Used ids and calls that are not there harm nobody."""
        if asked := self._pick(self.live()):
            assert self._refused(self.books.open, Intent(attempt(asked.name), call(asked.name, opened_ns=1)))
            if asked.tries[0].is_asking or asked.tries[0].sent:
                assert self._refused(self.books.intend, Intent(attempt(asked.name)))
        self.books.end(attempt_end("nobody"))
        self.books.close(call_end("nobody"), None)

    # --- what the store does ------------------------------------------------------------------------------------------

    def commit(self) -> None:
        self.books.committed(self._write())
        self._hear()

    def fail(self) -> None:
        self.books.failed()
        self._hear()

    def lose(self) -> None:
        """Everything is committed, and nobody is told."""
        self._write()
        self.books.failed()
        self._hear()

    def restart(self) -> None:
        """Whatever was in memory is gone; the next process sweeps."""
        doubtful = {each.call_id for each in self.books.batch.withdrawn.values()}  # committed, and nobody knew
        for asked in self.calls:
            asked.was_killed |= not asked.settled or asked.name in doubtful
        self.waiting.clear()
        self.store.close()
        self._start()

    # --- what must be true --------------------------------------------------------------------------------------------

    def check_holds(self) -> None:
        """At any moment."""
        assert self.books.reserved_nano == sum(entry.hold_nano or 0 for entry in self.books.calls.values())
        for entry in self.books.calls.values():
            assert entry.hold_nano == (entry.cost_nano or 0) + HOLD_NANO * len(entry.running)
            assert entry.running.keys() <= entry.started.keys()

    def check_rows(self) -> None:
        """After a commit: rows, books, and what callers were told, one by one."""
        calls = {row["id"]: row for row in self._rows("calls")}
        attempts = {row["id"]: row for row in self._rows("attempts")}
        assert len(attempts) == len(self._rows("attempts"))
        is_open = {name: row["hold_nano"] for name, row in calls.items() if row["closed_ns"] is None}
        assert is_open == {name: each.hold_nano for name, each in self.books.calls.items() if each.opening is None}
        assert sum(is_open.values()) == self.books.reserved_nano
        assert not any(each.started for each in self.books.calls.values() if each.opening is not None)
        running = {attempt_id for each in self.books.calls.values() for attempt_id in each.running}
        assert {name for name, row in attempts.items() if row["closed_ns"] is None} == running
        for asked in self.calls:
            self._check_call(asked, calls.get(asked.name), attempts)

    def _check_call(self, asked: Asked, row: dict[str, Any] | None, attempts: dict[str, dict[str, Any]]) -> None:
        own = [attempts[each.id] for each in asked.tries if each.id in attempts]
        assert len(own) == sum(name.startswith(f"{asked.name}-") for name in attempts)
        for each in asked.tries:
            self._check_attempt(asked, each, attempts.get(each.id))
        if row is None:
            assert not own
            return
        assert own
        if row["closed_ns"] is not None:
            assert row["outcome"] == asked.end or (asked.was_killed and row["outcome"] == "unknown")
            assert (row["attempts"], row["cost_nano"]) == (len(own), sum(each["cost_nano"] for each in own))
            assert row["output_tokens"] == sum(each["output"] for each in own)
        else:
            assert asked.end is None

    def _check_attempt(self, asked: Asked, each: Try, row: dict[str, Any] | None) -> None:
        if row is None:  # nothing that was sent is lost, but by a kill while `unmetered` lets calls out without a row
            assert not each.sent or (asked.was_killed and not self.refuses)
        elif not each.sent:
            assert row["cost_nano"] == 0 or (asked.was_killed and row["outcome"] == "unknown")
        elif row["closed_ns"] is not None and each.end is not None:
            assert row["outcome"] == each.end or (asked.was_killed and row["outcome"] == "unknown")
            assert row["cost_nano"] == (HOLD_NANO if row["outcome"] == "unknown" else 300)
        elif row["closed_ns"] is not None:
            assert (row["outcome"], row["cost_nano"]) == ("unknown", HOLD_NANO)

    # --- within -------------------------------------------------------------------------------------------------------

    def live(self) -> list[Asked]:
        return [asked for asked in self.calls if asked.end is None and not asked.was_killed]

    def _pick(self, choices: list[Any]) -> Any:
        return self.dice.choice(choices) if choices else None

    def _ask(self, asked: Asked, operation: Any) -> None:
        seq = len(asked.tries) + 1
        parent = asked.tries[-1].id if asked.tries and self.dice.random() < 0.3 else None
        opening = call(asked.name) if operation == self.books.open else None
        intent = Intent(attempt(asked.name, seq, parent=parent, seat=seq % 3), opening)
        each = Try(intent)
        asked.tries.append(each)
        intent.future = self._future(each)
        operation(intent)

    def _withdraw(self, each: Try, outcome: Outcome) -> None:
        each.is_asking, each.was_withdrawn = False, True
        end = AttemptEnd(each.id, each.intent.attempt.call_id, outcome)
        self.books.withdraw(each.intent, end, None)

    def _end(self, each: Try) -> None:
        outcome = self.dice.choice(ENDS)
        self.books.end(attempt_end(each.intent.attempt.call_id, each.intent.attempt.seq, outcome))
        if each.sent:
            each.end = each.end or outcome
        each.is_asking = False

    def _future(self, asking: Try | Asked) -> Future[None]:
        future: Any = object()  # only passed through
        self.waiting[id(future)] = (future, asking)
        return cast("Future[None]", future)

    def _hear(self) -> None:
        answers, self.books.answers = self.books.answers, []
        for future, error in answers:
            assert isinstance(error, Refusal | StorageUnavailable | None)
            _, asking = self.waiting.pop(id(future), (None, None))
            if isinstance(asking, Asked):
                assert error is None
                asking.settled = True
            elif isinstance(asking, Try) and asking.is_asking:
                asking.is_asking, asking.sent = False, error is None

    def _write(self) -> Answers:
        answers = self.store.write(self.books.batch)
        assert answers == Answers()
        return answers

    def _refused(self, operation: Any, intent: Intent) -> bool:
        try:
            operation(intent)
        except RowRefused:
            return True
        return False

    def _rows(self, table: str, where: str = "1") -> list[dict[str, Any]]:
        return rows(self.path, f"SELECT * FROM {table} WHERE {where} AND id GLOB ?", f"{self.seed}.*")


@contextmanager
def files(count: int) -> Iterator[list[tuple[Path, int]]]:
    """A file and a seed for each interleaving."""
    with tempfile.TemporaryDirectory(dir=FAST_FOLDER) as folder:
        yield [(Path(folder) / f"{seed // SHARED}.db", seed) for seed in range(count)]


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_interleaving_loses_or_doubles_an_attempt(count: int) -> None:
    """Attempts side by side, cancelled, failing and lost commits, restarts: rows are what callers were told."""
    faulthandler.cancel_dump_traceback_later()  # thousands of them take longer than a test usually may
    with files(count) as places:
        for path, seed in places:
            interleaving = Interleaving(path, seed)
            try:
                interleaving.run()
            except BaseException as error:
                error.add_note(f"seed {seed}, when the store is down: {'refuse' if interleaving.refuses else 'serve'}")
                raise
    print(f"\n  {count} interleavings of {STEPS} events: 0 failed")


def test_an_end_of_an_attempt_that_is_not_committed_takes_it_back(tmp_path: Path) -> None:
    """Once ended, it is no longer waited for: a store that fails then finds nothing to refuse."""
    store = SqliteStore(tmp_path / "x.db")
    store.open()
    books = Books(lambda: 5, refuses=True)
    books.open(Intent(attempt("a"), call("a")))
    books.committed(store.write(books.batch))
    books.intend(Intent(attempt("a", 2)))
    books.end(attempt_end("a", 2, Outcome.CANCELLED, **UNSENT))
    books.intend(Intent(attempt("a", 3)))
    books.failed()
    assert books.reserved_nano == HOLD_NANO
    books.committed(store.write(books.batch))
    assert [row["seq"] for row in rows(tmp_path / "x.db", "SELECT seq FROM attempts")] == [1]
    store.close()


def test_a_call_holds_at_least_the_bound_of_its_plan() -> None:
    """What has not begun is reserved too; what was paid beyond the bound comes on top of it."""
    books = Books(lambda: 0, refuses=True)
    call = CallOpen("c", 1, None, "m", stream=False, bound_nano=100)
    first, second = (AttemptOpen(f"c-{seq}", "c", seq, "a", "m", 1, hold_nano=60) for seq in (1, 2))
    books.open(Intent(first, call))
    assert books.reserved_nano == 100
    books.intend(Intent(second))
    assert books.reserved_nano == 120
    books.close(CallEnd("c", Outcome.OK, 200), None)
    assert books.reserved_nano == 0


def test_figures_of_windows_that_are_long_over_are_dropped() -> None:
    """In place, since others read the same mapping."""
    books = Books(lambda: 10**18, refuses=True)
    known = books.spending
    known |= {("hour", 5): (1, 0), ("hour", 10**18 - 10**12): (2, 0), ("total", 0): (3, 0)}
    books.forget_windows()
    assert known == {("hour", 10**18 - 10**12): (2, 0), ("total", 0): (3, 0)}
