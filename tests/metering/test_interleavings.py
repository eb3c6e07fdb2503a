"""The whole ledger, its thread included: calls with several seats, cancels, a store that fails at random, restarts."""

from __future__ import annotations

import asyncio
import faulthandler
import random
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.metering.ledger import Ledger
from proxy.metering.writer import Waits
from proxy.schema.records import Charge, Outcome
from proxy.storage.base import Answers, BudgetRefused, StoreError
from proxy.storage.batch import Batch
from proxy.storage.sqlite import SqliteStore
from tests.storage.samples import FAST_FOLDER, HOLD_NANO, attempt, attempt_end, call, call_end, rows

HARD_NANO = 14 * HOLD_NANO  # of money that does not last: some attempts are refused
ALL = Charge("daily", 0, 0, HARD_NANO)
SLIDING = Charge("last_24h", 600, 0, HARD_NANO * 3)
KEY = Charge("key key total", 0, 0, 10**12, pays=True)
PROVIDER = Charge("provider openai daily", 0, 0, HARD_NANO + 2 * HOLD_NANO)
ABREAST = 20
CALLS_PER_PROCESS = 100
WAITS = Waits(retry=0.001, gather=0.001)


class Moody(SqliteStore):
    """One write in ten fails, and of one in ten the answer is lost."""

    def __init__(self, path: Path, seed: int) -> None:
        super().__init__(path)
        self.is_calm = True
        self.most_booked = 0
        self._dice = random.Random(seed)

    def write(self, batch: Batch) -> Answers:
        mood = 1.0 if self.is_calm else self._dice.random()
        if mood < 0.1:
            raise StoreError("database or disk is full")
        answers = super().write(batch)
        self.most_booked = max(self.most_booked, sum(answers.spending.get((ALL.budget, 0), (0, 0))))
        if self.most_booked:
            check_budgets(self._path)
        if mood < 0.2:
            raise StoreError("the connection was reset at COMMIT")
        return answers


class Caller:
    """One call with a few seats that try again when they fail. It notes what it sent and what it told the ledger."""

    def __init__(self, name: str, *, is_charged: bool = False) -> None:
        self.name = name
        self.is_charged = is_charged
        self.refusals = 0
        self.sent: dict[str, Outcome | None] = {}
        self.outcome: Outcome | None = None
        self.was_killed = False
        self._dice = random.Random(name)
        self._seqs = 0

    async def run(self, ledger: Ledger) -> None:
        """Sometimes its client leaves at a random moment, and sometimes its process is gone in the middle of it."""
        serving = asyncio.create_task(self._serve(ledger))
        if self._dice.random() < 0.3:
            for _ in range(self._dice.randrange(40)):
                await asyncio.sleep(0)
            serving.cancel()
        await asyncio.wait([serving])
        if self.was_killed:
            return
        for attempt_id, end in self.sent.items():
            if end is None and self._dice.random() < 0.8:
                self._end(ledger, attempt_id, Outcome.CANCELLED)
        leaves = serving.cancelled()
        self.outcome = (
            Outcome.CLIENT_CLOSED if leaves else Outcome.UPSTREAM_ERROR if serving.exception() else Outcome.OK
        )
        if leaves or self._dice.random() < 0.2:
            ledger.close(call_end(self.name, self.outcome))
        else:
            await ledger.settle(call_end(self.name, self.outcome))

    async def _serve(self, ledger: Ledger) -> None:
        opening = self._opening()
        charges = (ALL, SLIDING, KEY) if self.is_charged else ()
        bound_nano = self._dice.choice((0, 2 * HOLD_NANO)) if self.is_charged else 0
        try:
            await ledger.open(call(self.name, charges=charges, bound_nano=bound_nano), opening)
        except BudgetRefused:
            self.refusals += 1
            raise
        self.sent[opening.id] = None
        self.was_killed = self._dice.random() < 0.02
        async with asyncio.TaskGroup() as group:
            group.create_task(self._seat(ledger, opening.id))
            for _ in range(self._dice.randrange(3)):
                group.create_task(self._seat(ledger, None))

    async def _seat(self, ledger: Ledger, running: str | None) -> None:
        while True:
            if running is None:
                opening = self._opening()
                try:
                    await ledger.intend(opening)
                except BudgetRefused:
                    self.refusals += 1
                    raise
                running = opening.id
                self.sent[running] = None
            for _ in range(self._dice.randrange(5)):
                await asyncio.sleep(0)
            if self.was_killed:
                return
            luck = self._dice.random()
            self._end(ledger, running, Outcome.OK if luck < 0.6 else Outcome.UPSTREAM_ERROR)
            running = None
            if luck < 0.6:
                return
            if luck > 0.9:
                raise ConnectionError("the other seats are cancelled")

    def _opening(self) -> Any:
        self._seqs += 1
        return attempt(self.name, self._seqs, charges=(PROVIDER,) if self.is_charged else ())

    def _end(self, ledger: Ledger, attempt_id: str, outcome: Outcome) -> None:
        self.sent[attempt_id] = outcome
        ledger.end(attempt_end(self.name, int(attempt_id.rpartition("-")[2]), outcome))


@asynccontextmanager
async def process(path: Path, seed: int, when_down: str) -> AsyncIterator[Ledger]:
    """A ledger on the file, as a process has it; calls that are open at its end become `unknown` at the next start."""
    store = Moody(path, seed)
    ledger = Ledger(store, when_down=when_down, waits=WAITS)
    await ledger.start()
    store.is_calm = False
    yield ledger
    store.is_calm = True
    async with asyncio.timeout(10):
        while ledger.state.pending:  # noqa: ASYNC110 - the writer is a thread
            await asyncio.sleep(0.001)
    assert not ledger.state.is_dead
    found = rows(path, "SELECT IFNULL(SUM(hold_nano), 0) AS held, COUNT(*) AS n FROM calls WHERE closed_ns IS NULL")
    assert found == [{"held": ledger.state.reserved_nano, "n": ledger.state.open_calls}]
    check_budgets(path)
    if when_down == "refuse":
        assert store.most_booked <= HARD_NANO
    await ledger.stop()


def check_budgets(path: Path) -> None:
    """In each window, what is reserved is the sum of the open holds, and what is spent the sum of the costs."""
    calls = "SELECT SUM(CASE WHEN closed_ns IS NULL THEN hold_nano END), SUM({spent}) FROM calls"
    expected = {
        ALL: calls.replace("{spent}", "cost_nano"),
        SLIDING: calls.replace("{spent}", "cost_nano"),
        KEY: calls.replace("{spent}", "charged_nano"),
        PROVIDER: "SELECT SUM(CASE WHEN closed_ns IS NULL THEN hold_nano END), SUM(cost_nano) FROM attempts",
    }
    booked = {row["budget"]: row for row in rows(path, "SELECT * FROM spending")}
    for charge, sql in expected.items():
        if charge.budget in booked:
            reserved, spent = (value or 0 for value in rows(path, sql)[0].values())
            found = booked[charge.budget]
            assert (found["start_ns"], found["reserved_nano"], found["spent_nano"]) == (
                charge.start_ns,
                reserved,
                spent,
            )


def check(path: Path, callers: list[Caller], facts: Counter[str]) -> None:
    """What was sent has one row that says what was told; what was not sent cost nothing; sums are right."""
    calls = {row["id"]: row for row in rows(path, "SELECT * FROM calls")}
    attempts = {row["id"]: row for row in rows(path, "SELECT * FROM attempts")}
    assert rows(path, "SELECT COUNT(*) AS n FROM attempts") == [{"n": len(attempts)}]
    sums: dict[str, list[int]] = {name: [0, 0] for name in calls}
    for row in attempts.values():
        sums[row["call_id"]][0] += 1
        sums[row["call_id"]][1] += row["cost_nano"]
    for caller in callers:
        for attempt_id, outcome in caller.sent.items():
            row = attempts.pop(attempt_id)
            assert row["outcome"] == (outcome or "unknown")
            assert row["cost_nano"] == (HOLD_NANO if outcome is None else 300)
        call_row = calls.pop(caller.name, None)
        assert (call_row is not None) >= bool(caller.sent)
        if call_row is not None:
            assert call_row["outcome"] == (caller.outcome or "unknown")
            assert [call_row["attempts"], call_row["cost_nano"]] == sums[caller.name]
        facts["attempts sent"] += len(caller.sent)
        facts["calls killed"] += caller.was_killed
    assert calls == {}
    assert {(row["outcome"], row["cost_nano"]) for row in attempts.values()} <= {("cancelled", 0), ("rejected", 0)}
    facts["attempts that cost nothing"] += len(attempts)


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("when_down", ["refuse", "unmetered"])
@pytest.mark.parametrize("is_charged", [False, True])
@pytest.mark.sampled(3)
async def test_callers_side_by_side_lose_and_double_nothing(count: int, when_down: str, is_charged: bool) -> None:
    """Whatever fails and whoever leaves: holds add up, every row is as it was told, budgets hold, the writer lives."""
    faulthandler.cancel_dump_traceback_later()  # thousands of them take longer than a test usually may
    facts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir=FAST_FOLDER) as folder:
        for seed in range(count // CALLS_PER_PROCESS):
            path = Path(folder) / f"{seed}.db"
            callers = [Caller(f"{seed}.{number}", is_charged=is_charged) for number in range(CALLS_PER_PROCESS)]
            async with process(path, seed, when_down) as ledger:
                for start in range(0, CALLS_PER_PROCESS, ABREAST):
                    await asyncio.gather(*(each.run(ledger) for each in callers[start : start + ABREAST]))
            async with process(path, seed, when_down) as ledger:
                assert (ledger.state.open_calls, ledger.state.reserved_nano) == (0, 0)
                facts["calls swept"] += ledger.state.swept
            check(path, callers, facts)
            check_budgets(path)
            facts["attempts without room"] += sum(caller.refusals for caller in callers)
    assert (facts["attempts without room"] > 0) == is_charged
    print(f"\n  {count} calls, when the store is down: {when_down}; {dict(facts)}; 0 failed")
