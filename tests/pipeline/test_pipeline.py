"""The life of one request where it is cut short: what was used is written down, whatever the pipeline waits for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from proxy.metering.ledger import Ledger
from proxy.metering.pricing import ModelPrice
from proxy.pipeline.admission import Admission
from proxy.pipeline.call import Attempt, Call
from proxy.pipeline.dispatch import Dispatcher
from proxy.pipeline.pipeline import Pipeline
from proxy.pipeline.reasoning_state import ReasoningState
from proxy.pipeline.timing import Clock
from proxy.providers.openai import OpenAI
from proxy.routing.names import Deployment, Route
from proxy.schema.chat import AnyRequest, ChatChunk, ChatResponse
from proxy.schema.records import AttemptEnd, CallEnd, Caller, Outcome
from proxy.server.formats.chat import CHAT

ROUTE = Route("x", (Deployment("a", OpenAI(), "m", ModelPrice(input=1, output=1)),))
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}


class World:
    """Admission, dispatcher, vault and ledger at once. The vault never comes to an end with `stuck_at`."""

    def __init__(self, stuck_at: str) -> None:
        self.config_version = "v1"
        self.reached = asyncio.Event()
        self.closed: list[CallEnd] = []
        self.ended: list[AttemptEnd] = []
        self.told: list[CallEnd] = []
        self._stuck_at = stuck_at

    async def admit(self, call: Call) -> Route:
        return ROUTE

    async def restore(self, caller: Caller, request: AnyRequest) -> AnyRequest:
        await self._stay("restore")
        return request

    async def keep(self, *_: Any) -> None:
        await self._stay("keep")

    async def _stay(self, where: str) -> None:
        if where == self._stuck_at:
            self.reached.set()
            await asyncio.get_running_loop().create_future()

    def _answered(self, call: Call) -> Attempt:
        attempt = Attempt(call, ROUTE.candidates[0], call.request)
        call.attempts.append(attempt)
        attempt.note_sent()
        return attempt

    async def complete(self, call: Call, route: Route, request: AnyRequest) -> ChatResponse:
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

    def close(self, end: CallEnd) -> None:
        self.closed.append(end)

    def end(self, end: AttemptEnd) -> None:
        self.ended.append(end)

    def pipeline(self) -> Pipeline:
        me: Any = self
        return Pipeline(
            cast(Admission, me),
            cast(Dispatcher, me),
            cast(ReasoningState, me),
            cast(Ledger, me),
            Clock(lambda: 1, lambda: 1.0),
            lambda call, end: self.told.append(end),
        )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("stuck_at", "cost_nano"), [("restore", None), ("keep", 5_000)])
async def test_a_client_that_leaves_while_the_vault_works_is_settled_once(
    stuck_at: str, cost_nano: int | None, stream: bool
) -> None:
    """With what the answer cost, if there was one; nobody waits for anything then."""
    world = World(stuck_at)
    pipeline = world.pipeline()
    body = {"model": "x", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    call, route = await pipeline.admit("c", Caller(), json.dumps(body).encode(), CHAT)

    async def read() -> None:
        if stream:
            async for _ in pipeline.stream(call, route, CHAT.writer(call)):
                continue
        else:
            await pipeline.complete(call, route, CHAT)

    reading = asyncio.create_task(read())
    await world.reached.wait()
    call.note_gone()
    reading.cancel()
    await asyncio.wait([reading])
    assert reading.cancelled()
    (end,) = world.closed
    assert world.told == [end]
    assert (end.outcome, end.status) == (Outcome.CLIENT_CLOSED, 499)
    assert [each.cost_nano for each in world.ended] == ([] if cost_nano is None else [cost_nano])
