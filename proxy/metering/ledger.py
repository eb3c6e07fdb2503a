"""Orchestrates: the money ledger. A call is in the store before its request leaves, and settled before its answer ends.

    event loop   open, intend, settle, close, reject -> one FIFO
    writer       drains the FIFO -> batch -> one commit -> wakes all who wait with one call

The writer is one thread; it owns the store's connection. What cannot be committed stays in the batch and is tried again
until it can. That is bounded: with `refuse` by the calls open when the store failed, because no other is let in;
rejected calls, and with `unmetered` new ones, are kept up to `max_pending` changes and then only counted (`lost`).
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from msgspec import Struct

from proxy.metering.books import Answer, Books, Intent, Waiter
from proxy.schema.errors import StorageUnavailable
from proxy.schema.records import AttemptEnd, AttemptOpen, CallEnd, CallOpen, Outcome, UsageQuery
from proxy.storage.base import Store, StoreError

_log = structlog.get_logger("ledger")
_MAX_DRAIN = 2000  # operations in one commit: the first of them should not wait for the last of a flood


class Waits(Struct, frozen=True):
    """Seconds. `open`, `settle`: how long a caller waits for the store; `retry`: until a failing store is tried again.

    `sweep`: between two looks for dead owners; `stop`: how long the last changes may take when the process ends.
    """

    open: float = 5.0
    settle: float = 2.0
    retry: float = 0.25
    sweep: float = 30.0
    stop: float = 5.0


class LedgerState(Struct, frozen=True):
    """For `/readyz` and metrics. `pending`: changes not yet committed; `swept`: dead owners' calls, now `unknown`.

    `lost`: calls without a row of their own end, because the store was down for too long or refused their values.
    """

    degraded: bool
    pending: int
    open_calls: int
    reserved_nano: int
    commits: int
    lost: int
    swept: int


class Ledger:
    """One per process, on one event loop. `when_down`: `refuse` what cannot be metered, or serve it `unmetered`."""

    def __init__(
        self,
        store: Store,
        *,
        when_down: str = "refuse",
        clock_ns: Callable[[], int] = time.time_ns,
        waits: Waits | None = None,
        max_pending: int = 10_000,
    ) -> None:
        self._store = store
        self._refuses = when_down == "refuse"
        self._clock_ns = clock_ns
        self._waits = waits or Waits()
        self._max_pending = max_pending
        self._queue: queue.SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]] = queue.SimpleQueue()
        self._books = Books(clock_ns, self._refuses)
        self._degraded = self._stopping = False
        self._retry_at = self._sweep_at = 0.0
        self._stop_at: float | None = None
        self._commits = self._swept = self._turned_away = 0

    @property
    def state(self) -> LedgerState:
        books = self._books
        return LedgerState(
            degraded=self._degraded,
            pending=self._queue.qsize() + len(books.batch),
            open_calls=len(books.calls),
            reserved_nano=books.reserved_nano,
            commits=self._commits,
            lost=books.lost + self._turned_away,
            swept=self._swept,
        )

    async def start(self) -> None:
        """Opens the store, settles the calls of dead owners, starts the writer. Raises StoreError: path and fix."""
        self._loop = asyncio.get_running_loop()
        self._started, self._stopped = self._loop.create_future(), self._loop.create_future()
        threading.Thread(target=self._write_until_stopped, name="ledger", daemon=True).start()
        await self._started

    async def open(self, call: CallOpen, attempt: AttemptOpen) -> None:
        """Returns once call and first attempt are committed. Raises StorageUnavailable, RowRefused for a used id."""
        try:
            await self._admit(Intent(attempt, call, None))
        except StorageUnavailable:
            # It may be committed yet if the store is merely slow; then this ends it.
            self.close(CallEnd(call_id=call.id, outcome=Outcome.REJECTED, status=503, error_code="storage_unavailable"))
            raise

    async def intend(self, ended: AttemptEnd | None, attempt: AttemptOpen) -> None:
        """Commits the intent of one more attempt, together with the end of the one before it (None: it still runs
        beside). Raises as `open` does.

        When it raises, the attempt's request must not leave, and `ended` belongs into the end of the call.
        """
        await self._admit(Intent(attempt, None, ended))

    def end(self, call_id: str, ends: Sequence[AttemptEnd]) -> None:
        """Attempts that ended, of a call that had several at once; committed with the call's next change.

        The first end of an attempt stands, so that it may be told again.
        """
        self._put(self._books.end, call_id, ends)

    async def settle(self, end: CallEnd) -> None:
        """Returns once the end is committed, or after `Waits.settle`: while the store is down the end is kept.

        The first end of a call stands; a later one waits for it.
        """
        future = self._loop.create_future()
        self._put(self._books.close, end, future)
        timer = self._loop.call_later(self._waits.settle, _waited_enough, future)
        try:
            await future
        finally:
            timer.cancel()

    def close(self, end: CallEnd) -> None:
        """Like `settle`, without waiting: for `finally` and cancellation.

        A call whose `open` had not been committed leaves no row: its request never left.
        """
        self._put(self._books.close, end, None)

    def reject(self, call: CallOpen, end: CallEnd) -> None:
        """One row for a call that was refused before any attempt; it is committed soon after."""
        if self._has_room():
            self._put(self._books.reject, call, end)

    async def usage(self, query: UsageQuery) -> dict[str, Any]:
        """`{"total", "groups"}` of `GET /v1/usage`. Raises StorageUnavailable, BadRequest for an unknown group."""
        try:
            return await asyncio.to_thread(self._store.usage, query)
        except StoreError as error:
            raise StorageUnavailable from error

    async def stop(self) -> None:
        """Writes what is left, for about `Waits.stop` seconds at most, and gives the store up.

        Calls that are still open become `unknown` at the next sweep of any process.
        """
        if not self._stopping:
            self._stopping = True
            self._put(self._begin_stop)
        await asyncio.wait([self._stopped], timeout=2 * self._waits.stop)  # a disk that hangs holds nobody up

    # --- on the event loop --------------------------------------------------------------------------------------------

    async def _admit(self, intent: Intent) -> None:
        if self._stopping or (self._degraded and self._refuses):
            raise StorageUnavailable
        if self._degraded:
            if self._has_room():
                intent.left = True
                self._put_intent(intent)
            return
        intent.future = self._loop.create_future()
        self._put_intent(intent)
        timer = self._loop.call_later(self._waits.open, _waited_too_long, intent.future)
        try:
            await intent.future
        except StorageUnavailable:
            if self._refuses:
                raise
            intent.left = True
        finally:
            timer.cancel()

    def _put_intent(self, intent: Intent) -> None:
        self._put(self._books.open if intent.call else self._books.intend, intent)

    def _put(self, operation: Callable[..., None], *arguments: Any) -> None:
        self._queue.put((operation, arguments))

    def _has_room(self) -> bool:
        if self._queue.qsize() + len(self._books.batch) < self._max_pending:
            return True
        self._turned_away += 1
        return False

    # --- on the writer thread -----------------------------------------------------------------------------------------

    def _write_until_stopped(self) -> None:
        try:
            self._store.open()
            self._swept += self._store.sweep(self._clock_ns())
        except Exception as error:
            self._store.close()
            self._tell([(self._started, error), (self._stopped, None)])
            return
        self._sweep_at = time.monotonic() + self._waits.sweep
        self._tell([(self._started, None)])
        while not self._is_done():
            try:
                self._turn()
            except Exception as error:  # StoreError, or a bug: whatever it is, calls go on being metered
                self._fail(error)
            answers, self._books.answers = self._books.answers, []
            self._tell(answers)
        if self._books.batch:
            _note("ledger_left_changes_unwritten", changes=len(self._books.batch))
        self._store.close()
        self._tell([(self._stopped, None)])

    def _turn(self) -> None:
        """Takes what is in the FIFO, or waits for it, and commits it."""
        wake_at = self._sweep_at if not self._degraded else self._retry_at
        self._drain(0.0 if self._books.batch and not self._degraded else max(0.0, wake_at - time.monotonic()))
        now = time.monotonic()
        if now >= self._retry_at if self._degraded else self._books.batch:
            self._commit()
        if now >= self._sweep_at and not self._degraded:
            self._sweep()

    def _drain(self, wait_s: float) -> None:
        try:
            operation, arguments = self._queue.get(timeout=wait_s)
            for _ in range(_MAX_DRAIN):
                self._apply(operation, arguments)
                operation, arguments = self._queue.get_nowait()
            self._apply(operation, arguments)
        except queue.Empty:
            return

    def _apply(self, operation: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        try:
            operation(*arguments)
        except Exception as error:  # a bad operation harms nobody but its caller
            last = arguments[-1] if arguments else None
            waiter: Waiter = (
                last.future if isinstance(last, Intent) else last if isinstance(last, asyncio.Future) else None
            )
            self._books.answer(waiter, error)
            if waiter is None:
                _note("ledger_operation_failed", error=repr(error))

    def _commit(self) -> None:
        refused = self._store.write(self._books.batch)
        self._commits += 1
        self._books.committed(refused)
        for call_id, reason in refused.items():
            _note("ledger_row_refused", call_id=call_id, reason=reason)
        if self._degraded:
            self._degraded = False
            _note("ledger_recovered")

    def _fail(self, error: Exception) -> None:
        self._retry_at = time.monotonic() + self._waits.retry
        if not self._degraded:
            self._degraded = True
            _note("ledger_degraded", error=str(error) or repr(error))
        self._books.failed()

    def _sweep(self) -> None:
        self._sweep_at = time.monotonic() + self._waits.sweep
        try:
            swept = self._store.sweep(self._clock_ns())
        except StoreError as error:  # says nothing about writing calls; the next round tries again
            _note("ledger_sweep_failed", error=str(error))
            return
        self._swept += swept
        if swept:
            _note("ledger_swept", calls=swept)

    def _begin_stop(self) -> None:
        self._stop_at = time.monotonic() + self._waits.stop

    def _is_done(self) -> bool:
        return self._stop_at is not None and (not self._books.batch or time.monotonic() >= self._stop_at)

    def _tell(self, answers: list[Answer]) -> None:
        if answers:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(_resolve, answers)


def _resolve(answers: list[Answer]) -> None:
    for future, error in answers:
        if future.done():
            continue  # its caller was cancelled, or waited long enough
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def _waited_enough(future: asyncio.Future[None]) -> None:
    _resolve([(future, None)])


def _waited_too_long(future: asyncio.Future[None]) -> None:
    _resolve([(future, StorageUnavailable())])


def _note(event: str, **fields: object) -> None:
    with contextlib.suppress(OSError, ValueError):  # a log that cannot be written must not stop the metering
        _log.warning(event, **fields)
