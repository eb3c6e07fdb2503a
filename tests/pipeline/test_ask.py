"""Asks by name, as ensembles make them: concurrent, each with its own fallback order and gate."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from msgspec import structs

from proxy.pipeline.call import Call
from proxy.pipeline.dispatch import CallAsk
from proxy.providers.openai import OpenAI
from proxy.routing.allowed import Allowed
from proxy.routing.ask import Answer, Ask, Origin
from proxy.routing.router import Router
from proxy.routing.settings import RouterConfig
from proxy.schema.chat import ChatChunk, ChatRequest, ChatResponse
from proxy.schema.errors import BadRequest, ProxyError, UpstreamError, UpstreamTruncated
from proxy.schema.records import Outcome
from proxy.upstream.transports.base import ConnectionLost
from tests.pipeline.world import (
    COMPLETE,
    USAGE,
    RouterOf,
    World,
    asked,
    delta,
    error,
    new_call,
    said,
    streamed,
    stuck,
    turns,
    whole,
)

ALLOWED = Allowed("mobile", (("a/*",),))


def ask_of(world: World, call: Call, allowed: Allowed | None = None) -> tuple[Ask, RouterOf]:
    """The `Ask` that an ensemble gets, and its router."""
    router = RouterOf(world)
    return CallAsk(world.dispatcher(), cast(Router, router), call, allowed), router


def text(answer: Answer) -> str:
    return cast(ChatResponse, answer.response)["choices"][0]["message"]["content"] or ""


def chat(call: Call) -> ChatRequest:
    return cast(ChatRequest, call.request)


class Sink:
    """Takes batches. `room`, if set, blocks the writer."""

    def __init__(self, room: asyncio.Future[None] | None = None) -> None:
        self.texts: list[str] = []
        self._room = room

    def __call__(self, batch: list[ChatChunk]) -> asyncio.Future[None] | None:
        self.texts.append(said(batch))
        return self._room

    @property
    def text(self) -> str:
        return "".join(self.texts)


# --- whole ------------------------------------------------------------------------------------------------------------


async def test_several_names_are_asked_at_once_without_touching_the_call() -> None:
    """The call's gate, answer and request stay unchanged; the asker decides what its asks mean."""
    world, call = World(whole("one"), whole("two"), whole("three")), new_call()
    ask, _ = ask_of(world, call)
    request, names = call.request, ["a", "b", "c"]
    answers = await asyncio.gather(*(ask.ask(name, request, Origin(seat=seat)) for seat, name in enumerate(names)))
    assert [text(answer) for answer in answers] == ["one", "two", "three"]
    assert [answer.deployments[0].provider_name for answer in answers] == names
    assert (call.answered, call.gate.is_closed, call.request, call.settled) == ([], False, request, None)
    assert [(each.id, each.provider, each.seat, each.parent) for each in world.opened] == [
        ("call-1", "a", 0, None),
        ("call-2", "b", 1, None),
        ("call-3", "c", 2, None),
    ]


async def test_they_run_side_by_side() -> None:
    """The one asked first answers last."""
    first = asyncio.Event()
    reply = whole("slow")
    reply._pieces.insert(0, first)
    world, call = World(reply, whole("fast")), new_call()
    ask, _ = ask_of(world, call)
    slow = asyncio.create_task(ask.ask("a", call.request))
    await turns()
    assert text(await ask.ask("b", call.request)) == "fast"
    assert not slow.done()
    first.set()
    assert text(await slow) == "slow"


async def test_each_ask_has_a_fallback_order_of_its_own() -> None:
    """Attempts are counted per ask: each may make as many as a separate call."""
    failed = RouterConfig().max_retries
    script = [*(error(500) for _ in range(failed)), whole("one"), *(error(500) for _ in range(failed)), whole("two")]
    world, call = World(*script, retries=1), new_call()
    world.router = RouterConfig(retry_budget=1.0)
    ask, _ = ask_of(world, call)
    assert text(await ask.ask("abc", call.request)) == "one"
    assert asked(call) == "aabc"
    assert text(await ask.ask("abc", call.request)) == "two"
    assert asked(call) == "aabcaabc"


async def test_the_failure_of_one_ask_is_its_own() -> None:
    """The others continue, and so does the call."""
    world, call = World(error(401), whole("two")), new_call()
    ask, _ = ask_of(world, call)
    failed, answered = await asyncio.gather(
        ask.ask("a", call.request), ask.ask("b", call.request), return_exceptions=True
    )
    assert isinstance(failed, UpstreamError)
    assert isinstance(answered, Answer)
    assert [end.outcome for end in world.ended] == [Outcome.UPSTREAM_ERROR, Outcome.OK]
    assert world.closed == []


@pytest.mark.parametrize("stream", [False, True])
async def test_cancelling_one_ask_closes_its_connection_only(stream: bool) -> None:
    """As in an ensemble that has enough answers. The attempt ends as cancelled; the call goes on."""
    loser = streamed(delta(content="x"), None) if stream else stuck()
    winner = streamed(*COMPLETE) if stream else whole()
    world, call = World(loser, winner), new_call(stream=stream)
    ask, _ = ask_of(world, call)

    def one(name: str) -> Any:
        return ask.stream(name, chat(call), Sink()) if stream else ask.ask(name, call.request)

    losing = asyncio.create_task(one("a"))
    await turns()
    answer = await one("b")
    losing.cancel()
    await asyncio.wait([losing])
    assert (losing.cancelled(), loser.closed) == (True, True)
    assert {end.id: end.outcome for end in world.ended} == {"call-1": Outcome.CANCELLED, "call-2": Outcome.OK}
    assert answer.attempts == ("call-2",)
    assert (call.cancelled_by, call.gate.is_closed) == (None, False)


async def test_an_ask_may_ask_for_something_else_than_the_call() -> None:
    """A judge reads different messages, and its answer may be whole in a streamed call."""
    world, call = World(whole("verdict")), new_call(stream=True)
    ask, _ = ask_of(world, call)
    fields = {"messages": [{"role": "user", "content": "judge"}], "max_tokens": 5}
    request = structs.replace(chat(call), stream=False, max_tokens=5, fields=fields)
    assert text(await ask.ask("b", request)) == "verdict"
    assert world.bodies[0]["messages"] == fields["messages"]
    assert world.bodies[0].get("stream") is None


async def test_an_answer_may_be_made_by_several_deployments() -> None:
    """The call's usage is their sum, without the attempts that lost."""
    world, call = World(whole("one"), whole("two"), whole("lost")), new_call()
    ask, _ = ask_of(world, call)
    first, second, _ = [await ask.ask(name, call.request) for name in "abc"]
    call.note_answered([*first.attempts, *second.attempts])
    assert [attempt.deployment.provider_name for attempt in call.answered] == ["a", "b"]
    assert call.usage()["total_tokens"] == 2 * USAGE["total_tokens"]
    assert call.usage()["cost"] == call.cost_usd() == pytest.approx(3 * 16_000 / 1e9)


class Single(OpenAI, frozen=True, kw_only=True):
    """A vendor that returns only one choice."""

    def max_choices(self, model: str) -> int | None:
        return 1


@pytest.mark.parametrize("stream", [False, True])
async def test_choices_of_an_ask_have_its_names_and_stand_where_it_stands(stream: bool) -> None:
    """With a vendor of one choice per request, each choice is an attempt under the ask's parent."""
    script = [streamed(*COMPLETE), streamed(*COMPLETE)] if stream else [whole("one"), whole("two")]
    world, call = World(*script, kind=Single), new_call(stream=stream, n=2)
    ask, _ = ask_of(world, call)
    origin = Origin("call-0", 3)
    answer = await (ask.stream("b", chat(call), Sink(), origin) if stream else ask.ask("b", call.request, origin))
    assert answer.attempts == ("call-1", "call-2")
    assert [deployment.name for deployment in answer.deployments] == ["b/m", "b/m"]
    assert [(each.parent, each.seat) for each in world.opened] == [("call-0", 0), ("call-0", 1)]


async def test_every_try_of_an_ask_stands_where_it_stands() -> None:
    """Its retries and fallbacks too."""
    world, call = World(error(500), error(500), whole(), retries=1), new_call()
    ask, _ = ask_of(world, call)
    await ask.ask("ab", call.request, Origin("call-0", 3))
    assert [(each.provider, each.parent, each.seat) for each in world.opened] == [
        ("a", "call-0", 3),
        ("a", "call-0", 3),
        ("b", "call-0", 3),
    ]


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_name_is_looked_up_as_its_caller_may(stream: bool) -> None:
    """An ensemble's members cannot bypass a key's allow-list."""
    world, call = World(streamed(*COMPLETE) if stream else whole()), new_call(stream=stream)
    ask, router = ask_of(world, call, ALLOWED)
    await (ask.stream("a", chat(call), Sink()) if stream else ask.ask("a", call.request))
    assert router.asked == [("a", ALLOWED)]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_name_that_nobody_answers_to_is_told(stream: bool) -> None:
    """Before anything is opened."""
    world, call = World(), new_call(stream=stream)
    ask, _ = ask_of(world, call)
    with pytest.raises(ProxyError, match="no model 'nobody'"):
        await (ask.stream("nobody", chat(call), Sink()) if stream else ask.ask("nobody", call.request))
    assert (world.log, call.attempts) == ([], [])


async def test_what_cannot_be_sent_is_told_to_who_asked() -> None:
    """As for a separate call; other asks may continue."""

    class Refusing(OpenAI, frozen=True, kw_only=True):
        def build_request(self, request: Any, model: str) -> Any:
            raise BadRequest("no images here", code="unsupported_content")

    world, call = World(kind=Refusing), new_call()
    ask, _ = ask_of(world, call)
    with pytest.raises(BadRequest):
        await ask.ask("ab", call.request)
    assert asked(call) == "a"


# --- streams ----------------------------------------------------------------------------------------------------------


async def test_streams_of_several_names_have_gates_of_their_own() -> None:
    """Content of one commits neither the others nor the call."""
    more = asyncio.Event()
    world = World(streamed(*COMPLETE), streamed(more, ConnectionLost()), streamed(*COMPLETE))
    call = new_call(stream=True)
    ask, _ = ask_of(world, call)
    one, two = Sink(), Sink()
    first = asyncio.create_task(ask.stream("a", chat(call), one))
    second = asyncio.create_task(ask.stream("bc", chat(call), two))
    await first
    more.set()
    answer = await second
    assert (one.text, two.text) == ("Hi", "Hi")
    assert (answer.response, answer.deployments[0].provider_name) == (None, "c")
    assert (call.gate.is_closed, call.answered) == (False, [])


async def test_once_a_batch_was_taken_no_other_candidate_answers() -> None:
    """The same rule as for a call's own stream."""
    world, call = World(streamed(delta(content="x"), ConnectionLost()), streamed(*COMPLETE)), new_call(stream=True)
    ask, _ = ask_of(world, call)
    sink = Sink()
    with pytest.raises(UpstreamTruncated):
        await ask.stream("ab", chat(call), sink)
    assert (sink.text, asked(call)) == ("x", "a")


async def test_a_full_sink_holds_up_its_own_stream_only() -> None:
    """Each member has its own reader."""
    room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    pieces = (delta(content="1"), delta(content="2"))
    world, call = World(streamed(*pieces, *COMPLETE), streamed(*pieces, *COMPLETE)), new_call(stream=True)
    ask, _ = ask_of(world, call)
    held, free = Sink(room), Sink()
    holding = asyncio.create_task(ask.stream("a", chat(call), held))
    await turns()
    await ask.stream("b", chat(call), free)
    assert (held.text, free.text, holding.done()) == ("1", "12Hi", False)
    room.set_result(None)
    await holding
    assert held.text == "12Hi"
