"""Values: the life of an attempt, as one enum and one table of legal steps.

    INTENDED ──> GRANTED <──> SENT ──> ACCEPTED ──> FINISHED
        │           │           │          │            │
        v           └───────────┴────┬─────┴────────────┘
    WITHDRAWN                        v
                                   ENDED

The ledger takes an attempt from INTENDED to GRANTED, or refuses it; the pipeline takes it from there to its end.
"""

from __future__ import annotations

from enum import StrEnum


class AttemptState(StrEnum):
    """How far an attempt has come."""

    INTENDED = "intended"  # its row is not in the store, so its request must not leave
    GRANTED = "granted"  # its row is committed (or `unmetered` waived that): its request may leave
    SENT = "sent"  # its request left, or may have: the provider may be working on it
    ACCEPTED = "accepted"  # a 2xx answer began
    FINISHED = "finished"  # the whole answer is here; its usage may be missing
    ENDED = "ended"  # it has an outcome, and a row that says so
    WITHDRAWN = "withdrawn"  # refused or cancelled before it was granted: it has no row

    @property
    def is_over(self) -> bool:
        """True in the states without a next one."""
        return not LEGAL_STEPS[self]

    @property
    def may_have_cost(self) -> bool:
        """True while the provider may have used something that its end must account for."""
        return self in (AttemptState.SENT, AttemptState.ACCEPTED, AttemptState.FINISHED)


_S = AttemptState
LEGAL_STEPS: dict[AttemptState, frozenset[AttemptState]] = {
    _S.INTENDED: frozenset({_S.GRANTED, _S.WITHDRAWN}),
    _S.GRANTED: frozenset({_S.SENT, _S.ENDED}),
    # Back to GRANTED: nothing reached the provider, or it refused. Nothing was used, and it may be sent again.
    _S.SENT: frozenset({_S.GRANTED, _S.ACCEPTED, _S.ENDED}),
    _S.ACCEPTED: frozenset({_S.FINISHED, _S.ENDED}),
    _S.FINISHED: frozenset({_S.ENDED}),
    _S.ENDED: frozenset(),
    _S.WITHDRAWN: frozenset(),
}


class IllegalStep(Exception):
    """A bug: an attempt cannot go from the one state to the other."""


def step(state: AttemptState, to: AttemptState) -> AttemptState:
    """The new state. Raises IllegalStep where the table has no such step."""
    if to not in LEGAL_STEPS[state]:
        raise IllegalStep(f"an attempt cannot go from {state} to {to}")
    return to
