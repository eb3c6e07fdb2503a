"""Performs I/O: decides which attempts of a batch fit their budgets, and books the batch in their windows.

It books the difference to the existing rows, so that a batch written twice is booked once. Money that is freed is
booked first, then the new attempts in order: each fits all its windows, or uses none of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from proxy.schema.records import AttemptOpen, Charge
from proxy.storage.base import BudgetRefused, Room
from proxy.storage.batch import Batch
from proxy.storage.spending import Key, Spending

if TYPE_CHECKING:
    from proxy.storage.rows import CallState

_ATTEMPTS = """
    SELECT attempts.id, attempts.hold_nano, attempts.closed_ns
    FROM json_each(?) AS named CROSS JOIN attempts
        ON attempts.call_id = named.value ->> 0 AND attempts.seq = named.value ->> 1
"""


class Additions(NamedTuple):
    """The amounts that one attempt adds, in nano-USD: to the windows of its call, and to its own."""

    of_call: Sequence[Charge]
    growth: int
    of_attempt: Sequence[Charge]
    hold: int


def lacking_room(additions: Additions, is_downgraded: bool, held: Callable[[Charge], tuple[int, int]]) -> Room | None:
    """The window with the least room among those that are too small; None: everything fits.

    `held` returns the spent and reserved amounts of a window.
    """
    tightest: Room | None = None
    of_call = [(charge, additions.growth) for charge in additions.of_call]
    for place, (charge, bound) in enumerate([*of_call, *((each, additions.hold) for each in additions.of_attempt)]):
        if bound <= 0:
            continue
        is_soft = charge.soft_nano is not None and not is_downgraded
        limit = charge.soft_nano if charge.soft_nano is not None and is_soft else charge.hard_nano
        room = Room(charge, limit, *held(charge), bound, is_soft, place >= len(of_call))
        if room.left_nano < bound and (tightest is None or room.left_nano < tightest.left_nano):
            tightest = room
    return tightest


class Admitted:
    """The outcome: `refused` attempts by id, `refused_calls` (new ones, which get no row) by id, and the `holds`
    of calls that continue without a refused attempt.
    """

    def __init__(self, db: sqlite3.Connection, batch: Batch, states: Mapping[str, CallState]) -> None:
        self.refused: dict[str, BudgetRefused] = {}
        self.refused_calls: dict[str, BudgetRefused] = {}
        self.holds: dict[str, int] = {}
        self.spending = Spending(db)
        self._admitted: set[str] = set()
        self._batch = batch
        self._states = states
        self._ended = {ended.end.id: ended.end for ended in batch.ended if ended.end.id in batch.attempt_charges}
        self._rows = self._attempt_rows(db)
        growing: dict[str, int] = {}
        for attempt in batch.intents.values():
            growing[attempt.call_id] = growing.get(attempt.call_id, 0) + batch.growth.get(attempt.id, 0)
        for call_id, charges in batch.charges.items():
            self._change_call(call_id, charges, growing.get(call_id, 0))
        for attempt_id, charges in batch.attempt_charges.items():
            self._end_attempt(attempt_id, charges)
        for attempt in batch.intents.values():
            self._admit(attempt)

    def _attempt_rows(self, db: sqlite3.Connection) -> dict[str, tuple[int, bool]]:
        """The existing rows of the batch's attempts: their holds, and whether they are open."""
        batch = self._batch
        if not batch.attempt_charges:
            return {}
        places = [(ended.end.call_id, ended.seq) for ended in batch.ended]
        places += [(each.call_id, each.seq) for each in (*batch.intents.values(), *batch.withdrawn.values())]
        rows = db.execute(_ATTEMPTS, (msgspec.json.encode(places).decode(),))
        return {attempt_id: (hold_nano or 0, closed_ns is None) for attempt_id, hold_nano, closed_ns in rows}

    def _change_call(self, call_id: str, charges: tuple[Charge, ...], growing: int) -> None:
        """Books the change of one call, without its new attempts."""
        batch, state, keys = self._batch, self._states.get(call_id), [_key(charge) for charge in charges]
        if state is not None and state.closed_ns is not None:
            return
        before = 0 if state is None else state.hold_nano or 0
        if (closed := batch.closed.get(call_id)) is not None:
            for charge, key in zip(charges, keys, strict=True):
                spent = closed.charged_nano if charge.pays else closed.cost_nano
                self.spending.book([key], spent=spent or 0, reserved=-before)
        elif call_id in batch.unopened:
            self.spending.book(keys, reserved=-before)
        elif call_id not in batch.abandoned:
            self.spending.book(keys, reserved=self._hold_after(call_id) - growing - before)

    def _end_attempt(self, attempt_id: str, charges: tuple[Charge, ...]) -> None:
        keys = [_key(charge) for charge in charges]
        before, is_open = self._rows.get(attempt_id, (0, True))
        if is_open and (end := self._ended.get(attempt_id)) is not None:
            self.spending.book(keys, spent=end.cost_nano or 0, reserved=-before)
        elif is_open and attempt_id in self._batch.withdrawn:
            self.spending.book(keys, reserved=-before)

    def _admit(self, attempt: AttemptOpen) -> None:
        """Admits or refuses an attempt. Without an entry in `growth` it is already granted (`unmetered`):
        only booked.
        """
        batch, growth = self._batch, self._batch.growth.get(attempt.id)
        of_call, of_attempt = batch.charges.get(attempt.call_id, ()), batch.attempt_charges.get(attempt.id, ())
        before, is_open = self._rows.get(attempt.id, (0, True))
        added = (attempt.hold_nano or 0) - before if is_open and attempt.id not in self._ended else 0
        if growth is not None:
            refusal = self.refused_calls.get(attempt.call_id)
            if refusal is None:
                additions = Additions(of_call, growth, of_attempt, added)
                room = lacking_room(additions, attempt.is_downgraded, self.spending.held)
                refusal = None if room is None else BudgetRefused(room)
            if refusal is not None:
                self._refuse(attempt, growth, refusal)
                return
            self.spending.book(map(_key, of_call), reserved=growth)
        self.spending.book(map(_key, of_attempt), reserved=added)
        self._admitted.add(attempt.call_id)

    def _refuse(self, attempt: AttemptOpen, growth: int, refusal: BudgetRefused) -> None:
        call_id = attempt.call_id
        self.refused[attempt.id] = refusal
        if call_id in self._batch.opened and call_id not in self._states and call_id not in self._admitted:
            self.refused_calls[call_id] = refusal
        else:
            self.holds[call_id] = self.holds.get(call_id, self._hold_after(call_id)) - growth

    def _hold_after(self, call_id: str) -> int:
        """The hold of an open call once all its new attempts are admitted."""
        state, hold = self._states.get(call_id), self._batch.hold_of(call_id)
        if hold is None:
            return 0 if state is None or call_id in self._batch.holds else state.hold_nano or 0
        return hold


def _key(charge: Charge) -> Key:
    return charge.budget, charge.start_ns
