"""Hedging: the next candidate starts beside a late one, the first content wins, and what the other cost is capped."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import structs

from proxy.pipeline.bounds import Bounds
from proxy.pipeline.call import Call
from proxy.routing.settings import Breaker, Hedge, RouterConfig
from proxy.routing.standing import MIN_SAMPLES
from proxy.schema.chat import ChatChunk
from proxy.schema.errors import AllDown, UpstreamTruncated
from proxy.schema.hints import Hints
from proxy.schema.records import NANO_PER_USD, AttemptEnd, Outcome
from proxy.upstream.transports.base import ConnectionLost
from tests.pipeline.world import COMPLETE, Script, World, asked, delta, error, new_call, streamed, stuck, turns, whole

LATE_S = 0.02


def hedging(
    *scripts: Script, after: Any = LATE_S, ratio: float = 100.0, spent_nano: int = 10**12, **kind: Any
) -> World:
    """Providers that are hedged after a moment, with money in reserve."""
    world = World(*scripts, **kind)
    world.router = RouterConfig(hedge=Hedge(enabled=True, after=after, max_extra_cost_ratio=ratio))
    world.board.hedges.note_cost(spent_nano)
    return world


def outcomes(world: World) -> dict[str, Outcome]:
    """Provider -> the end of its attempt."""
    providers = {each.id: each.provider for each in world.opened}
    return {providers[end.id]: end.outcome for end in world.ended}


async def test_the_first_content_wins_and_the_other_is_cancelled() -> None:
    """Nothing of the loser is in the answer; its row says `cancelled`, at the cost of its hold."""
    loser = streamed(b": ping\n\n", None)
    world, call = hedging(loser, streamed(*COMPLETE)), new_call(stream=True)
    assert "".join(await world.stream(call, "ab")) == "Hi"
    assert asked(call) == "ab"
    assert outcomes(world) == {"a": Outcome.CANCELLED, "b": Outcome.OK}
    assert loser.closed
    assert [each.deployment.provider_name for each in call.answered] == ["b"]
    lost = next(end for end in world.ended if end.outcome is Outcome.CANCELLED)
    assert (lost.usage_source, lost.cost_nano) == ("unknown", world.holds[0])


async def test_the_first_may_still_win() -> None:
    """Then the second is cancelled, also if it would have answered in the same moment."""
    begins = asyncio.Event()
    world, call = hedging(streamed(begins, *COMPLETE), streamed(b": ping\n\n", None)), new_call(stream=True)
    task = asyncio.create_task(world.stream(call, "ab"))
    while len(call.attempts) < 2:  # noqa: ASYNC110 - nothing tells when it changes
        await asyncio.sleep(0)
    await turns()
    begins.set()
    assert "".join(await task) == "Hi"
    assert outcomes(world) == {"a": Outcome.OK, "b": Outcome.CANCELLED}


async def test_of_two_that_begin_at_once_one_is_sent() -> None:
    """Whole, and without a delta of the other."""
    begins = asyncio.Event()
    parts = {name: (delta(content=name), delta(content=name), delta("stop") + COMPLETE[1]) for name in "ab"}
    for _ in range(20):
        begins.clear()
        world = hedging(streamed(begins, *parts["a"]), streamed(begins, *parts["b"]))
        call = new_call(stream=True)
        task = asyncio.create_task(world.stream(call, "ab"))
        while len(world.replies) < 2:  # noqa: ASYNC110 - nothing tells when it changes
            await asyncio.sleep(0)
        await turns()
        begins.set()
        text = "".join(await task)
        assert text in ("aa", "bb")
        assert [each.deployment.provider_name for each in call.answered] == [text[0]]


async def test_an_early_answer_is_not_hedged() -> None:
    """One request, one row."""
    world, call = hedging(streamed(*COMPLETE), after=60), new_call(stream=True)
    assert "".join(await world.stream(call, "ab")) == "Hi"
    assert asked(call) == "a"


async def test_a_stream_that_has_begun_is_not_hedged() -> None:
    """It is slow, but it is the answer."""
    rest = asyncio.Event()
    batches: list[list[ChatChunk]] = []
    world, call = hedging(streamed(COMPLETE[0], rest, COMPLETE[1])), new_call(stream=True)
    task = asyncio.create_task(world.stream(call, "ab", batches))
    await asyncio.sleep(3 * LATE_S)
    rest.set()
    await task
    assert asked(call) == "a"


async def test_whole_answers_are_hedged_too() -> None:
    """The first that is complete wins."""
    world, call = hedging(stuck(), whole("b")), new_call()
    assert await world.complete(call, "ab") == "b"
    assert outcomes(world) == {"a": Outcome.CANCELLED, "b": Outcome.OK}


async def test_after_its_content_the_winner_fails_alone() -> None:
    """The error ends the stream; nobody takes over."""
    world = hedging(streamed(b": ping\n\n", None), streamed(delta(content="x"), ConnectionLost()))
    call = new_call(stream=True)
    with pytest.raises(UpstreamTruncated):
        await world.stream(call, "abc")
    assert asked(call) == "ab"


async def test_if_the_first_fails_the_second_is_its_fallback() -> None:
    """It runs already, so no third one starts beside it."""
    fails, begins = asyncio.Event(), asyncio.Event()
    world = hedging(streamed(fails, ConnectionLost()), streamed(begins, *COMPLETE))
    call = new_call(stream=True)
    task = asyncio.create_task(world.stream(call, "abc"))
    while len(world.replies) < 2:  # noqa: ASYNC110 - nothing tells when it changes
        await asyncio.sleep(0)
    fails.set()
    await turns()
    begins.set()
    assert "".join(await task) == "Hi"
    assert asked(call) == "ab"


async def test_if_both_fail_the_third_is_asked() -> None:
    """And all of them count as attempts."""
    fails = asyncio.Event()
    world = hedging(streamed(fails, ConnectionLost()), error(500), streamed(*COMPLETE))
    call = new_call(stream=True)
    task = asyncio.create_task(world.stream(call, "abc"))
    while len(world.ended) < 1:  # noqa: ASYNC110 - nothing tells when it changes
        await asyncio.sleep(0)
    fails.set()
    assert "".join(await task) == "Hi"
    assert asked(call) == "abc"


async def test_all_attempts_of_a_hedged_call_are_bounded() -> None:
    """By `max_retries`, as without hedges."""
    world = hedging(*(error(500) for _ in range(9)), after=0.0001, retries=9)
    world.router = structs.replace(world.router, breaker=Breaker(failures=1000), retry_budget=1.0)
    call = new_call()
    with pytest.raises(AllDown):
        await world.complete(call, "abcd")
    assert len(call.attempts) <= 4


async def test_cancelling_the_call_ends_both() -> None:
    """Both connections close, and both have their rows."""
    replies = [streamed(b": ping\n\n", None), streamed(b": ping\n\n", None)]
    world, call = hedging(*replies), new_call(stream=True)
    task = asyncio.create_task(world.stream(call, "ab"))
    while len(world.replies) < 2:  # noqa: ASYNC110 - nothing tells when it changes
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert all(reply.closed for reply in replies)
    assert outcomes(world) == {"a": Outcome.CANCELLED, "b": Outcome.CANCELLED}


# --- when not ---------------------------------------------------------------------------------------------------------


async def unhedged(world: World, call: Call, names: str = "ab") -> bool:
    """True if the call waits for its first candidate, however long that takes, and asks nobody else."""
    begins = asyncio.Event()
    world._answers.insert(0, streamed(begins, *COMPLETE))
    task = asyncio.create_task(world.stream(call, names))
    await asyncio.sleep(4 * LATE_S)
    begins.set()
    return ("".join(await task), asked(call)) == ("Hi", "a")


async def test_it_is_off_unless_somebody_wants_it() -> None:
    """No key of the configuration, no hedge."""
    assert await unhedged(World(), new_call(stream=True))


async def test_without_another_candidate_there_is_no_hedge() -> None:
    """Nor if the other one is not well."""
    assert await unhedged(hedging(), new_call(stream=True), "a")
    world = hedging()
    for _ in range(5):
        world.board.observe("b/m", AttemptEnd("1", "c", Outcome.UPSTREAM_ERROR, 500))
    assert await unhedged(world, new_call(stream=True))
    world.now_s += 30
    assert await unhedged(world, new_call(stream=True))


async def test_extra_spending_is_capped() -> None:
    """By the share of what was spent: the loser may cost its hold."""
    assert await unhedged(hedging(ratio=0.1, spent_nano=1000), new_call(stream=True))
    world = hedging(streamed(b": ping\n\n", None), streamed(*COMPLETE), ratio=0.5, spent_nano=10**7)
    call = new_call(stream=True, max_tokens=10)
    await world.stream(call, "ab")
    assert asked(call) == "ab"
    world.now_s += 60
    assert await unhedged(hedging(ratio=0.1, spent_nano=world.holds[0] or 0), new_call(stream=True, max_tokens=10))


async def test_the_limits_of_the_call_bind_hedges() -> None:
    """Its cost: two holds do not fit."""
    call = new_call(stream=True, max_tokens=10)
    world = World(streamed(*COMPLETE))
    await world.stream(new_call(stream=True, max_tokens=10), "a")
    call.request = structs.replace(call.request, hints=Hints(max_cost_usd=1.5 * (world.holds[0] or 0) / NANO_PER_USD))
    call.bounds = Bounds(900, 900).narrowed(call.request, {})
    assert await unhedged(hedging(), call)


async def test_retry_budgets_bind_hedges() -> None:
    """At most a fifth of the requests to a deployment are hedged, and of those of a caller."""
    world = hedging()
    while world.board.takes_extra("a/m", None):
        pass
    assert await unhedged(world, new_call(stream=True))


async def test_the_p95_is_learned_first() -> None:
    """Without enough answers nobody knows what is late."""
    assert await unhedged(hedging(after="p95"), new_call(stream=True))
    world = hedging(streamed(b": ping\n\n", None), streamed(*COMPLETE), after="p95")
    for _ in range(MIN_SAMPLES):
        world.board.observe("a/m", AttemptEnd("1", "c", Outcome.OK, 200), 5.0)
    call = new_call(stream=True)
    await world.stream(call, "ab")
    assert asked(call) == "ab"
