"""For any order of events a call has one final state, and the first end stands."""

from __future__ import annotations

import tempfile
from asyncio import Future
from pathlib import Path
from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxy.metering.books import Books, Intent
from proxy.schema.errors import StorageUnavailable
from proxy.schema.records import Outcome
from proxy.storage.base import RowRefused
from proxy.storage.sqlite import SqliteStore
from tests.storage.samples import HOLD_NANO, attempt, attempt_end, call, call_end, rows

CALLS = st.sampled_from(["a", "b", "c"])
ENDS = st.sampled_from([Outcome.OK, Outcome.CLIENT_CLOSED, Outcome.TIMEOUT_IDLE])


class Expected:
    """What the rules of the design say of one call id."""

    def __init__(self) -> None:
        self.row: str | None = None  # the committed or awaited outcome; None: no row
        self.attempts = 0
        self.asking: str | None = None  # "open" or "intend": an intent that is not committed
        self.closing = False  # the end waits for its commit


class Interleavings(RuleBasedStateMachine):
    """Books over a real file: callers act in any order, commits happen and fail at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "calls.db"
        self.store = SqliteStore(self.path)
        self.store.open()
        self.books = Books(lambda: 5, refuses=True)
        self.expected = {name: Expected() for name in ("a", "b", "c")}

    @rule(name=CALLS)
    def open(self, name: str) -> None:
        expected = self.expected[name]
        if self.refused(self.books.open, self.intent(name, call(name))):
            assert expected.asking == "open" or expected.row is not None
        elif expected.row is None or expected.row != "open":
            expected.asking = "open"

    @rule(name=CALLS)
    def intend(self, name: str) -> None:
        expected = self.expected[name]
        if expected.row == "open" and expected.asking is None:
            self.books.intend(self.intent(name, None, expected.attempts + 1))
            expected.asking = "intend"

    @rule(name=CALLS, outcome=ENDS)
    def close(self, name: str, outcome: Outcome) -> None:
        expected = self.expected[name]
        end = attempt_end(name, max(expected.attempts, 1), outcome)
        self.books.close(call_end(name, outcome, attempt=end), None)
        if expected.row == "open":
            expected.row, expected.closing = str(outcome), True
        expected.asking = None

    @rule()
    def commit(self) -> None:
        again = {name for name, e in self.expected.items() if e.asking == "open" and e.row is not None}
        refused = self.store.write(self.books.batch)
        assert set(refused) == again
        self.books.committed(refused)
        for name, expected in self.expected.items():
            if expected.asking and name not in again:
                expected.row = "open"
                expected.attempts += 1
            expected.asking, expected.closing = None, False

    @rule()
    def fail(self) -> None:
        self.books.failed()
        for expected in self.expected.values():
            expected.asking = None

    @invariant()
    def reserved_is_the_sum_of_open_holds(self) -> None:
        assert self.books.reserved_nano == sum(entry.hold_nano or 0 for entry in self.books.calls.values())
        running = sum(len(entry.running) for entry in self.books.calls.values())
        assert self.books.reserved_nano >= HOLD_NANO * running

    def teardown(self) -> None:
        self.commit()
        found = {row["id"]: (row["outcome"], row["attempts"]) for row in rows(self.path, COUNTED)}
        assert found == {name: (e.row, e.attempts) for name, e in self.expected.items() if e.row is not None}
        assert set(self.books.calls) == {name for name, e in self.expected.items() if e.row == "open"}
        assert not self.books.batch
        assert all(isinstance(error, RowRefused | StorageUnavailable | None) for _, error in self.books.answers)
        self.store.close()
        self.directory.cleanup()

    def intent(self, name: str, opening: Any, seq: int = 1) -> Intent:
        ended = None if opening else attempt_end(name, seq - 1, Outcome.UPSTREAM_ERROR)
        intent = Intent(attempt(name, seq), opening, ended)
        intent.future = cast("Future[None]", object())  # only passed through
        return intent

    def refused(self, operation: Any, intent: Intent) -> bool:
        try:
            operation(intent)
        except RowRefused:
            return True
        return False


COUNTED = """
    SELECT id, outcome, (SELECT COUNT(*) FROM attempts WHERE call_id = calls.id) AS attempts FROM calls
"""


class TestInterleavings(Interleavings.TestCase):  # type: ignore[misc,valid-type]  # built at run time
    """The first end of a call stands, each call has one row, and what never left has none."""

    settings = settings(max_examples=60, stateful_step_count=25, deadline=None, derandomize=True, database=None)
