"""The gate COMMITTED: the first content closes it, and no other attempt of its ask answers then."""

from __future__ import annotations

import asyncio

import pytest

from proxy.pipeline.call import Call
from proxy.pipeline.gate import CommitGate
from tests.pipeline.calls import attempt_of, new_call
from tests.pipeline.world import turns


@pytest.fixture
def call() -> Call:
    return new_call()


async def test_the_first_claim_wins(call: Call) -> None:
    """Repeated claims succeed too; any other attempt loses."""
    gate, first, second = CommitGate(), attempt_of(call), attempt_of(call)
    assert not gate.is_closed
    assert [await gate.claim(each) for each in (first, second, first, second)] == [True, False, True, False]
    assert (gate.is_closed, gate.attempt) == (True, first)


async def test_an_inner_claim_closes_every_outer_gate(call: Call) -> None:
    """The outer gate records the first attempt, while each ask has its own winner."""
    whole = CommitGate()
    outer = CommitGate(whole)
    inner = [CommitGate(outer), CommitGate(outer)]
    first, second, late = (attempt_of(call) for _ in range(3))
    assert await inner[0].claim(first)
    assert (outer.attempt, whole.attempt, inner[1].is_closed) == (first, first, False)
    assert await inner[1].claim(second)
    assert not await inner[1].claim(late)
    assert (outer.attempt, whole.attempt, inner[1].attempt) == (first, first, second)


@pytest.mark.parametrize("held", ["inner", "outer"])
async def test_a_held_gate_lets_nothing_out_until_it_is_released(call: Call, held: str) -> None:
    """It stays open meanwhile: another attempt may still win."""
    outer = CommitGate()
    inner = CommitGate(outer)
    release = (inner if held == "inner" else outer).hold()
    attempt = attempt_of(call)
    claiming = asyncio.create_task(inner.claim(attempt))
    await turns()
    assert (claiming.done(), inner.is_closed, outer.is_closed) == (False, False, False)
    release()
    release()  # once more changes nothing
    assert await asyncio.wait_for(claiming, 1)
    assert (inner.attempt, outer.attempt) == (attempt, attempt)


async def test_of_two_that_were_held_one_goes_on(call: Call) -> None:
    """The one that came first."""
    gate = CommitGate()
    release = gate.hold()
    attempts = [attempt_of(call), attempt_of(call)]
    claims = [asyncio.create_task(gate.claim(each)) for each in attempts]
    await turns()
    release()
    assert await asyncio.gather(*claims) == [True, False]


async def test_an_attempt_that_is_cancelled_while_it_is_held_does_not_close_the_gate(call: Call) -> None:
    """Nor does it release the others."""
    gate = CommitGate()
    release = gate.hold()
    claims = [asyncio.create_task(gate.claim(attempt_of(call))) for _ in range(2)]
    await turns()
    claims[0].cancel()
    await turns()
    assert (claims[0].cancelled(), claims[1].done(), gate.is_closed) == (True, False, False)
    release()
    assert await claims[1]


async def test_a_gate_that_was_released_holds_nobody(call: Call) -> None:
    """Also those who come later."""
    gate = CommitGate()
    gate.hold()()
    assert await asyncio.wait_for(gate.claim(attempt_of(call)), 1)
