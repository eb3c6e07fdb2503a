"""The life of one request where it is cut short: what was used is written down, whatever the pipeline waits for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from proxy.metering.ledger import Ledger
from proxy.metering.pricing import ModelPrice
from proxy.pipeline.admission import Admission, KeyPolicies, RateLimitsConfig
from proxy.pipeline.call import Attempt, Call
from proxy.pipeline.dispatch import Dispatcher
from proxy.pipeline.limits import Limits, RateLimit
from proxy.pipeline.pipeline import Pipeline
from proxy.pipeline.reasoning_state import ReasoningState
from proxy.pipeline.timing import Clock
from proxy.providers.openai import OpenAI
from proxy.routing.allowed import Allowed
from proxy.routing.names import Deployment, Route
from proxy.routing.router import Router
from proxy.schema.chat import AnyRequest, ChatChunk, ChatRequest, ChatResponse
from proxy.schema.errors import ProxyError
from proxy.schema.records import CallEnd, Caller, CallOpen, Outcome
from proxy.server.formats.chat_stream import DONE

ROUTE = Route("x", (Deployment("a", OpenAI(), "m", ModelPrice(input=1, output=1)),))
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}


class World:
    """Admission, router, dispatcher, vault and ledger at once. The step `stuck_at` never ends unless it is released."""

    def __init__(self, stuck_at: str) -> None:
        self.config_version = "v1"
        self.reached = asyncio.Event()
        self.release = asyncio.Event()
        self.closed: list[CallEnd] = []
        self.told: list[CallEnd] = []
        self._stuck_at = stuck_at

    async def admit(self, call: Call) -> Route:
        return ROUTE

    async def route(self, name: str, allowed: Allowed | None = None) -> Route:
        await self._stay("route")
        return ROUTE

    async def restore(self, caller: Caller, request: AnyRequest) -> AnyRequest:
        await self._stay("restore")
        return request

    async def keep(self, *_: Any) -> None:
        await self._stay("keep")

    async def _stay(self, where: str) -> None:
        if where == self._stuck_at:
            self.reached.set()
            await self.release.wait()

    def _answered(self, call: Call) -> Attempt:
        attempt = Attempt(call, ROUTE.candidates[0], call.request)
        call.attempts.append(attempt)
        attempt.note_sent()
        return attempt

    async def complete(self, call: Call, route: Route) -> ChatResponse:
        response = cast(ChatResponse, {"choices": [CHOICE], "usage": USAGE})
        attempt = self._answered(call)
        attempt.note_whole(response)
        attempt.note_answered()
        return response

    async def stream(self, call: Call, route: Route) -> AsyncGenerator[list[ChatChunk], None]:
        attempt = self._answered(call)
        chunk = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}], "usage": USAGE}
        attempt.fold.add(cast(ChatChunk, chunk))
        attempt.finished = True
        attempt.note_answered()
        yield [cast(ChatChunk, chunk)]

    async def settle(self, end: CallEnd) -> None:
        await self._stay("settle")
        self.closed.append(end)

    def reject(self, opening: CallOpen, end: CallEnd) -> None:
        self.closed.append(end)

    def close(self, end: CallEnd) -> None:
        self.closed.append(end)

    def end(self, *_: Any) -> None:
        raise RuntimeError("there was one attempt")

    def pipeline(self, gate: Admission | None = None) -> Pipeline:
        me: Any = self
        return Pipeline(
            gate or cast(Admission, me),
            cast(Dispatcher, me),
            cast(ReasoningState, me),
            cast(Ledger, me),
            Clock(lambda: 1, lambda: 1.0),
            lambda call, end: self.told.append(end),
        )


def body(stream: bool = False) -> bytes:
    return json.dumps({"model": "x", "messages": [{"role": "user", "content": "hi"}], "stream": stream}).encode()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("stuck_at", "cost_nano"), [("restore", None), ("keep", 5_000)])
async def test_a_client_that_leaves_while_the_vault_works_is_settled_once(
    stuck_at: str, cost_nano: int | None, stream: bool
) -> None:
    """With what the answer cost, if there was one; nobody waits for anything then."""
    world = World(stuck_at)
    pipeline = world.pipeline()
    call, route = await pipeline.admit("c", Caller(), body(stream), ChatRequest)

    async def read() -> None:
        if stream:
            async for _ in pipeline.stream(call, route):
                continue
        else:
            await pipeline.complete(call, route)

    reading = asyncio.create_task(read())
    await world.reached.wait()
    call.note_gone()
    reading.cancel()
    await asyncio.wait([reading])
    assert reading.cancelled()
    (end,) = world.closed
    assert world.told == [end]
    assert (end.outcome, end.status) == (Outcome.CLIENT_CLOSED, 499)
    assert (end.attempt and end.attempt.cost_nano) == cost_nano


@pytest.mark.parametrize("stream", [False, True])
async def test_the_client_sees_the_end_only_after_the_call_is_settled(stream: bool) -> None:
    """A client that has the last byte of an answer can read its cost in the ledger."""
    world = World("settle")
    pipeline = world.pipeline()
    call, route = await pipeline.admit("c", Caller(), body(stream), ChatRequest)
    received: list[bytes] = []

    async def read() -> None:
        if stream:
            async for frame in pipeline.stream(call, route):
                received.append(frame)
        else:
            received.append(await pipeline.complete(call, route))

    reading = asyncio.create_task(read())
    await world.reached.wait()
    await asyncio.wait([reading], timeout=0.05)
    assert (b"Hi" in b"".join(received), reading.done()) == (stream, False)
    assert DONE not in b"".join(received)
    world.release.set()
    await reading
    assert (b"Hi" in b"".join(received), received[-1].endswith(DONE)) == (True, stream)
    assert [end.outcome for end in world.closed] == [Outcome.OK]


async def test_a_client_that_leaves_while_it_is_admitted_gives_its_place_back() -> None:
    """The next request of the same key is admitted."""
    world = World("route")
    rates = RateLimitsConfig(RateLimit(concurrent=1))
    pipeline = world.pipeline(Admission(KeyPolicies({}, rates, Limits()), cast(Router, world)))
    admitting = asyncio.create_task(pipeline.admit("c", Caller(), body(), ChatRequest))
    await world.reached.wait()
    with pytest.raises(ProxyError, match="concurrent is 1, 1 in use"):
        await pipeline.admit("d", Caller(), body(), ChatRequest)
    admitting.cancel()
    await asyncio.wait([admitting])
    assert admitting.cancelled()
    world.release.set()
    _, route = await pipeline.admit("e", Caller(), body(), ChatRequest)
    assert route is ROUTE
