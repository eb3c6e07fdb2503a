"""The life of one request: settled exactly once, before the client sees its end, whatever cuts it short."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, cast

import pytest

from proxy.metering.pricing import ModelPrice
from proxy.pipeline.admission import Admission, KeyPolicies
from proxy.pipeline.call import Call
from proxy.pipeline.key_settings import RateLimitsConfig
from proxy.pipeline.limits import Limits, RateLimit
from proxy.pipeline.pipeline import Pipeline
from proxy.pipeline.running import ClientLeft, RunningCall
from proxy.routing.deployment import Route
from proxy.routing.router import Router
from proxy.schema.errors import BadRequest, ProxyError, StorageUnavailable, UpstreamError
from proxy.schema.records import Caller, Outcome
from proxy.server.formats.chat import CHAT, ChatFormat
from proxy.server.formats.chat_answer import DONE
from tests.pipeline.world import (
    ANSWER_NANO,
    COMPLETE,
    USAGE_END,
    RouterOf,
    World,
    chat_body,
    delta,
    error,
    everything,
    streamed,
    turns,
    whole,
)

IMAGE = {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}
PICTURED: dict[str, Any] = {"messages": [{"role": "user", "content": [IMAGE]}]}


def answers(stream: bool) -> World:
    """A world with one good answer."""
    return World(streamed(*COMPLETE) if stream else whole())


async def read(running: RunningCall, into: list[bytes]) -> None:
    """What a client reads as it comes."""
    while piece := await running.output.read():
        into.append(piece)


# --- settled before its end -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_the_client_sees_the_end_only_after_the_call_is_settled(stream: bool) -> None:
    """A client that has the last byte of an answer can read its cost in the ledger."""
    world = answers(stream)
    world.stuck_at = {"settle"}
    running = await world.begin(world.pipeline(), stream)
    received: list[bytes] = []
    reading = asyncio.create_task(read(running, received))
    await world.reached.wait()
    await turns()
    assert (b"Hi" in b"".join(received), reading.done()) == (stream, False)
    assert DONE not in b"".join(received)
    assert b'finish_reason":"stop' not in b"".join(received)
    world.release.set()
    await reading
    assert (b"Hi" in b"".join(received), received[-1].endswith(DONE)) == (True, stream)
    assert [end.outcome for end in world.closed] == [Outcome.OK]
    assert world.log[-2:] == [("end", "call-1"), ("settle", "call")]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_vault_keeps_its_state_before_the_call_is_settled(stream: bool) -> None:
    """A client with the answer can continue the conversation."""
    world = answers(stream)
    world.stuck_at = {"keep"}
    running = await world.begin(world.pipeline(), stream)
    await world.reached.wait()
    assert (world.closed, running.call.settled) == ([], None)
    world.release.set()
    assert b"Hi" in await everything(running)
    assert [end.outcome for end in world.closed] == [Outcome.OK]


async def test_the_end_of_a_stream_leaves_in_one_piece() -> None:
    """The finish, the usage and `[DONE]`, which mark the answer as complete."""
    world = answers(stream=True)
    world.stuck_at = {"settle"}
    running = await world.begin(world.pipeline(), True, stream_options={"include_usage": True})
    await world.reached.wait()
    received = [await running.output.read()]
    world.release.set()
    await read(running, received)
    before, end = received
    assert (b"Hi" in before, before.count(b'usage":{'), before.count(DONE)) == (True, 0, 0)
    assert (end.count(b'finish_reason":"stop'), end.count(b'usage":{'), end.count(DONE)) == (1, 1, 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_is_settled_before_it_is_told(stream: bool) -> None:
    """With the failed attempts."""
    world = World(error(500), error(503))
    world.stuck_at = {"settle"}
    running = await world.begin(world.pipeline(), stream, "ab")
    reading = asyncio.create_task(running.output.read())
    await world.reached.wait()
    await turns()
    assert not reading.done()
    world.release.set()
    with pytest.raises(UpstreamError) as caught:
        await reading
    assert (caught.value.status, caught.value.headers["x-should-retry"]) == (503, "false")
    (end,) = world.closed
    assert (end.outcome, end.status, end.fallback) == (Outcome.UPSTREAM_ERROR, 503, True)
    assert world.ends == [end]


async def test_a_stream_that_fails_tells_what_came_and_then_why() -> None:
    """The error is raised once all frames were read; the API makes a frame of it."""
    world = World(streamed(COMPLETE[0], UpstreamError("broke off")))
    running = await world.begin(world.pipeline(), stream=True)
    received: list[bytes] = []
    with pytest.raises(UpstreamError, match="broke off"):
        await read(running, received)
    assert b"Hi" in b"".join(received)
    assert [(end.outcome, end.status) for end in world.closed] == [(Outcome.UPSTREAM_ERROR, 502)]


class Unwritable(ChatFormat):
    """A shape in which no answer can be written."""

    def whole(self, call: Call, answer: Any) -> bytes:
        raise ProxyError("It cannot be said in this shape.", status=502, code="upstream_error")


async def test_an_answer_that_cannot_be_written_is_settled_once() -> None:
    """It was received and billed; the client gets an error."""
    world = World(whole())
    pipeline = world.pipeline()
    call, route = await admit(pipeline, "call")
    running = pipeline.start(call, route, Unwritable())
    with pytest.raises(ProxyError, match="cannot be said"):
        await running.output.read()
    await running.ended()
    assert [end.outcome for end in world.closed] == [end.outcome for end in world.ends] == [Outcome.OK]


# --- what is not settled ----------------------------------------------------------------------------------------------


async def test_a_call_that_was_not_opened_leaves_no_row() -> None:
    """The ledger refused it, so it cannot take its end either. The client gets the reason."""
    world = World()
    world.refuse_intent_of = 1
    running = await world.begin(world.pipeline())
    with pytest.raises(StorageUnavailable):
        await running.output.read()
    assert ("settle", "call") not in world.log
    assert ("reject", "call") not in world.log
    assert [(end.outcome, end.status) for end in world.ends] == [(Outcome.REJECTED, 503)]


async def test_a_later_attempt_that_was_not_granted_settles_the_call() -> None:
    """The cost of its earlier attempts is in its row."""
    world = World(error(500))
    world.refuse_intent_of = 2
    running = await world.begin(world.pipeline(), route="ab")
    with pytest.raises(StorageUnavailable):
        await running.output.read()
    assert world.log[-1] == ("settle", "call")


async def test_a_call_that_nobody_can_take_is_rejected_with_a_row() -> None:
    """Before anything was opened."""
    world = World()
    blind = ModelPrice(input=2.0, output=10.0, supports=[])
    running = await world.begin(world.pipeline(), route=Route("x", (world.deployment("a", blind),)), **PICTURED)
    with pytest.raises(BadRequest):
        await running.output.read()
    assert world.log == [("reject", "call")]
    assert [(end.outcome, end.status) for end in world.ends] == [(Outcome.REJECTED, 400)]


async def test_a_body_that_names_a_model_and_cannot_be_used_is_rejected_with_a_row() -> None:
    """An unreadable body names no model."""
    world = World()
    pipeline = world.pipeline()
    with pytest.raises(BadRequest):
        await pipeline.admit("call", Caller(), b'{"model": "x", "messages": []}', CHAT)
    with pytest.raises(BadRequest):
        await pipeline.admit("other", Caller(), b'{"model": "x", ', CHAT)
    assert world.log == [("reject", "call")]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_bug_is_told_as_it_is_and_its_call_is_closed(stream: bool) -> None:
    """As unknown: the ledger gets an end for it."""
    world = World(cast(Any, KeyError("oops")))
    running = await world.begin(world.pipeline(), stream)
    with pytest.raises(KeyError):
        await running.output.read()
    assert world.log[-2:] == [("end", "call-1"), ("close", "call")]
    assert [(end.outcome, end.status) for end in world.ends] == [(Outcome.UNKNOWN, 500)]


# --- places -----------------------------------------------------------------------------------------------------------


def limited(world: World, **limits: int) -> Pipeline:
    """A world with rate limits, enforced by the product's own admission."""
    policies = KeyPolicies({}, RateLimitsConfig(keyless=RateLimit(**limits)), Limits())
    return world.pipeline(admission=Admission(policies, cast(Router, RouterOf(world))))


async def admit(pipeline: Pipeline, name: str, **fields: Any) -> tuple[Call, Route]:
    return await pipeline.admit(name, Caller(), chat_body(**fields), CHAT)


async def test_a_client_that_leaves_while_it_is_admitted_gives_its_place_back() -> None:
    """The next request of the same key is admitted."""
    world = World()
    pipeline = limited(world, concurrent=1)
    world.stuck_at = {"route"}
    admitting = asyncio.create_task(admit(pipeline, "c"))
    await world.reached.wait()
    with pytest.raises(ProxyError, match="concurrent is 1, 1 in use"):
        await admit(pipeline, "d")
    admitting.cancel()
    await asyncio.wait([admitting])
    assert admitting.cancelled()
    world.release.set()
    call, _ = await admit(pipeline, "e")
    assert call.id == "e"


async def test_a_call_that_is_refused_gives_its_place_back() -> None:
    """By the router, after the place was taken."""
    pipeline = limited(World(), concurrent=1)
    for _ in range(2):
        with pytest.raises(ProxyError, match="no model 'nobody'"):
            await admit(pipeline, "c", model="nobody")


@pytest.mark.parametrize("how", ["ok", "failed", "left", "not opened"])
async def test_a_call_gives_its_place_back_when_it_ends(how: str) -> None:
    """However it ends, and once."""
    world = World(None if how == "left" else error(500) if how == "failed" else whole(), whole())
    pipeline = limited(world, concurrent=1)
    world.refuse_intent_of = 1 if how == "not opened" else None
    running = pipeline.start(*await admit(pipeline, "c"), CHAT)
    await turns()
    if how == "left":
        running.leave()
    with contextlib.suppress(ProxyError, ClientLeft):
        await running.output.read()
    await running.ended()
    await admit(pipeline, "d")
    with pytest.raises(ProxyError, match="concurrent is 1, 1 in use"):
        await admit(pipeline, "e")


# --- stopping ---------------------------------------------------------------------------------------------------------


async def test_a_pipeline_that_closes_cancels_what_still_runs() -> None:
    """Each call is settled by then, and its client gets a 503."""
    world = World(None)
    pipeline = world.pipeline()
    running = await world.begin(pipeline)
    await turns()
    await pipeline.close()
    with pytest.raises(ProxyError) as caught:
        await running.output.read()
    assert (caught.value.status, caught.value.code, caught.value.headers) == (503, "overloaded", {"retry-after": "1"})
    assert [(end.outcome, end.status) for end in world.closed] == [(Outcome.CANCELLED, 503)]
    assert [end.outcome for end in world.ended] == [Outcome.CANCELLED]


async def test_a_pipeline_that_closes_waits_for_what_is_drained() -> None:
    """The client of a finished stream left: its usage is still read."""
    more = asyncio.Event()
    world = World(streamed(COMPLETE[0] + delta("stop"), more, USAGE_END))
    pipeline = world.pipeline()
    running = await world.begin(pipeline, stream=True)
    await turns()
    running.leave()
    closing = asyncio.create_task(pipeline.close())
    await turns()
    assert not closing.done()
    more.set()
    await closing
    assert [(end.outcome, end.cost_nano) for end in world.ended] == [(Outcome.CLIENT_CLOSED, ANSWER_NANO)]


async def test_a_pipeline_without_calls_closes_at_once() -> None:
    """Also one whose calls have ended."""
    world = answers(stream=False)
    pipeline = world.pipeline()
    running = await world.begin(pipeline)
    await everything(running)
    closing = asyncio.create_task(pipeline.close())
    await turns()
    assert closing.done()
