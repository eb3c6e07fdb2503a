"""The attempt loop: which deployments are asked, how often, after what wait, and what is recorded first."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest
from msgspec import structs

from proxy.metering.pricing import ModelPrice
from proxy.metering.tokens import estimate
from proxy.pipeline.call import Call
from proxy.providers.base.contract import Built
from proxy.providers.openai import OpenAI
from proxy.routing.deployment import Deployment, Route
from proxy.schema.attempt_state import AttemptState
from proxy.schema.chat import ChatChunk, ChatRequest, ChatResponse
from proxy.schema.errors import (
    AllDown,
    Availability,
    BadRequest,
    ProxyError,
    StorageUnavailable,
    UpstreamError,
    UpstreamTruncated,
)
from proxy.schema.hints import Hints
from proxy.schema.records import Outcome
from proxy.server.formats.chat_answer import sse
from proxy.upstream.transports.base import ConnectFailed, ConnectionLost
from tests.pipeline.world import (
    ANSWER_NANO,
    COMPLETE,
    PRICE,
    USAGE,
    USAGE_END,
    Reply,
    World,
    asked,
    delta,
    error,
    new_call,
    streamed,
    stuck,
    turns,
    whole,
)

# --- intents ----------------------------------------------------------------------------------------------------------


async def test_every_intent_is_committed_before_its_request_leaves() -> None:
    """The first together with the call; each attempt ends before the next begins."""
    world, call = World(error(500), error(503), whole()), new_call()
    assert await world.complete(call, "abc") == "Hi"
    assert world.log == [
        ("open", "call-1"),
        ("send", "call-1"),
        ("end", "call-1"),
        ("intend", "call-2"),
        ("send", "call-2"),
        ("end", "call-2"),
        ("intend", "call-3"),
        ("send", "call-3"),
        ("end", "call-3"),
    ]
    assert [(end.id, end.outcome, end.status) for end in world.ended] == [
        ("call-1", Outcome.UPSTREAM_ERROR, 500),
        ("call-2", Outcome.UPSTREAM_ERROR, 503),
        ("call-3", Outcome.OK, 200),
    ]
    assert [attempt.ended for attempt in world.observed] == world.ended


@pytest.mark.parametrize("refused", [1, 2])
async def test_without_its_intent_no_request_leaves(refused: int) -> None:
    """And the call's last attempt is the last one with a row."""
    world, call = World(error(500), whole()), new_call()
    world.refuse_intent_of = refused
    with pytest.raises(StorageUnavailable):
        await world.complete(call, "ab")
    assert [what for what, _ in world.log].count("send") == refused - 1
    assert [attempt.seq for attempt in call.attempts] == [1][: refused - 1]
    assert (call.is_open, len(world.ended), len(world.observed)) == (refused > 1, refused - 1, refused - 1)


async def test_the_number_of_an_attempt_that_was_withdrawn_is_not_used_again() -> None:
    """Its row may exist: perhaps only the answer to its commit was lost."""
    world, call = World(whole()), new_call()
    world.refuse_intent_of = 1
    with pytest.raises(StorageUnavailable):
        await world.complete(call)
    assert await world.complete(call) == "Hi"
    assert world.log == [("open", "call-2"), ("send", "call-2"), ("end", "call-2")]


async def test_an_attempt_that_is_cancelled_before_its_grant_leaves_nothing() -> None:
    """No request and no end, but its number is used up."""
    world, call = World(whole()), new_call()
    world.stuck_at = {"open"}
    asking = asyncio.create_task(world.complete(call))
    await world.reached.wait()
    (attempt,) = call.attempts
    asking.cancel()
    await asyncio.wait([asking])
    assert (call.attempts, call.is_open, attempt.state) == ([], False, AttemptState.WITHDRAWN)
    assert (world.log, world.ended, world.observed) == ([], [], [])
    assert call.next_seq() == 2


async def test_the_hold_is_a_bound_of_the_cost() -> None:
    """The request's bytes bound its tokens; max_tokens, or else the model's limit, bounds the output."""
    bounds: list[int | None] = []
    asks: list[dict[str, Any]] = [{}, {"max_tokens": 7}, {"max_tokens": 7, "n": 3}]
    for fields in asks:
        world = World(whole())
        await world.complete(new_call(**fields))
        bounds += world.holds
    default, seven, three_times = bounds
    assert default is not None
    assert seven is not None
    assert three_times is not None
    assert default > 100 * 10_000
    assert 7 * 10_000 < seven < default
    assert 14 * 10_000 <= three_times - seven < 14 * 10_000 + 20 * 2_000
    world = World(whole())
    await world.complete(new_call(), Route("x", (world.deployment("a", price=None),)))
    assert world.holds == [None]


# --- who is asked -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failures", "names", "retries", "expected"),
    [
        ([500, 500], "a", 2, "aaa"),
        ([500, 500], "abc", 0, "abc"),
        ([500, 500], "ab", 1, "aab"),
        ([429, 503], "abc", 0, "abc"),
        ([401], "ab", 2, "ab"),
        ([404], "ab", 2, "ab"),
    ],
)
async def test_retries_come_first_then_the_next_candidate(
    failures: list[int], names: str, retries: int, expected: str
) -> None:
    """Errors that a retry cannot fix are not retried."""
    world, call = World(*map(error, failures), whole(), retries=retries), new_call()
    assert await world.complete(call, names) == "Hi"
    assert asked(call) == expected


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_request_that_is_wrong_is_asked_once(status: int) -> None:
    """Even if there are other candidates."""
    world, call = World(error(status), retries=2), new_call()
    with pytest.raises(UpstreamError) as caught:
        await world.complete(call, "ab")
    assert (caught.value.status, asked(call)) == (status, "a")


@pytest.mark.parametrize(
    ("code", "expected"), [("context_length_exceeded", "ac"), ("content_filter", "ad"), ("other", "a")]
)
async def test_too_long_and_filtered_requests_have_their_own_fallbacks(code: str, expected: str) -> None:
    """They replace the rest of the list."""
    world, call = World(error(400, code), whole()), new_call()
    fallbacks = {"context_fallback": "ac", "content_fallback": "ad"}
    if expected == "a":
        with pytest.raises(UpstreamError):
            await world.complete(call, "ab", **fallbacks)
    else:
        await world.complete(call, "ab", **fallbacks)
    assert asked(call) == expected


async def test_no_call_makes_more_than_four_attempts() -> None:
    """Retries and fallbacks together; each candidate has its turn before one has all of its retries."""
    world, call = World(*(error(500) for _ in range(9)), retries=2), new_call()
    with pytest.raises(UpstreamError) as caught:
        await world.complete(call, "abcd")
    assert (asked(call), len(call.attempts)) == ("abcd", 4)
    assert caught.value.headers["x-should-retry"] == "false"


async def test_when_all_fail_each_is_named() -> None:
    """With its code, whether it is worth trying again, and when."""
    world, call = World(ConnectFailed(), error(429, retry_after="30"), error(401)), new_call()
    with pytest.raises(AllDown) as caught:
        await world.complete(call, "abc")
    assert (caught.value.status, caught.value.code) == (503, "upstream_unavailable")
    assert caught.value.headers == {"retry-after": "1", "x-should-retry": "false"}
    assert caught.value.availability == (
        Availability("a/m", "upstream_unavailable", True, 0.0),
        Availability("b/m", "rate_limit_exceeded", True, 30.0),
        Availability("c/m", "invalid_api_key", False, 60.0),
    )
    assert cast(Any, caught.value.body())["error"]["availability"] == caught.value.availability


async def test_a_lone_candidate_that_fails_says_it_in_its_own_words() -> None:
    """A client error keeps its own retry advice."""
    world, call = World(error(429, retry_after="30")), new_call()
    with pytest.raises(UpstreamError) as caught:
        await world.complete(call)
    assert (caught.value.status, caught.value.headers) == (429, {"retry-after": "30"})
    assert caught.value.availability == (Availability("a/m", "rate_limit_exceeded", True, 30.0),)


@pytest.mark.parametrize("status", [408, 409, 429])
async def test_what_was_repeated_in_vain_is_not_repeated_by_the_client(status: int) -> None:
    """Three tries of an SDK would become nine requests. One that was sent once may be repeated."""
    for retries, advice in ((2, "false"), (1, "false"), (0, None)):
        world, call = World(*(error(status) for _ in range(3)), retries=retries), new_call()
        with pytest.raises(UpstreamError) as caught:
            await world.complete(call)
        assert (caught.value.status, caught.value.headers.get("x-should-retry")) == (status, advice)
        assert len(call.attempts) == retries + 1


@pytest.mark.parametrize("is_hidden", [False, True])
async def test_an_empty_account_is_tried_once(is_hidden: bool) -> None:
    """By us and by the client, whether the status of HTTP says so or not."""
    body = json.dumps({"error": {"message": "Insufficient balance", "code": 402}}).encode()
    reply = Reply(200, {"content-type": "application/json"}, [body]) if is_hidden else error(402)
    world, call = World(reply, retries=2), new_call()
    with pytest.raises(UpstreamError) as caught:
        await world.complete(call)
    assert (caught.value.status, caught.value.code) == (429, "insufficient_quota")
    assert caught.value.headers["x-should-retry"] == "false"
    assert len(call.attempts) == 1
    assert (world.ended[0].usage_source, world.ended[0].cost_nano) == ("none", 0)


# --- what is not sent twice -------------------------------------------------------------------------------------------

BROKEN_STREAM = b": ping\n\n"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (ConnectionLost(), Outcome.UPSTREAM_TRUNCATED),
        (None, None),
        ([], Outcome.UPSTREAM_TRUNCATED),
        ([b"<html>"], None),
        ([b": ping\n\n", None], None),
        ([ConnectionLost()], Outcome.UPSTREAM_TRUNCATED),
        ([b'data: {"choices"'], None),
    ],
    ids=["lost after sending", "no headers", "empty", "unreadable", "stalled", "lost", "half"],
)
@pytest.mark.slow
async def test_a_request_that_may_be_worked_on_is_not_sent_again(
    failure: Any, outcome: Outcome | None, stream: bool
) -> None:
    """The same deployment could bill it twice. The next candidate may answer; the first is booked at its hold."""
    kind = "text/event-stream" if stream else "application/json"
    for names in ("a", "ab"):
        first = Reply(200, {"content-type": kind}, failure) if isinstance(failure, list) else failure
        second = streamed(*COMPLETE) if stream else whole()
        world, call = World(first, second, retries=2), new_call(stream=stream)
        asking = world.stream(call, names) if stream else world.complete(call, names)
        if names == "a":
            with pytest.raises(UpstreamError) as caught:
                await asking
            assert caught.value.headers["x-should-retry"] == "false"
        else:
            assert "".join(await asking) == "Hi"
        assert asked(call) == names
        lost = world.ended[0]
        assert (lost.usage_source, lost.cost_nano) == ("unknown", world.holds[0])
        assert lost.tokens.output == PRICE.max_output
        assert outcome in (None, lost.outcome)


@pytest.mark.parametrize("failure", [ConnectFailed(), error(500), error(429), error(529), error(408)])
async def test_a_request_that_was_refused_or_never_left_is_sent_again(failure: Any) -> None:
    """No vendor is processing it, and nothing was used."""
    world, call = World(failure, whole(), retries=2), new_call()
    assert await world.complete(call) == "Hi"
    assert [(end.usage_source, end.cost_nano) for end in world.ended] == [("none", 0), ("provider", ANSWER_NANO)]


# --- waiting ----------------------------------------------------------------------------------------------------------


async def test_the_wait_doubles_and_is_a_random_share() -> None:
    """Full jitter: callers that failed together do not retry together."""
    for share in (1.0, 0.5):
        world = World(error(500), error(500), whole(), retries=2)
        call = new_call()
        await world.dispatcher(backoff_s=0.1, random=share).complete(call, world.route(), call.request)
        first, second = world.waits()
        assert 0.1 * share - 0.002 <= first < 0.1 * share + 0.09
        assert 0.2 * share - 0.002 <= second < 0.2 * share + 0.09


async def test_a_provider_that_asks_for_time_gets_it() -> None:
    """If it is longer than our own back-off."""
    world = World(error(429, retry_after="0.1"), error(429, retry_after_ms="50"), whole(), retries=2)
    await world.complete(new_call())
    first, second = world.waits()
    assert (0.09 < first < 5, 0.04 < second < 5) == (True, True)


async def test_a_provider_that_asks_for_too_much_time_is_left() -> None:
    """For the next candidate, at once."""
    world, call = World(error(429, retry_after="11"), whole(), retries=2), new_call()
    await world.complete(call, "ab")
    assert asked(call) == "ab"
    assert world.waits() == [pytest.approx(0, abs=5)]


async def test_falling_back_does_not_wait() -> None:
    """There is no reason to wait for the next provider."""
    world = World(error(500), whole())
    call = new_call()
    await world.dispatcher(backoff_s=60).complete(call, world.route("ab"), call.request)
    assert world.waits() == [pytest.approx(0, abs=5)]


# --- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        ConnectFailed(),
        ConnectionLost(),
        error(500),
        streamed(),
        streamed(delta(role="assistant", content=""), ConnectionLost()),
        streamed(b": ping\n\n", sse({"error": {"message": "no", "code": 500}})),
    ],
)
async def test_before_the_first_delta_a_stream_falls_back(failure: Reply | Exception) -> None:
    """Nothing of the first answer is in the second."""
    world, call = World(failure, streamed(*COMPLETE)), new_call(stream=True)
    assert "".join(await world.stream(call)) == "Hi"
    assert asked(call) == "ab"


@pytest.mark.parametrize("piece", [{"content": "x"}, {"reasoning_content": "x"}, {"refusal": "x"}])
async def test_after_the_first_delta_a_stream_fails(piece: dict[str, str]) -> None:
    """No second model may answer, and none is retried."""
    world, call = World(streamed(delta(**piece), ConnectionLost()), retries=2), new_call(stream=True)
    with pytest.raises(UpstreamTruncated):
        await world.stream(call)
    assert asked(call) == "a"


async def streaming(
    world: World, call: Call, names: str = "a"
) -> tuple[asyncio.Task[list[str]], list[list[ChatChunk]]]:
    """A running stream that has received everything it can for now, and its batches."""
    batches: list[list[ChatChunk]] = []
    task = asyncio.create_task(world.stream(call, names, batches))
    await turns()
    return task, batches


async def test_a_stream_gives_out_what_it_has_at_once() -> None:
    """The first batch is here while the second has not been sent."""
    world, call = World(streamed(COMPLETE[0], None)), new_call(stream=True)
    task, batches = await streaming(world, call)
    ((chunk,),) = batches
    assert chunk["choices"][0]["delta"] == {"content": "Hi"}
    task.cancel()


async def test_nothing_leaves_before_the_first_delta() -> None:
    """The role is sent in the same batch: until then another model may answer."""
    more = asyncio.Event()
    world, call = World(streamed(delta(role="assistant", content=""), more, *COMPLETE)), new_call(stream=True)
    task, batches = await streaming(world, call)
    assert (batches, call.gate.is_closed) == ([], False)
    more.set()
    await task
    assert [chunk["choices"][0]["delta"] for chunk in batches[0]] == [{}, {"content": "Hi"}]
    assert call.gate.attempt is call.answering


async def test_a_full_sink_holds_its_stream_up() -> None:
    """What the sink returns is awaited before the next bytes are read."""
    room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    taken: list[list[ChatChunk]] = []

    def sink(batch: list[ChatChunk]) -> asyncio.Future[None]:
        taken.append(batch)
        return room

    world, call = World(streamed(delta(content="a"), delta(content="b"), *COMPLETE)), new_call(stream=True)
    request = cast(ChatRequest, call.request)
    task = asyncio.create_task(world.dispatcher().stream(call, world.route(), sink, call.gate, request))
    await turns()
    assert len(taken) == 1
    room.set_result(None)
    await task
    assert len(taken) > 2


async def test_a_stream_that_is_cancelled_closes_its_connection() -> None:
    """In the middle of a stream nothing more is read; the received part is counted."""
    answer = streamed(COMPLETE[0], None)
    world, call = World(answer), new_call(stream=True)
    task, _ = await streaming(world, call)
    task.cancel()
    await asyncio.wait([task])
    assert (task.cancelled(), answer.closed) == (True, True)
    (end,) = world.ended
    assert (end.outcome, end.usage_source, end.tokens.output) == (Outcome.CANCELLED, "estimated", 1)


@pytest.mark.parametrize("comes", [True, False])
async def test_a_stream_that_is_cancelled_after_its_finish_is_read_to_its_usage(comes: bool) -> None:
    """It will be billed, so its usage should be exact. The connection closes after the usage, or after a second."""
    more = asyncio.Event()
    answer = streamed(COMPLETE[0] + delta("stop"), *((more, USAGE_END) if comes else (None,)))
    world, call = World(answer), new_call(stream=True)
    task, _ = await streaming(world, call)
    task.cancel()
    await turns()
    assert (answer.closed, world.ended) == (False, [])
    more.set()
    await asyncio.wait([task])
    assert (task.cancelled(), answer.closed) == (True, True)
    (end,) = world.ended
    assert (end.outcome, end.usage_source) == (Outcome.CANCELLED, "provider" if comes else "estimated")


async def test_cancelling_a_wait_makes_no_further_attempt() -> None:
    """A client that leaves during the back-off."""
    world, call = World(error(500), whole(), retries=2), new_call()
    running = asyncio.ensure_future(world.dispatcher(backoff_s=5).complete(call, world.route(), call.request))
    while not call.attempts or call.attempts[0].ended is None:  # noqa: ASYNC110 - nothing tells when it changes
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [what for what, _ in world.log] == ["open", "send", "end"]


async def test_what_cannot_be_sent_is_the_callers_mistake() -> None:
    """Its attempt was opened, so it ends as rejected, at no cost."""

    class Refusing(OpenAI, frozen=True, kw_only=True):
        def build_request(self, request: Any, model: str) -> Any:
            raise ProxyError("no images here", status=400, code="unsupported_content")

    world, call = World(), new_call()
    with pytest.raises(ProxyError, match="no images"):
        await world.complete(call, Route("x", (Deployment("a", Refusing(), "m", PRICE),)))
    assert_rejected(world, call, "unsupported_content")


def assert_rejected(world: World, call: Call, code: str) -> None:
    """One attempt, which was opened and ended without a request."""
    assert world.log == [("open", "call-1"), ("end", "call-1")]
    (end,) = world.ended
    assert (end.outcome, end.error_code, end.usage_source, end.cost_nano) == (Outcome.REJECTED, code, "none", 0)
    assert [attempt.ended for attempt in call.attempts] == [end]


async def test_a_bug_in_a_dialect_ends_its_attempt() -> None:
    """As unknown; the exception is passed on."""

    class Broken(OpenAI, frozen=True, kw_only=True):
        def build_request(self, request: Any, model: str) -> Any:
            raise KeyError("oops")

    world, call = World(), new_call()
    with pytest.raises(KeyError):
        await world.complete(call, Route("x", (Deployment("a", Broken(), "m", PRICE),)))
    assert [(end.outcome, end.cost_nano) for end in world.ended] == [(Outcome.UNKNOWN, 0)]


# --- several asks in one call -----------------------------------------------------------------------------------------


async def test_a_call_may_ask_several_times() -> None:
    """Each ask has its own tries. An answered attempt stays successful, whatever follows."""
    world, call = World(error(500), whole("a"), error(500), whole("b"), retries=1), new_call()
    dispatcher, route = world.dispatcher(), world.route()
    answers = [await dispatcher.complete(call, route, call.request) for _ in range(2)]
    texts = [cast(ChatResponse, answer.response)["choices"][0]["message"]["content"] for answer in answers]
    assert texts == ["a", "b"]
    assert [what for what, _ in world.log if what in ("open", "intend")] == ["open", "intend", "intend", "intend"]
    assert [end.outcome for end in world.ended] == [Outcome.UPSTREAM_ERROR, Outcome.OK] * 2
    assert [answer.attempts for answer in answers] == [("call-2",), ("call-4",)]
    assert call.answered == []  # what an answer is made of is said by who asked


class Single(OpenAI, frozen=True, kw_only=True):
    """A vendor that returns only one choice."""

    def max_choices(self, model: str) -> int | None:
        return 1


async def test_choices_that_a_vendor_lacks_are_asked_for_at_once() -> None:
    """Each in its own attempt, with intent and hold before the request is sent; the answer reports it as adapted."""
    world, call = World(whole("a"), whole("b"), whole("c"), kind=Single), new_call(n=3)
    assert await world.complete(call) == "abc"
    assert [body.get("n") for body in world.bodies] == [None] * 3
    for place in (1, 2, 3):
        intent = "open" if place == 1 else "intend"
        assert world.log.index((intent, f"call-{place}")) < world.log.index(("send", f"call-{place}"))
    assert all(attempt.adapted == ["n"] and attempt.dropped == [] for attempt in call.attempts)
    assert call.usage()["total_tokens"] == 3 * USAGE["total_tokens"]
    assert [(each.id, each.seq, each.seat, each.parent) for each in world.opened] == [
        ("call-1", 1, 0, None),
        ("call-2", 2, 1, None),
        ("call-3", 3, 2, None),
    ]


async def test_a_vendor_that_has_enough_choices_is_asked_once() -> None:
    """As the client said it."""
    world, call = World(whole("a")), new_call(n=3)
    assert await world.complete(call) == "a"
    assert [body["n"] for body in world.bodies] == [3]
    assert call.answering.adapted == []


async def test_each_choice_is_retried_on_its_own() -> None:
    """The others are not asked again; the retry keeps the seat of the refused attempt."""
    world, call = World(error(500), whole("b"), whole("a"), kind=Single, retries=1), new_call(n=2)
    assert await world.complete(call) == "ab"
    assert [(attempt.seq, attempt.ended and attempt.ended.outcome) for attempt in call.attempts] == [
        (1, Outcome.UPSTREAM_ERROR),
        (2, Outcome.OK),
        (3, Outcome.OK),
    ]
    assert [each.seat for each in world.opened] == [0, 1, 0]


async def test_no_id_is_used_twice_by_choices_that_are_withdrawn() -> None:
    """The ledger refuses one while others run; the next attempt gets a number after all of them."""
    world, call = World(None, error(503), whole("c"), kind=Single), new_call(n=3)
    world.refuse_intent_of = 2
    with pytest.raises(StorageUnavailable):
        await world.complete(call)
    call.request = structs.replace(call.request, n=1)
    assert await world.complete(call) == "c"
    assert [each.seq for each in world.opened] == [each.seq for each in call.attempts] == [1, 3, 4]
    assert sorted(end.id for end in world.ended) == [each.id for each in world.opened]


async def test_all_choices_are_of_one_model() -> None:
    """If one fails, the next candidate is asked for all; answers of the first are paid, but not returned."""
    world, call = World(whole("a"), error(503), whole("c"), whole("d"), kind=Single), new_call(n=2)
    assert await world.complete(call, "ab") == "cd"
    assert asked(call) == "aabb"
    assert {attempt.deployment.provider_name for attempt in call.answered} == {"b"}
    assert call.usage()["prompt_tokens"] == 2 * USAGE["prompt_tokens"]
    each = 3 * 2_000 + 1 * 10_000
    assert round((call.usage()["cost"] or 0) * 1e9) == 3 * each


async def test_choices_keep_to_the_places_of_their_provider() -> None:
    """Waiting for a place times out after some seconds, and the cost of the others would be lost."""
    world, call = World(*(whole() for _ in range(3)), kind=Single), new_call(n=3)
    world.provider = structs.replace(world.provider, max_concurrent=1)
    assert await world.complete(call) == "HiHiHi"
    kinds = [what for what, _ in world.log]
    assert kinds == ["open", "send", "end", "intend", "send", "end", "intend", "send", "end"]


async def test_choices_that_are_still_awaited_are_cancelled() -> None:
    """Their attempts end as cancelled and are booked at their holds."""
    waiting = stuck()
    world, call = World(waiting, error(400), kind=Single), new_call(n=2)
    with pytest.raises(UpstreamError):
        await world.complete(call)
    ends = [attempt.ended for attempt in call.attempts]
    assert [end and end.outcome for end in ends] == [Outcome.CANCELLED, Outcome.UPSTREAM_ERROR]
    assert ends[0] is not None
    assert (ends[0].usage_source, ends[0].cost_nano) == ("unknown", world.holds[0])
    assert waiting.closed


@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_who_leaves_ends_all_choices(stream: bool) -> None:
    """Every connection is closed. Running attempts are booked at their holds, ended ones at their cost."""
    if stream:
        waiting, done = streamed(delta(content="x"), None), streamed(*COMPLETE)
    else:
        waiting, done = stuck(), whole()
    world, call = World(waiting, done, kind=Single), new_call(stream=stream, n=2)
    asking: asyncio.Task[Any] = asyncio.create_task(world.stream(call) if stream else world.complete(call))
    while not world.ended:  # noqa: ASYNC110 - nothing is slept for
        await asyncio.sleep(0)
    call.cancelled_by = Outcome.CLIENT_CLOSED
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    assert (waiting.closed, done.closed) == (True, True)
    ends = [attempt.ended for attempt in call.attempts]
    assert [(end.outcome, end.usage_source) for end in ends if end is not None] == [
        (Outcome.CLIENT_CLOSED, "estimated" if stream else "unknown"),
        (Outcome.OK, "provider"),
    ]


async def test_streams_of_choices_become_one() -> None:
    """Choices are numbered consecutively, and each has its finish."""
    world, call = World(streamed(*COMPLETE), streamed(*COMPLETE), kind=Single), new_call(stream=True, n=2)
    seen: dict[int, list[str | None]] = {}
    batches: list[list[ChatChunk]] = []
    await world.stream(call, "a", batches)
    for choice in (choice for batch in batches for chunk in batch for choice in chunk["choices"]):
        seen.setdefault(choice["index"], []).append(choice["delta"].get("content") or choice.get("finish_reason"))
    assert seen == {0: ["Hi", "stop"], 1: ["Hi", "stop"]}
    assert call.usage()["total_tokens"] == 2 * USAGE["total_tokens"]


async def test_after_the_first_delta_of_any_choice_no_other_model_is_asked() -> None:
    """The failure of one choice ends the stream, and the others."""
    other = streamed(COMPLETE[0], None)
    world, call = World(other, streamed(delta(content="x"), ConnectionLost()), kind=Single), new_call(stream=True, n=2)
    with pytest.raises(UpstreamTruncated):
        await world.stream(call)
    assert asked(call) == "aa"
    assert other.closed
    assert [attempt.ended and attempt.ended.outcome for attempt in call.attempts] == [
        Outcome.CANCELLED,
        Outcome.UPSTREAM_TRUNCATED,
    ]


async def test_before_the_first_delta_a_choice_is_retried_also_when_another_has_begun() -> None:
    """Nothing of it was sent to the client, and it was refused."""
    answers = [streamed(*COMPLETE), error(500), streamed(*COMPLETE)]
    world, call = World(*answers, kind=Single, retries=1), new_call(stream=True, n=2)
    assert "".join(await world.stream(call, "a")) == "HiHi"
    assert asked(call) == "aaa"


async def test_a_finished_choice_that_is_withdrawn_is_read_to_its_usage() -> None:
    """It is paid, so its bill should be exact."""
    breaks, more = asyncio.Event(), asyncio.Event()
    done = streamed(COMPLETE[0] + delta("stop"), more, USAGE_END)
    broken = streamed(delta(content="x"), breaks, ConnectionLost())
    world, call = World(broken, done, kind=Single), new_call(stream=True, n=2)
    task, _ = await streaming(world, call)
    breaks.set()
    await turns()
    assert not task.done()
    more.set()
    with pytest.raises(UpstreamTruncated):
        await task
    end = call.attempts[1].ended
    assert end is not None
    assert (end.usage_source, end.tokens.total) == ("provider", USAGE["total_tokens"])
    assert done.closed


# --- stops and JSON ---------------------------------------------------------------------------------------------------


class Lacking(OpenAI, frozen=True, kw_only=True):
    """A vendor without stop sequences and without JSON mode."""

    def build_request(self, request: ChatRequest, model: str) -> Built:
        built = super().build_request(request, model)
        stops = request.fields.get("stop") or []
        return structs.replace(built, stops=stops, unchecked_json="response_format" in request.fields)


async def test_answers_are_cut_where_the_vendor_does_not_stop() -> None:
    """Whole and streamed. The usage stays what the vendor bills, and the answer reports the adaptation."""
    said, rest = delta(content="one EN"), delta(content="D two")
    world = World(whole("one END two"), streamed(said, rest, *COMPLETE), kind=Lacking)
    call = new_call(stop=["END"])
    assert await world.complete(call) == "one "
    assert call.answering.adapted == ["stop"]
    call = new_call(stream=True, stop=["END"])
    assert "".join(await world.stream(call, "a")) == "one "
    assert call.answering.tally.output_tokens == estimate("one END twoHi")
    assert call.usage()["total_tokens"] == USAGE["total_tokens"]


JSON_ASKED: dict[str, Any] = {"response_format": {"type": "json_object"}}


async def test_json_that_is_wrong_costs_one_more_attempt() -> None:
    """With its own intent; the answer's usage is that of both."""
    world, call = World(whole("oh"), whole("{}"), kind=Lacking), new_call(**JSON_ASKED)
    assert await world.complete(call) == "{}"
    first, second = (("send", "call-1"), ("end", "call-1")), (("send", "call-2"), ("end", "call-2"))
    assert world.log == [("open", "call-1"), *first, ("intend", "call-2"), *second]
    assert [end.outcome for end in world.ended] == [Outcome.OK, Outcome.OK]
    assert [(each.parent, each.seat) for each in world.opened] == [(None, 0), ("call-1", 0)]
    assert call.usage()["total_tokens"] == 2 * USAGE["total_tokens"]


async def test_the_repair_of_each_choice_follows_from_that_choice() -> None:
    """Also where each choice is an attempt of its own."""

    class Both(Lacking, Single, frozen=True, kw_only=True):
        pass

    world, call = World(whole("oh"), whole("{}"), whole("no"), whole("1"), whole("{}"), kind=Both), new_call(n=3)
    call.request = structs.replace(call.request, fields={**call.request.fields, **JSON_ASKED})
    with pytest.raises(UpstreamError):
        await world.complete(call)
    assert [(each.id, each.parent, each.seat) for each in world.opened[3:]] == [
        ("call-4", "call-1", 0),
        ("call-5", "call-3", 2),
    ]


async def test_a_caller_who_leaves_during_the_repair_pays_for_both_turns() -> None:
    """The first at its known cost, the second at its hold."""
    waiting = stuck()
    world, call = World(whole("oh"), waiting, kind=Lacking), new_call(**JSON_ASKED)
    asking = asyncio.create_task(world.complete(call))
    while len(world.bodies) < 2:  # noqa: ASYNC110 - nothing is slept for
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    assert waiting.closed
    assert [each.usage_source for each in world.ended] == ["provider", "unknown"]
    assert round((call.cost_usd() or 0) * 1e9) == ANSWER_NANO + (world.holds[1] or 0)


async def test_json_that_stays_wrong_is_asked_of_the_next_candidate() -> None:
    """Both answers of the first are paid, none is returned."""
    world, call = World(whole("oh"), whole("oh"), whole("{}"), kind=Lacking), new_call(**JSON_ASKED)
    assert await world.complete(call, "ab") == "{}"
    assert asked(call) == "aab"
    assert [attempt.seq for attempt in call.answered] == [3]
    world, call = World(whole("oh"), whole("oh"), kind=Lacking), new_call(**JSON_ASKED)
    with pytest.raises(UpstreamError) as caught:
        await world.complete(call)
    assert (caught.value.code, caught.value.headers) == ("invalid_json_answer", {"x-should-retry": "false"})


async def test_json_that_nobody_gets_right_ends_after_four_candidates() -> None:
    """Each of them was asked, though none of the asks failed."""
    world, call = World(*(whole("oh") for _ in range(20)), kind=Lacking), new_call(**JSON_ASKED)
    with pytest.raises(UpstreamError):
        await world.complete(call, "abcdabcd")
    assert asked(call) == "aabbccdd"


async def test_a_schema_that_is_none_is_refused_before_anything_is_sent() -> None:
    """Its attempt says that it was rejected."""
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "objekt"}}}
    world, call = World(kind=Lacking), new_call(response_format=wanted)
    with pytest.raises(BadRequest, match="not valid JSON Schema") as caught:
        await world.complete(call)
    assert_rejected(world, call, str(caught.value.code))


async def test_streamed_json_is_passed_on_and_said_to_be_unchecked() -> None:
    """Text that was sent cannot be repaired."""
    world, call = World(streamed(*COMPLETE), kind=Lacking), new_call(stream=True, **JSON_ASKED)
    assert "".join(await world.stream(call, "a")) == "Hi"
    assert call.answering.adapted == ["response_format"]


# --- strict -----------------------------------------------------------------------------------------------------------


class Losing(OpenAI, frozen=True, kw_only=True):
    """A vendor without `seed` that adapts `user`."""

    def build_request(self, request: ChatRequest, model: str) -> Built:
        built = super().build_request(request, model)
        dropped = [name for name in ("seed",) if name in request.fields]
        return structs.replace(built, dropped=dropped, adapted=[name for name in ("user",) if name in request.fields])


def strict_call(**fields: Any) -> Call:
    call = new_call(**fields)
    call.request = structs.replace(call.request, hints=Hints(strict=True))
    return call


async def test_strict_refuses_what_would_be_lost() -> None:
    """It names the parameters and the model, before anything is sent. Without `strict` the answer reports them."""
    world, call = World(kind=Losing), strict_call(seed=1, user="u")
    with pytest.raises(BadRequest) as caught:
        await world.complete(call)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "seed")
    assert "a/m cannot take seed, user unchanged" in caught.value.message
    assert_rejected(world, call, "unsupported_parameter")
    world, call = World(whole(), kind=Losing), new_call(seed=1, user="u")
    await world.complete(call)
    assert (call.answering.dropped, call.answering.adapted) == (["seed"], ["user"])


async def test_strict_lets_pass_what_is_made_up_for() -> None:
    """Emulated choices and stops are equivalent; unchecked JSON in a stream is not."""

    class Emulated(Lacking, Single, frozen=True, kw_only=True):
        pass

    world, call = World(whole("aX"), whole("bX"), kind=Emulated), strict_call(n=2, stop=["X"])
    assert await world.complete(call) == "ab"
    assert call.answering.adapted == ["n", "stop"]
    with pytest.raises(BadRequest, match="response_format"):
        await World(kind=Lacking).stream(strict_call(stream=True, **JSON_ASKED), "a")


async def test_strict_skips_later_candidates_that_would_lose_something() -> None:
    """If none is left, the failure of the candidate that was asked is raised."""
    for answers, names in ((["b"], "abc"), ([], "ab")):
        world = World(error(503), *map(whole, answers))
        losing = Deployment("b", Losing(retries=0), "m", PRICE)
        candidates = [losing if name == "b" else world.deployment(name) for name in names]
        call, route = strict_call(seed=1), Route("x", tuple(candidates))
        if answers:
            await world.complete(call, route)
        else:
            with pytest.raises(UpstreamError) as caught:
                await world.complete(call, route)
            assert caught.value.status == 503
        assert (asked(call), len(world.bodies)) == (names, len(names) - 1)
        assert [end.outcome for end in world.ended if end.id == "call-2"] == [Outcome.REJECTED]


# --- what a model takes -----------------------------------------------------------------------------------------------

IMAGE = {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}
PICTURED: dict[str, Any] = {"messages": [{"role": "user", "content": [IMAGE]}]}


async def test_content_that_no_candidate_takes_is_refused_before_any_money_is_spent() -> None:
    """The error names the part and the requested model."""
    world, call = World(), new_call(**PICTURED)
    blind = ModelPrice(input=2.0, output=10.0, supports=["tools"])
    with pytest.raises(BadRequest) as caught:
        await world.complete(call, Route("x", (world.deployment("a", blind), world.deployment("b", blind))))
    assert (caught.value.code, caught.value.param) == ("unsupported_content", "messages.0.content.0")
    assert caught.value.message.startswith("a/m ")
    assert (world.log, call.attempts) == ([], [])


async def test_candidates_that_do_not_take_the_content_are_passed_over() -> None:
    """As the first, a middle and a special fallback candidate."""
    blind = ModelPrice(input=2.0, output=10.0, max_output=100, supports=[])
    world, call = World(error(503), whole()), new_call(**PICTURED)
    prices = {"a": blind, "b": PRICE, "c": blind, "d": PRICE}
    candidates = tuple(world.deployment(name, price) for name, price in prices.items())
    await world.complete(call, Route("x", candidates))
    assert asked(call) == "bd"
    world, call = World(error(400, "context_length_exceeded"), whole()), new_call(**PICTURED)
    route = Route("x", candidates[1:2], context_fallback=candidates[2:4])
    await world.complete(call, route)
    assert asked(call) == "bd"


async def test_a_later_candidate_that_cannot_be_sent_the_request_is_passed_over() -> None:
    """Its refusal does not concern the caller."""

    class Refusing(OpenAI, frozen=True, kw_only=True):
        def build_request(self, request: ChatRequest, model: str) -> Built:
            raise BadRequest("no images here", code="unsupported_content")

    world, call = World(error(503), whole()), new_call()
    refusing = Deployment("b", Refusing(), "m", PRICE)
    await world.complete(call, Route("x", (world.deployment("a"), refusing, world.deployment("c"))))
    assert (asked(call), len(world.bodies)) == ("abc", 2)
    assert [end.outcome for end in world.ended] == [Outcome.UPSTREAM_ERROR, Outcome.REJECTED, Outcome.OK]


# --- broken answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{"ind'])
async def test_a_broken_answer_is_the_vendors_failure_with_its_status(body: bytes) -> None:
    """Nothing of it is shown."""
    world, call = World(Reply(200, {"content-type": "application/json"}, [body])), new_call()
    with pytest.raises(UpstreamError) as caught:
        await world.complete(call)
    assert (caught.value.status, caught.value.upstream_status) == (502, 200)
    assert "<html>" not in caught.value.message
    assert call.answering.ended is not None
    assert call.answering.ended.status == 200
