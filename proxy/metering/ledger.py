"""Orchestrates: the money ledger. A call is stored before its request is sent, and settled before its answer ends.

    event loop   open, intend, end, settle, close, reject -> one FIFO
    writer       drains the FIFO -> batch -> one commit -> wakes all waiters in one loop callback

Pending changes are bounded. With `refuse`, only calls that were open when the store failed add to them, because no new
ones are admitted. Rejected calls, and new calls with `unmetered`, are kept up to `max_pending` changes and beyond that
only counted (`lost`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from msgspec import Struct
from structlog.typing import FilteringBoundLogger

from proxy.metering.books import Books, Intent
from proxy.metering.ratings import Ratings
from proxy.metering.same_wait import SameWait
from proxy.metering.usage_queries import UsageQueries
from proxy.metering.writer import Waits, Writer
from proxy.schema.ensembles import EnsembleCall, EnsembleQuery, Rating, StoredRating
from proxy.schema.errors import StorageUnavailable
from proxy.schema.queries import CallDetails, LogQuery, UsageQuery
from proxy.schema.records import AttemptEnd, AttemptOpen, CallEnd, CallOpen, Crossing, Outcome, PastCall
from proxy.storage.base import Store

T = TypeVar("T")


class LedgerState(Struct, frozen=True):
    """For `/livez`, `/readyz` and metrics. `pending`: changes not committed yet.

    `swept`: calls of dead owners closed as `unknown`. `lost`: calls whose end has no row, because the store was down
    for too long or refused their values. `is_dead`: the writer has died, and only a new process can meter again.
    """

    degraded: bool
    pending: int
    open_calls: int
    reserved_nano: int
    commits: int
    lost: int
    swept: int
    is_dead: bool = False


class Ledger:
    """One per process, on one event loop. `when_down`: `refuse` calls that cannot be metered, or serve `unmetered`."""

    def __init__(
        self,
        store: Store,
        *,
        when_down: str = "refuse",
        clock_ns: Callable[[], int] = time.time_ns,
        waits: Waits | None = None,
        max_pending: int = 10_000,
        on_death: Callable[[], None] | None = None,
    ) -> None:
        self._refuses = when_down == "refuse"
        self._waits = waits or Waits()
        self._max_pending = max_pending
        self._books = Books(clock_ns, self._refuses)
        self._writer = Writer(store, self._books, clock_ns, self._waits, on_death)
        self._put = self._writer.put
        self._queries = UsageQueries(store)
        self._ratings = Ratings(store, clock_ns)
        self._calls: dict[str, bool] = {}  # until settled or closed; True once one of its attempts was granted
        self._stopping = False
        self._turned_away = 0

    @property
    def state(self) -> LedgerState:
        books, writer = self._books, self._writer
        return LedgerState(
            degraded=writer.is_degraded or writer.is_dead,
            pending=writer.pending,
            open_calls=len(books.calls),
            reserved_nano=books.reserved_nano,
            commits=writer.commits,
            lost=books.lost + self._turned_away,
            swept=writer.swept,
            is_dead=writer.is_dead,
        )

    async def start(self) -> None:
        """Opens the store, settles the calls of dead owners, starts the writer. Raises StoreError: path and fix."""
        await self._writer.start()
        loop, waits = self._writer.loop, self._waits
        self._opening = SameWait(loop, waits.open, lambda future: future.set_exception(StorageUnavailable()))
        self._settling = SameWait(loop, waits.settle, lambda future: future.set_result(None))

    async def open(self, call: CallOpen, attempt: AttemptOpen) -> None:
        """Grants a call and its first attempt once both are committed, in one transaction.

        Raises StorageUnavailable, or the store's Refusal: BudgetRefused, or RowRefused for a used id. Then there is no
        call to end or close. If this is cancelled, the caller must close the call.
        """
        was_known = call.id in self._calls
        self._calls.setdefault(call.id, False)
        try:
            await self._admit(Intent(attempt, call))
        except asyncio.CancelledError:
            raise
        except Exception:
            if not was_known:
                self._calls.pop(call.id, None)
            raise
        self._granted(attempt)

    async def intend(self, attempt: AttemptOpen) -> None:
        """Grants one more attempt of an open call once its intent is committed. Raises as `open` does.

        If it raises or is cancelled, the attempt must not be sent, and needs no end.
        """
        await self._admit(Intent(attempt))
        self._granted(attempt)

    async def freed(self, wait_s: float) -> None:
        """Returns when a call or an attempt of this process has ended, or after `wait_s`."""
        future = self._writer.loop.create_future()
        self._put(self._books.watch, future)
        await asyncio.wait({future}, timeout=wait_s)

    @property
    def spending(self) -> Mapping[tuple[str, int], tuple[int, int]]:
        """Spent and reserved nano-USD by budget and start of its window, as last seen by this process."""
        return self._books.spending

    def watch_shares(self, shares: Iterable[float]) -> None:
        """From now on, reports when spending reaches one of these shares of a budget's limit."""
        self._writer.crossings.watch(shares)

    def on_crossing(self, report: Callable[[Crossing], None]) -> None:
        """Sets the receiver of these reports. It runs on the event loop, at least once for each share of a window."""
        self._writer.on_crossing = report

    def log_to(self, log: FilteringBoundLogger) -> None:
        """Sets the log of the ledger's thread."""
        self._writer.log = log

    def end(self, end: AttemptEnd) -> None:
        """Ends one attempt. Committed with its call's next change, or shortly after. Only the first end counts."""
        self._put(self._books.end, end)

    async def settle(self, end: CallEnd) -> None:
        """Returns once the end is committed, or after `Waits.settle`; while the store is down, the end is kept.

        The ends of the call's attempts must come first. Only the first end of a call counts; a later one waits for it.
        Returns at once for calls that `open` did not admit.
        """
        if self._writer.is_dead or end.call_id not in self._calls:
            return
        if not self._calls[end.call_id]:
            self.close(end)
            return
        future = self._writer.loop.create_future()
        self._put(self._books.close, end, future)
        self._settling.watch(future)
        try:
            await future
        finally:
            self._calls.pop(end.call_id, None)

    def close(self, end: CallEnd) -> None:
        """Like `settle`, without waiting: for `finally` and cancellation.

        A call without a granted attempt leaves no row, because nothing was sent.
        """
        self._calls.pop(end.call_id, None)
        self._put(self._books.close, end, None)

    def reject(self, call: CallOpen, end: CallEnd) -> None:
        """Records a call that was refused before any attempt. Its row is committed shortly after."""
        self._calls.pop(call.id, None)
        if self._has_room():
            self._put(self._books.reject, call, end)

    async def usage(self, query: UsageQuery) -> dict[str, Any]:
        """`{"total", "groups"}` of `GET /v1/usage`. Raises as `UsageQueries.read` does."""
        return await self._queries.read(query)

    async def read_spending(self) -> Mapping[tuple[str, int], tuple[int, int]]:
        """The figures of all budget windows, over all processes. Raises as `UsageQueries.read` does."""
        return await self._queries.spending()

    async def past_call(self, call_id: str, key_id: str | None) -> dict[str, Any] | None:
        """One call with its attempts, if it is of this key (None: any key). Raises as `UsageQueries.read` does."""
        return await self._queries.call(call_id, key_id)

    async def details(self, call_id: str) -> CallDetails:
        """What is kept of a call besides its row. Raises as `UsageQueries.read` does."""
        return await self._queries.details(call_id)

    async def log(self, query: LogQuery) -> list[dict[str, Any]]:
        """The rows of `GET /v1/requests`. Raises as `UsageQueries.read` does."""
        return await self._queries.log(query)

    async def latest(self, count: int) -> list[PastCall]:
        """The last calls that reached a provider, newest first. Raises as `UsageQueries.read` does."""
        return await self._queries.latest(count)

    async def ensemble_calls(self, query: EnsembleQuery, then: Callable[[list[EnsembleCall]], T]) -> T:
        """Applies `then` to the last calls of an ensemble, in a thread. Raises as `UsageQueries.read` does."""
        return await self._queries.ensemble_calls(query, then)

    async def rate(self, rating: Rating, key_id: str | None) -> StoredRating | None:
        """Stores a rating of a call of this key (None: of any key). Returns and raises as `Ratings.add` does."""
        return await self._ratings.add(rating, key_id)

    async def stop(self) -> None:
        """Writes pending changes, for about `Waits.stop` seconds at most, and closes the store.

        Calls that are still open become `unknown` at the next sweep of any process.
        """
        self._stopping = True
        self._queries.close()
        self._ratings.close()
        await self._writer.stop()

    def _granted(self, attempt: AttemptOpen) -> None:
        if attempt.call_id in self._calls:
            self._calls[attempt.call_id] = True

    async def _admit(self, intent: Intent) -> None:
        """Returns once the intent is granted."""
        if self._stopping or ((self._writer.is_degraded or self._writer.is_dead) and self._refuses):
            raise StorageUnavailable
        if self._writer.is_degraded or self._writer.is_dead:
            if self._has_room():
                intent.grant()
                self._put_intent(intent)
            return
        intent.future = future = self._writer.loop.create_future()
        self._put_intent(intent)
        self._opening.watch(future)
        try:
            await future
        except StorageUnavailable:
            if not self._refuses:
                self._put(self._books.waive, intent)
                return
            self._withdraw(intent, Outcome.REJECTED, "storage_unavailable")
            raise
        except asyncio.CancelledError:
            self._withdraw(intent, Outcome.CANCELLED)
            raise

    def _withdraw(self, intent: Intent, outcome: Outcome, code: str | None = None) -> None:
        """Withdraws an attempt that will not be sent: it gets no row, or one without usage."""
        attempt = intent.attempt
        end = AttemptEnd(attempt.id, attempt.call_id, outcome, error_code=code)
        closing = CallEnd(attempt.call_id, outcome, status=503, error_code=code) if code else None
        self._put(self._books.withdraw, intent, end, closing)
        self._writer.hand_over()  # before the intent is committed, if it is not yet

    def _put_intent(self, intent: Intent) -> None:
        self._put(self._books.open if intent.call else self._books.intend, intent)

    def _has_room(self) -> bool:
        if self._writer.pending < self._max_pending and not self._writer.is_dead:
            return True
        self._turned_away += 1
        return False
