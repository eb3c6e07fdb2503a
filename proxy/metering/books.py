"""Translates: calls in flight into the next batch, and what became of it into answers. Pure, given a clock.

All of it belongs to the ledger's writer thread. A future is only passed through: who waits is told by the ledger.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Sequence

from proxy.schema.errors import StorageUnavailable
from proxy.schema.records import AttemptEnd, AttemptOpen, CallEnd, CallOpen
from proxy.storage.base import RowRefused
from proxy.storage.batch import Batch, OpenCall, rejected

Waiter = Future[None] | None
Answer = tuple[Future[None], Exception | None]


class Intent:
    """An attempt that asks to be let out. `left`: its request may have left without a row (`when_down: unmetered`)."""

    __slots__ = ("attempt", "call", "ended", "future", "left")

    def __init__(self, attempt: AttemptOpen, call: CallOpen | None, ended: AttemptEnd | None) -> None:
        self.attempt = attempt
        self.call = call
        self.ended = ended
        self.future: Waiter = None
        self.left = False


class Books:
    """The calls in flight and the batch they make: all of the writer's state, touched by no other thread."""

    def __init__(self, clock_ns: Callable[[], int], refuses: bool) -> None:
        self._clock_ns = clock_ns
        self._refuses = refuses
        self._intents: dict[str, Intent] = {}  # by attempt id, until their rows are committed
        self._settling: list[Waiter] = []
        self.calls: dict[str, OpenCall] = {}
        self.batch = Batch()
        self.answers: list[Answer] = []
        self.reserved_nano = 0
        self.lost = 0

    def open(self, intent: Intent) -> None:
        call, attempt = intent.call, intent.attempt
        if call is None or call.id in self.calls or call.id in self.batch.closed:
            raise RowRefused(f"call {attempt.call_id} is already there")
        self.calls[call.id] = OpenCall(call.id)
        self.batch.opened[call.id] = (call, attempt)
        self._start(intent)

    def intend(self, intent: Intent) -> None:
        entry = self.calls.get(intent.attempt.call_id)
        if entry is None:
            if self._refuses:
                raise RowRefused(f"call {intent.attempt.call_id} is not open")
            self.answer(intent.future)  # its open was one too many to keep, or was kept from the store
            return
        if intent.attempt.id in entry.running:
            raise RowRefused(f"attempt {intent.attempt.id} is already there")
        if intent.ended is not None and (ended := entry.finish(intent.ended, self._clock_ns())) is not None:
            self.batch.ended.append(ended)
        self._start(intent)
        self.batch.holds[entry.call_id] = entry.hold_nano

    def end(self, call_id: str, ends: Sequence[AttemptEnd]) -> None:
        """Attempts that ended; whose intent is not committed yet never left, and is for `close` to forget."""
        entry = self.calls.get(call_id)
        if entry is None:
            return
        for end in ends:
            intent = self._intents.get(end.id)
            if (intent is None or intent.left) and (ended := entry.finish(end, self._clock_ns())) is not None:
                self.batch.ended.append(ended)

    def close(self, end: CallEnd, future: Waiter) -> None:
        """The first end stands. A call whose request never left is forgotten, as if it had not been opened."""
        entry = self.calls.get(end.call_id)
        if entry is not None:
            for attempt_id in list(entry.running):
                intent = self._intents.get(attempt_id)
                if intent is not None and not intent.left:
                    self._forget(intent, RowRefused(f"call {end.call_id} was closed"))
            if end.call_id in self.calls:
                del self.calls[end.call_id]
                self.reserved_nano -= entry.hold_nano or 0
                ended, self.batch.closed[end.call_id] = entry.close(end, self._clock_ns())
                self.batch.ended += ended
        if end.call_id in self.batch.closed:
            self._settling.append(future)
        else:
            self.answer(future)

    def reject(self, call: CallOpen, end: CallEnd) -> None:
        if call.id in self.calls or call.id in self.batch.closed:
            raise RowRefused(f"call {call.id} is already there")
        self.batch.opened[call.id] = (call, None)
        self.batch.closed[call.id] = rejected(end, self._clock_ns())

    def committed(self, refused: dict[str, str]) -> None:
        """The batch is in the store, but for the calls that were refused."""
        batch, self.batch = self.batch, Batch()
        intents, self._intents = self._intents, {}
        for intent in intents.values():
            reason = refused.get(intent.attempt.call_id)
            self.answer(intent.future, None if reason is None else RowRefused(reason))
        for call_id in refused:
            if (entry := self.calls.pop(call_id, None)) is not None:
                self.reserved_nano -= entry.hold_nano or 0
            if call_id in batch.opened or call_id in batch.abandoned:
                self.lost += 1
            else:
                # Its row is open in the store and cannot take its end: it ends as a dead owner's call would.
                self.batch.abandoned[call_id] = self._clock_ns()
        for future in self._settling:
            self.answer(future)
        self._settling = []

    def failed(self) -> None:
        """Nothing of the batch is in the store. Ends wait for the next try; intents are refused, or let out."""
        for intent in list(self._intents.values()):
            if self._refuses:
                self._forget(intent, StorageUnavailable())
            else:
                intent.left = True
                self.answer(intent.future)

    def answer(self, future: Waiter, error: Exception | None = None) -> None:
        if future is not None:
            self.answers.append((future, error))

    def _start(self, intent: Intent) -> None:
        attempt = intent.attempt
        entry = self.calls[attempt.call_id]
        self.reserved_nano -= entry.hold_nano or 0
        entry.start(attempt)
        self.reserved_nano += entry.hold_nano or 0
        self.batch.intents[attempt.id] = attempt
        self._intents[attempt.id] = intent

    def _forget(self, intent: Intent, error: Exception) -> None:
        """Takes back an attempt that is in the batch only; with a call's first attempt goes the call."""
        attempt = intent.attempt
        entry = self.calls[attempt.call_id]
        del self._intents[attempt.id], self.batch.intents[attempt.id]
        self.reserved_nano -= entry.hold_nano or 0
        entry.forget(attempt.id)
        if entry.started:
            self.reserved_nano += entry.hold_nano or 0
            self.batch.holds[attempt.call_id] = entry.hold_nano
        else:
            del self.calls[attempt.call_id], self.batch.opened[attempt.call_id]
            self.batch.holds.pop(attempt.call_id, None)
        self.answer(intent.future, error)
