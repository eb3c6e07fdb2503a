"""The life of an attempt: every legal step, and none besides."""

from __future__ import annotations

from itertools import product

import pytest

from proxy.schema.attempt_state import LEGAL_STEPS, AttemptState, IllegalStep, step

S = AttemptState
LEGAL = {
    (S.INTENDED, S.GRANTED),
    (S.INTENDED, S.WITHDRAWN),
    (S.GRANTED, S.SENT),
    (S.GRANTED, S.ENDED),
    (S.SENT, S.GRANTED),
    (S.SENT, S.ACCEPTED),
    (S.SENT, S.ENDED),
    (S.ACCEPTED, S.FINISHED),
    (S.ACCEPTED, S.ENDED),
    (S.FINISHED, S.ENDED),
}


def test_exactly_the_legal_steps_can_be_taken() -> None:
    """Of all 49 pairs, those of the table; a step to the same state is none of them."""
    for state, to in product(AttemptState, repeat=2):
        if (state, to) in LEGAL:
            assert step(state, to) is to
        else:
            with pytest.raises(IllegalStep, match=f"from {state} to {to}"):
                step(state, to)


def test_every_state_is_reached_and_leads_to_an_end() -> None:
    """No state is a trap, and none is dead."""
    reached, fresh = {S.INTENDED}, {S.INTENDED}
    while fresh:
        fresh = {to for state in fresh for to in LEGAL_STEPS[state]} - reached
        reached |= fresh
    assert reached == set(AttemptState) == set(LEGAL_STEPS)
    ends = {state for state in AttemptState if state.is_over}
    assert ends == {S.ENDED, S.WITHDRAWN}
    for state in set(AttemptState) - ends:
        seen, fresh = {state}, {state}
        while fresh:
            fresh = {to for each in fresh for to in LEGAL_STEPS[each]} - seen
            seen |= fresh
        assert seen & ends


def test_only_what_was_sent_may_have_cost_something() -> None:
    """Before a request leaves, and after the end, there is nothing left to account for."""
    assert {state for state in AttemptState if state.may_have_cost} == {S.SENT, S.ACCEPTED, S.FINISHED}
