"""Translates: calls in flight into the next batch, and the store's answers into the callers'. Pure, given a clock.

Only the ledger's writer thread uses it. Futures are only passed through: the ledger resolves them.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable

from proxy.schema.attempt_state import AttemptState, step
from proxy.schema.errors import StorageUnavailable
from proxy.schema.records import AttemptEnd, AttemptOpen, CallEnd, CallOpen
from proxy.storage.base import Answers, Refusal, RowRefused
from proxy.storage.batch import Batch, OpenCall, first_hold, rejected
from proxy.storage.spending import is_over

_MAX_WINDOWS = 10_000  # windows whose figures are kept
Waiter = Future[None] | None
Answer = tuple[Future[None], Exception | None]


class Intent:
    """An attempt that waits to be granted; `call` is its call's row if this is the first attempt.

    `state` leaves INTENDED with the commit of its row, or earlier if `when_down: unmetered` waives the commit.
    `is_taken`: the books have it.
    """

    __slots__ = ("attempt", "call", "future", "is_taken", "state")

    def __init__(self, attempt: AttemptOpen, call: CallOpen | None = None) -> None:
        self.attempt = attempt
        self.call = call
        self.future: Waiter = None
        self.is_taken = False
        self.state = AttemptState.INTENDED

    def grant(self) -> None:
        if self.state is AttemptState.INTENDED:
            self.state = step(self.state, AttemptState.GRANTED)


class Books:
    """The calls in flight and their next batch: the whole state of the writer, used by no other thread.

    A call is in `calls` from `open` until `close`. It has a row once one of its attempts is committed.
    """

    def __init__(self, clock_ns: Callable[[], int], refuses: bool) -> None:
        self._clock_ns = clock_ns
        self._refuses = refuses
        self._intents: dict[str, Intent] = {}  # by attempt id, until their rows are committed
        self._settling: list[Waiter] = []
        self._watching: list[Waiter] = []
        self._was_tried = False  # a write of this batch failed, but may have been committed
        self.calls: dict[str, OpenCall] = {}
        self.batch = Batch()
        self.is_urgent = False  # a caller is waiting for this batch, or it ends a call
        self.answers: list[Answer] = []
        self.reserved_nano = 0
        self.spending: dict[tuple[str, int], tuple[int, int]] = {}  # the latest known figures of budget windows
        self.lost = 0

    # --- from callers -------------------------------------------------------------------------------------------------

    def open(self, intent: Intent) -> None:
        """Adds a new call with its first attempt, or the same one again after a cancelled `open`.

        Raises RowRefused for a used id.
        """
        call = intent.call
        entry = self.calls.get(intent.attempt.call_id)
        if call is None or call.id in self.batch.closed or (entry is not None and entry.call != call):
            raise RowRefused(f"the call {intent.attempt.call_id} already exists")
        if entry is None:
            self.calls[call.id] = OpenCall(call)
            self._start(intent)
        else:
            self.intend(intent)

    def intend(self, intent: Intent) -> None:
        """Adds an attempt of an open call. Raises RowRefused for a used id, or if the call is not open."""
        entry = self.calls.get(intent.attempt.call_id)
        if entry is None:
            if self._refuses:
                raise RowRefused(f"the call {intent.attempt.call_id} is not open")
            self.answer(intent.future)  # its call could not be kept in memory, and is counted as lost
            return
        if intent.attempt.id in entry.started:
            raise RowRefused(f"the attempt {intent.attempt.id} already exists")
        self._start(intent)

    def waive(self, intent: Intent) -> None:
        """`unmetered`: the store took too long, so the request is sent without waiting for its row."""
        intent.grant()

    def withdraw(self, intent: Intent, end: AttemptEnd, closing: CallEnd | None) -> None:
        """The caller no longer waits for this intent, so it will not be sent. A committed row gets this `end`.

        `closing` also ends the call, if this intent opened it.
        """
        entry = self.calls.get(end.call_id)
        if entry is None or not intent.is_taken:
            return
        if self._intents.get(end.id) is intent:
            self._forget(intent)
        elif end.id in entry.running:
            self._finish(entry, end)
        if closing is not None and intent.call is not None:
            self.close(closing, None)

    def end(self, end: AttemptEnd) -> None:
        """Ends an attempt; only the first end counts. An attempt not granted yet was never sent and is forgotten."""
        entry = self.calls.get(end.call_id)
        if entry is None or end.id not in entry.running:
            return
        intent = self._intents.get(end.id)
        if intent is not None and intent.state is AttemptState.INTENDED:
            self._forget(intent, RowRefused(f"the attempt {end.id} was ended"))
        else:
            self._finish(entry, end)

    def close(self, end: CallEnd, future: Waiter) -> None:
        """Ends a call; only the first end counts. A call without a granted attempt leaves no row."""
        entry = self.calls.get(end.call_id)
        if entry is not None:
            for attempt_id in list(entry.running):
                intent = self._intents.get(attempt_id)
                if intent is not None and intent.state is AttemptState.INTENDED:
                    self._forget(intent, RowRefused(f"the call {end.call_id} was closed"))
            del self.calls[end.call_id]
            self.reserved_nano -= entry.hold_nano or 0
            if entry.started or entry.opening is None:
                ended, self.batch.closed[end.call_id] = entry.close(end, self._clock_ns())
                self.batch.ended += ended
                self.batch.holds.pop(end.call_id, None)
                self._note_charges(entry, *(entry.started[each.end.id] for each in ended))
        if end.call_id in self.batch.closed:
            self.is_urgent = True
            self._settling.append(future)
        else:
            self.answer(future)

    def reject(self, call: CallOpen, end: CallEnd) -> None:
        """Records a call refused before any attempt. Raises RowRefused for a used id."""
        entry = self.calls.get(call.id)
        if entry is not None and entry.call == call:  # its `open` was cancelled, and may have been committed
            self.close(end, None)
            if call.id in self.batch.closed:
                return
        if call.id in self.calls or call.id in self.batch.closed:
            raise RowRefused(f"the call {call.id} already exists")
        self.batch.opened[call.id] = (call, None)
        self.batch.closed[call.id] = rejected(end, self._clock_ns())
        self.is_urgent = True

    def watch(self, future: Waiter) -> None:
        """Answers `future` when the end of a call or an attempt is committed."""
        self._watching.append(future)

    def ready(self) -> Batch:
        """The batch to write now. Each attempt that is not granted yet says how much it raises its call's hold."""
        pending: dict[str, list[AttemptOpen]] = {}
        for intent in self._intents.values():
            attempt = intent.attempt
            if intent.state is AttemptState.INTENDED and (
                attempt.id in self.batch.attempt_charges or attempt.call_id in self.batch.charges
            ):
                pending.setdefault(attempt.call_id, []).append(attempt)
        growth: dict[str, int] = {}
        for call_id, attempts in pending.items():
            growth.update(self.calls[call_id].growth(attempts))
        self.batch.growth = growth
        return self.batch

    # --- from the store -----------------------------------------------------------------------------------------------

    def committed(self, answers: Answers) -> None:
        """The batch is committed, except for the refused parts."""
        self.spending |= answers.spending
        if len(self.spending) > 2 * _MAX_WINDOWS:  # windows of minutes and sessions never recur
            for key in list(self.spending)[:_MAX_WINDOWS]:
                del self.spending[key]
        batch, self.batch = self.batch, Batch()
        intents, self._intents = self._intents, {}
        settling, self._settling = self._settling, []
        self._was_tried = self.is_urgent = False
        for intent in intents.values():
            refusal = answers.to(intent.attempt)
            self.answer(intent.future, refusal)
            if refusal is None:
                intent.grant()
                if (entry := self.calls.get(intent.attempt.call_id)) is not None:
                    entry.opening = None
            elif intent.attempt.call_id not in answers.calls:
                self._drop(intent, refusal)
        for call_id in answers.calls:
            if (entry := self.calls.pop(call_id, None)) is not None:
                self.reserved_nano -= entry.hold_nano or 0
            if call_id in batch.opened or call_id in batch.abandoned:
                self.lost += 1
            else:
                # Its open row in the store cannot take its end, so it is closed like a dead owner's call.
                self.batch.abandoned[call_id] = self._clock_ns()
                self.is_urgent = True
        for future in settling:
            self.answer(future)
        if batch.closed or batch.ended:
            watching, self._watching = self._watching, []
            for future in watching:
                self.answer(future)

    def forget_windows(self) -> None:
        """Drops the figures of budget windows that are long over."""
        now_ns = self._clock_ns()
        for key in [key for key in self.spending if is_over(*key, now_ns, used_ns=now_ns)]:
            del self.spending[key]

    def failed(self) -> None:
        """The commit may have failed. Ends wait for the next try; intents are refused, or waived.

        Must not raise: it runs while another error is being handled.
        """
        self._was_tried = True
        for intent in list(self._intents.values()):
            if self._refuses:
                self._forget(intent, StorageUnavailable())
            elif intent.state is AttemptState.INTENDED:
                intent.grant()
                self.answer(intent.future)

    def give_up(self) -> None:
        """The writer has died: nothing will be committed any more, so all waiters are answered."""
        self.failed()
        settling, self._settling = self._settling, []
        for future in settling:
            self.answer(future)

    def answer(self, future: Waiter, error: Exception | None = None) -> None:
        if future is not None:
            self.answers.append((future, error))

    # --- internals ----------------------------------------------------------------------------------------------------

    def _start(self, intent: Intent) -> None:
        attempt = intent.attempt
        entry = self.calls[attempt.call_id]
        self.reserved_nano -= entry.hold_nano or 0
        entry.start(attempt)
        if entry.opening is not None and entry.call_id not in self.batch.opened:
            self.batch.opened[entry.call_id] = (entry.opening, attempt)
        self._reserve(entry)
        self.batch.intents[attempt.id] = attempt
        self._note_charges(entry, attempt)
        self._intents[attempt.id] = intent
        intent.is_taken = True
        self.is_urgent = True

    def _finish(self, entry: OpenCall, end: AttemptEnd) -> None:
        self.reserved_nano -= entry.hold_nano or 0
        ended = entry.finish(end, self._clock_ns())
        self._reserve(entry)
        if ended is not None:
            self.batch.ended.append(ended)
            self._note_charges(entry, entry.started[end.id])

    def _forget(self, intent: Intent, error: Exception | None = None) -> None:
        """Removes an attempt without a row. If a failed write may have stored one, the next batch removes it."""
        attempt = intent.attempt
        self._intents.pop(attempt.id, None)
        self.batch.intents.pop(attempt.id, None)
        if self._was_tried:
            self.batch.withdrawn[attempt.id] = attempt
        self._remove(attempt)
        if error is not None:
            self.answer(intent.future, error)

    def _drop(self, intent: Intent, refusal: Refusal) -> None:
        """Removes an attempt that the store refused; with a first attempt, also its call."""
        self._remove(intent.attempt)
        entry = self.calls.get(intent.attempt.call_id)
        if entry is not None and not entry.started and entry.opening is not None:
            del self.calls[entry.call_id]
        self.lost += intent.call is not None and isinstance(refusal, RowRefused)

    def _remove(self, attempt: AttemptOpen) -> None:
        entry = self.calls.get(attempt.call_id)
        if entry is None or attempt.id not in entry.running:
            return
        self.reserved_nano -= entry.hold_nano or 0
        entry.forget(attempt.id)
        if not entry.started and self.batch.opened.pop(entry.call_id, None) is not None and self._was_tried:
            self.batch.unopened.add(entry.call_id)
        self._reserve(entry)

    def _note_charges(self, entry: OpenCall, *attempts: AttemptOpen) -> None:
        """Notes the budget windows that this call and these attempts change."""
        if entry.call.charges:
            self.batch.charges[entry.call_id] = entry.call.charges
        for attempt in attempts:
            if attempt.charges:
                self.batch.attempt_charges[attempt.id] = attempt.charges

    def _reserve(self, entry: OpenCall) -> None:
        """Adds the hold of a call to the sum, and to the batch unless the call's new row includes it."""
        self._note_charges(entry)
        self.reserved_nano += entry.hold_nano or 0
        _, first = self.batch.opened.get(entry.call_id, (None, None))
        if entry.opening is not None and (first is None or first_hold(entry.call, first) == entry.hold_nano):
            self.batch.holds.pop(entry.call_id, None)
        else:
            self.batch.holds[entry.call_id] = entry.hold_nano
