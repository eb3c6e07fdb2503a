"""Orchestrates: the ledger's writer thread. It drains the FIFO into a batch, commits it, and answers the waiters.

Changes that cannot be committed stay in the batch and are retried until they succeed. The thread survives every error,
even in its error handling. If it dies anyway, nothing can be metered any more: `is_dead` is true, and `on_death` is
called so that the process exits and its supervisor starts another.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog
from msgspec import Struct
from structlog.typing import FilteringBoundLogger

from proxy.metering.books import Answer, Books, Intent, Waiter
from proxy.metering.crossings import Crossings
from proxy.schema.errors import StorageUnavailable
from proxy.schema.records import Crossing
from proxy.storage.base import BudgetRefused, Store, StoreBusy, StoreError

_log: FilteringBoundLogger = structlog.get_logger("ledger")
_MAX_DRAIN = 2000  # operations in one commit, so that in a flood the first does not wait for the last
_MAX_RETRY_S = 8.0
_HEALTHY_S = 10.0  # a failure within this time after a recovery counts as the same outage


class Waits(Struct, frozen=True):
    """Seconds. `open`, `settle`: how long a caller waits for the store; `retry`: pause before a store is tried again.

    `gather`: how long ends of attempts wait for their call's next change, to share its commit; `sweep`: interval of
    sweeps for dead owners; `stop`: time for the last changes at shutdown; `start`: patience with a locked store.
    """

    open: float = 5.0
    settle: float = 2.0
    retry: float = 0.25
    gather: float = 0.05
    sweep: float = 30.0
    stop: float = 5.0
    start: float = 20.0


_BUSY = 8  # from this many calls in flight on, a commit waits a moment for others: each costs a wake-up or two
_BUSY_GATHER_S = 0.001
Operation = tuple[Callable[..., None], tuple[Any, ...]]


class Writer:
    """The thread that owns the store's connection and the books."""

    def __init__(
        self,
        store: Store,
        books: Books,
        clock_ns: Callable[[], int],
        waits: Waits,
        on_death: Callable[[], None] | None = None,
    ) -> None:
        self.is_degraded = False
        self.commits = self.swept = 0
        self._store = store
        self._books = books
        self._clock_ns = clock_ns
        self._waits = waits
        self._on_death = on_death
        self._queue: queue.SimpleQueue[list[Operation]] = queue.SimpleQueue()
        self._waiting: list[Operation] = []  # added in this turn of the loop
        self._handed_over = 0  # operations in the queue, as far as the loop knows
        self._taken = 0
        self._thread: threading.Thread | None = None
        self.crossings = Crossings()
        self.on_crossing: Callable[[Crossing], None] = lambda _: None  # called on the loop
        self.log = _log
        self.is_dead = False  # the thread ended without being stopped
        self._retry_at = self._sweep_at = self._gathered_at = self._recovered_at = 0.0
        self._relapses = 0
        self._stop_at: float | None = None

    @property
    def pending(self) -> int:
        """The number of uncommitted operations and changes."""
        return len(self._waiting) + self._handed_over - self._taken + len(self._books.batch)

    async def start(self) -> None:
        """Opens the store, settles the calls of dead owners. Raises StoreError: path and fix."""
        self.loop = asyncio.get_running_loop()
        self._started, self._stopped = self.loop.create_future(), self.loop.create_future()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()
        await self._started

    def put(self, operation: Callable[..., None], *arguments: Any) -> None:
        """Adds an operation on the books to the FIFO. If its last argument is a waiter, it receives any error."""
        self._waiting.append((operation, arguments))
        if len(self._waiting) == 1:  # one turn of the loop wakes the thread only once
            self.loop.call_soon(self.hand_over)

    def hand_over(self) -> None:
        """Passes on the operations added in this turn of the loop, without waiting for its end."""
        if self._waiting:
            operations, self._waiting = self._waiting, []
            self._handed_over += len(operations)
            self._queue.put(operations)

    async def stop(self) -> None:
        """Returns when pending changes are written, or after about `Waits.stop`, in case the disk hangs."""
        if self._stop_at is None:
            self.put(self._begin_stop)
            self.hand_over()
        await asyncio.wait([self._stopped], timeout=2 * self._waits.stop)

    # --- on the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            if self._open():
                self._work()
        except BaseException as error:
            self.is_dead = True
            self._note("ledger_dead", error=_text(error))
            self._tell([(self._started, StoreError(f"the ledger's thread ended: {_text(error)}"))])
            if self._on_death is not None:
                with contextlib.suppress(RuntimeError):
                    self.loop.call_soon_threadsafe(self._on_death)
            self._release()
        self._tell([(self._stopped, None)])

    def _note(self, event: str, **fields: object) -> None:
        try:
            self.log.warning(event, **fields)
        except Exception:  # a log that cannot be written must not stop the metering
            return

    def _release(self) -> None:
        """Answers all waiters of the dead thread: intents are refused, or waived, and ends are released."""
        self._books.give_up()
        with contextlib.suppress(queue.Empty):
            while True:
                for _, arguments in self._queue.get_nowait():
                    last = arguments[-1] if arguments else None
                    if isinstance(last, Intent):
                        self._books.answer(last.future, StorageUnavailable())
                    elif isinstance(last, asyncio.Future):
                        self._books.answer(last)
        self._tell(self._books.answers)

    def _open(self) -> bool:
        """A worker that starts while another process has locked the store waits: if it exited, all workers would."""
        until = time.monotonic() + self._waits.start
        while True:
            try:
                self._store.open()
                self.swept += self._store.sweep(self._clock_ns())
                self._books.spending |= self._store.spending(lambda: False)
                break
            except Exception as error:
                self._store.close()
                if not isinstance(error, StoreBusy) or time.monotonic() > until:
                    self._tell([(self._started, error)])
                    return False
        self._sweep_at = time.monotonic() + self._waits.sweep
        self._tell([(self._started, None)])
        return True

    def _work(self) -> None:
        while not self._is_done():
            try:
                self._turn()
            except Exception as error:  # StoreError or a bug: calls must still be metered
                self._fail(error)
            answers, self._books.answers = self._books.answers, []
            self._tell(answers)
        if self._books.batch:
            self._note("ledger_left_changes_unwritten", changes=len(self._books.batch))
        self._store.close()

    def _turn(self) -> None:
        """Drains the FIFO, waiting if it is empty, and commits."""
        self._drain(max(0.0, self._wake_at() - time.monotonic()))
        now = time.monotonic()
        if self.is_degraded:
            if now >= self._retry_at:
                self._commit()
        elif self._books.batch:
            self._gathered_at = self._gathered_at or now + self._waits.gather
            if self._books.is_urgent or now >= self._gathered_at:
                if len(self._books.calls) >= _BUSY:
                    time.sleep(_BUSY_GATHER_S)
                    self._drain(0.0)
                self._commit()
        if now >= self._sweep_at and not self.is_degraded:
            self._sweep()

    def _wake_at(self) -> float:
        if self.is_degraded:
            return self._retry_at
        if not self._books.batch:
            return self._sweep_at
        return 0.0 if self._books.is_urgent else self._gathered_at

    def _drain(self, wait_s: float) -> None:
        try:
            operations = self._queue.get(timeout=wait_s)
            most = self._taken + _MAX_DRAIN
            while True:
                for operation, arguments in operations:
                    self._apply(operation, arguments)
                self._taken += len(operations)
                if self._taken >= most:
                    return
                operations = self._queue.get_nowait()
        except queue.Empty:
            return

    def _apply(self, operation: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        try:
            operation(*arguments)
        except Exception as error:  # a bad operation only affects its caller
            last = arguments[-1] if arguments else None
            waiter: Waiter = (
                last.future if isinstance(last, Intent) else last if isinstance(last, asyncio.Future) else None
            )
            self._books.answer(waiter, error)
            if waiter is None:
                self._note("ledger_operation_failed", error=_text(error))

    def _commit(self) -> None:
        has_changes = bool(self._books.batch)
        batch = self._books.ready()
        answers = self._store.write(batch)
        self.commits += 1
        self._gathered_at = 0.0
        self._books.committed(answers)
        if answers.spending and (crossings := self.crossings.found(batch, self._books.spending)):
            self._report(crossings)
        for row_id, refusal in [*answers.admissions.items(), *answers.calls.items()]:
            if not isinstance(refusal, BudgetRefused):  # which is not a fault
                self._note("ledger_row_refused", id=row_id, reason=str(refusal))
        if self.is_degraded:
            self.is_degraded = False
            self._recovered_at = time.monotonic()
            self._note("ledger_recovered")
        elif has_changes and self._relapses and time.monotonic() > self._recovered_at + _HEALTHY_S:
            self._relapses = 0

    def _report(self, crossings: list[Crossing]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            for crossing in crossings:
                self.loop.call_soon_threadsafe(self.on_crossing, crossing)

    def _fail(self, error: Exception) -> None:
        """Must not raise. A store that fails right after each recovery is retried at growing intervals."""
        now = time.monotonic()
        was_degraded, self.is_degraded = self.is_degraded, True
        if not was_degraded:
            is_relapse = self._recovered_at and now < self._recovered_at + _HEALTHY_S
            self._relapses = self._relapses + 1 if is_relapse else 0
        self._retry_at = now + max(self._waits.retry, min(_MAX_RETRY_S, self._waits.retry * 2**self._relapses))
        try:
            self._books.failed()
        except Exception as bug:  # waiters for intents time out and withdraw them
            self._note("ledger_bug", error=_text(bug))
        if not was_degraded:
            self._note("ledger_degraded", error=_text(error))

    def _sweep(self) -> None:
        self._sweep_at = time.monotonic() + self._waits.sweep
        self._books.forget_windows()
        try:
            swept = self._store.sweep(self._clock_ns())
        except StoreError as error:
            self._note("ledger_sweep_failed", error=_text(error))
            self._commit()  # raises if calls cannot be written
            return
        self.swept += swept
        if swept:
            self._note("ledger_swept", calls=swept)

    def _begin_stop(self) -> None:
        self._stop_at = time.monotonic() + self._waits.stop
        self._books.is_urgent = True

    def _is_done(self) -> bool:
        return self._stop_at is not None and (not self._books.batch or time.monotonic() >= self._stop_at)

    def _tell(self, answers: list[Answer]) -> None:
        if answers:
            with contextlib.suppress(RuntimeError):  # the loop is closed: there are no waiters
                self.loop.call_soon_threadsafe(resolve, answers)


def resolve(answers: list[Answer]) -> None:
    """Resolves the waiters' futures, on their loop."""
    for future, error in answers:
        if future.done():
            continue  # its caller was cancelled, or timed out
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def _text(error: BaseException) -> str:
    """The error's text. An error that cannot be formatted must not stop the metering."""
    try:
        return str(error) or repr(error)
    except Exception:
        return type(error).__name__
