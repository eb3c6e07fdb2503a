"""The attempt loop: who is asked, how often, after what wait, and what is written down before. Transport and ledger are
fakes; everything between them is the product.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any, cast

import pytest
from msgspec import structs

from proxy.metering.ledger import Ledger
from proxy.metering.pricing import ModelPrice
from proxy.pipeline.call import Call
from proxy.pipeline.dispatch import Dispatcher
from proxy.pipeline.timing import Clock
from proxy.providers.base.contract import Built
from proxy.providers.openai import OpenAI
from proxy.routing.fallback import MAX_ATTEMPTS
from proxy.routing.names import Deployment, Route
from proxy.schema.chat import ChatRequest, ChatResponse
from proxy.schema.errors import BadRequest, ProxyError, StorageUnavailable, UpstreamError, UpstreamTruncated
from proxy.schema.records import AttemptEnd, AttemptOpen, Caller, CallOpen, Endpoint, Outcome, Timeouts
from proxy.server.formats.chat import decode_chat
from proxy.server.formats.chat_answer import DONE, sse
from proxy.upstream.pools import Pool
from proxy.upstream.transports.base import ConnectFailed, ConnectionLost, Outgoing
from proxy.upstream.upstream import Upstream

PRICE = ModelPrice(input=2.0, output=10.0, max_output=100)
USAGE = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}


class Answer:
    """One scripted answer: its pieces, then its end; an exception among them is raised, None waits for ever."""

    def __init__(self, status: int, headers: dict[str, str], pieces: Sequence[bytes | Exception | None]) -> None:
        self.status = status
        self.headers = headers
        self.closed = False
        self._pieces = iter(pieces)

    async def read(self) -> bytes:
        piece = next(self._pieces, b"")
        if isinstance(piece, Exception):
            raise piece
        if piece is None:
            await asyncio.get_running_loop().create_future()
        return piece or b""

    def close(self, *, complete: bool = False) -> None:
        self.closed = True


def error(status: int, code: str | None = None, **headers: str) -> Answer:
    body = json.dumps({"error": {"message": "no", "code": code}}).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, {"content-type": "application/json", **names}, [body])


def whole(text: str = "Hi", usage: dict[str, int] | None = USAGE) -> Answer:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return Answer(
        200, {"content-type": "application/json"}, [json.dumps({"choices": [choice], "usage": usage}).encode()]
    )


def delta(finish_reason: str | None = None, **said: Any) -> bytes:
    return sse({"choices": [{"index": 0, "delta": said, "finish_reason": finish_reason}]})


def streamed(*pieces: bytes | Exception | None) -> Answer:
    return Answer(200, {"content-type": "text/event-stream"}, pieces)


COMPLETE = (delta(content="Hi"), delta("stop") + sse({"choices": [], "usage": USAGE}) + DONE)


class World:
    """Providers `a` to `d` whose answers are scripted in order; `log` is what happened, in order, with its times."""

    def __init__(self, *answers: Answer | Exception, retries: int = 0, kind: type[OpenAI] = OpenAI) -> None:
        self.log: list[tuple[str, str]] = []
        self.times: list[float] = []
        self.bodies: list[dict[str, Any]] = []
        self.ended: list[AttemptEnd] = []
        self.refuse_intent_of: int | None = None
        self._answers = list(answers)
        self.provider = kind(retries=retries, timeout_s=Timeouts(first_token=1, idle=1, total=1))
        self.active = 0

    # The transport.

    async def send(self, request: Outgoing, connect_timeout_s: float, on_sent: Callable[[], None]) -> Answer:
        self.log.append(("send", request.headers["x-client-request-id"]))
        self.times.append(asyncio.get_running_loop().time())
        self.bodies.append(json.loads(request.body))
        answer = self._answers.pop(0)
        if not isinstance(answer, ConnectFailed):
            on_sent()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        raise RuntimeError("nobody here closes the transport")

    # The ledger.

    async def open(self, call: CallOpen, attempt: AttemptOpen) -> None:
        await self._intend("open", attempt)

    def end(self, end: AttemptEnd) -> None:
        self.ended.append(end)

    async def intend(self, attempt: AttemptOpen) -> None:
        await self._intend("intend", attempt)

    async def _intend(self, what: str, attempt: AttemptOpen) -> None:
        if attempt.seq == self.refuse_intent_of:
            raise StorageUnavailable
        self.log.append((what, attempt.id))
        self.holds = attempt.hold_nano

    # What a test asks.

    def dispatcher(self, backoff_s: float = 0.0, random: float = 1.0) -> Dispatcher:
        async def origin() -> Endpoint:
            return Endpoint("http://upstream.test/v1")

        upstreams = {name: Upstream(name, self.provider, origin, Pool(self)) for name in "abcd"}
        return Dispatcher(upstreams, cast(Ledger, self), "v1", lambda: random, backoff_s)

    def deployment(self, name: str, price: ModelPrice | None = PRICE) -> Deployment:
        return Deployment(name, self.provider, "m", price)

    def route(self, names: str = "a", **fallbacks: str) -> Route:
        lists = {kind: tuple(self.deployment(name) for name in others) for kind, others in fallbacks.items()}
        return Route("x", tuple(self.deployment(name) for name in names), **lists)

    async def complete(self, call: Call, names: str = "a", **fallbacks: str) -> str:
        """The text of the whole answer, its choices one after the other."""
        response = await self.dispatcher().complete(call, self.route(names, **fallbacks))
        choices = cast(ChatResponse, response)["choices"]
        assert [choice["index"] for choice in choices] == list(range(len(choices)))
        return "".join(choice["message"]["content"] or "" for choice in choices)


def new_call(stream: bool = False, **fields: Any) -> Call:
    body = {"model": "x", "messages": [{"role": "user", "content": "hi"}], "stream": stream, **fields}
    return Call("call", Caller(), decode_chat(json.dumps(body).encode()), Clock(lambda: 1, lambda: 1.0))


def asked(call: Call) -> str:
    return "".join(attempt.deployment.provider_name for attempt in call.attempts)


# --- intents ----------------------------------------------------------------------------------------------------------


async def test_every_intent_is_committed_before_its_request_leaves() -> None:
    """The first with the call, the others with the end of the attempt before."""
    world, call = World(error(500), error(503), whole()), new_call()
    assert await world.complete(call, "abc") == "Hi"
    assert world.log == [
        ("open", "call-1"),
        ("send", "call-1"),
        ("intend", "call-2"),
        ("send", "call-2"),
        ("intend", "call-3"),
        ("send", "call-3"),
    ]
    assert [(end.id, end.outcome, end.status) for end in world.ended] == [
        ("call-1", Outcome.UPSTREAM_ERROR, 500),
        ("call-2", Outcome.UPSTREAM_ERROR, 503),
    ]


@pytest.mark.parametrize("refused", [1, 2])
async def test_without_its_intent_no_request_leaves(refused: int) -> None:
    """And the call's last attempt is one that has a row."""
    world, call = World(error(500), whole()), new_call()
    world.refuse_intent_of = refused
    with pytest.raises(StorageUnavailable):
        await world.complete(call, "ab")
    assert [what for what, _ in world.log].count("send") == refused - 1
    assert len(call.attempts) == 1


async def test_the_hold_is_a_bound_of_the_cost() -> None:
    """Bytes of the request for its tokens, max_tokens or else the model's limit for the answer's."""
    bounds = []
    asks: list[dict[str, Any]] = [{}, {"max_tokens": 7}, {"max_tokens": 7, "n": 3}]
    for fields in asks:
        world = World(whole())
        await world.complete(new_call(**fields))
        bounds.append(world.holds)
    default, seven, three_times = bounds
    assert default is not None
    assert seven is not None
    assert three_times is not None
    assert default > 100 * 10_000
    assert 7 * 10_000 < seven < default
    assert 14 * 10_000 <= three_times - seven < 14 * 10_000 + 20 * 2_000
    world = World(whole())
    await world.dispatcher().complete(new_call(), Route("x", (world.deployment("a", price=None),)))
    assert world.holds is None


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
    """What a second try cannot mend is not tried twice."""
    world, call = World(*map(error, failures), whole(), retries=retries), new_call()
    assert await world.complete(call, names) == "Hi"
    assert asked(call) == expected


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_request_that_is_wrong_is_asked_once(status: int) -> None:
    """Whoever else there is."""
    world, call = World(error(status), retries=2), new_call()
    with pytest.raises(UpstreamError) as caught:
        await world.complete(call, "ab")
    assert (caught.value.status, asked(call)) == (status, "a")


@pytest.mark.parametrize(
    ("code", "expected"), [("context_length_exceeded", "ac"), ("content_filter", "ad"), ("other", "a")]
)
async def test_too_long_and_filtered_requests_have_their_own_fallbacks(code: str, expected: str) -> None:
    """They replace what was left of the list."""
    world, call = World(error(400, code), whole()), new_call()
    fallbacks = {"context_fallback": "ac", "content_fallback": "ad"}
    if expected == "a":
        with pytest.raises(UpstreamError):
            await world.complete(call, "ab", **fallbacks)
    else:
        await world.complete(call, "ab", **fallbacks)
    assert asked(call) == expected


async def test_no_call_makes_more_than_four_attempts() -> None:
    """Retries and fallbacks together."""
    world, call = World(*(error(500) for _ in range(9)), retries=2), new_call()
    with pytest.raises(UpstreamError) as caught:
        await world.complete(call, "abcd")
    assert (asked(call), len(call.attempts)) == ("aaab", MAX_ATTEMPTS)
    assert caught.value.headers["x-should-retry"] == "false"


async def test_when_all_fail_the_last_error_is_raised() -> None:
    """A client's mistake keeps its own advice on trying again."""
    world, call = World(ConnectFailed(), error(429, retry_after="30")), new_call()
    with pytest.raises(UpstreamError) as caught:
        await world.complete(call, "ab")
    assert (caught.value.status, caught.value.headers) == (429, {"retry-after": "30"})


# --- waiting ----------------------------------------------------------------------------------------------------------


def waits(world: World) -> list[float]:
    return [after - before for before, after in zip(world.times, world.times[1:], strict=False)]


async def test_the_wait_doubles_and_is_a_random_share() -> None:
    """Full jitter: callers that failed together do not come back together."""
    for share in (1.0, 0.5):
        world = World(error(500), error(500), whole(), retries=2)
        await world.dispatcher(backoff_s=0.06, random=share).complete(new_call(), world.route())
        first, second = waits(world)
        assert first == pytest.approx(0.06 * share, abs=0.025)
        assert second == pytest.approx(0.12 * share, abs=0.025)


async def test_a_provider_that_asks_for_time_gets_it() -> None:
    """Where that is longer than our own wait."""
    world = World(error(429, retry_after="0.1"), error(429, retry_after_ms="50"), whole(), retries=2)
    await world.complete(new_call())
    assert waits(world) == [pytest.approx(0.1, abs=0.04), pytest.approx(0.05, abs=0.04)]


async def test_a_provider_that_asks_for_too_much_time_is_left() -> None:
    """For the next candidate, at once."""
    world, call = World(error(429, retry_after="11"), whole(), retries=2), new_call()
    await world.complete(call, "ab")
    assert asked(call) == "ab"
    assert waits(world) == [pytest.approx(0, abs=5)]


async def test_falling_back_does_not_wait() -> None:
    """The next provider has done nothing to be waited for."""
    world = World(error(500), whole())
    await world.dispatcher(backoff_s=60).complete(new_call(), world.route("ab"))
    assert waits(world) == [pytest.approx(0, abs=5)]


# --- streams ----------------------------------------------------------------------------------------------------------


async def texts(world: World, call: Call, names: str = "ab") -> list[str]:
    """What came of a stream, batch by batch."""
    said = []
    async for batch in world.dispatcher().stream(call, world.route(names)):
        said.append("".join(choice["delta"].get("content") or "" for chunk in batch for choice in chunk["choices"]))
    return said


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
async def test_before_the_first_delta_a_stream_falls_back(failure: Answer | Exception) -> None:
    """Nothing of the first answer is in the second."""
    world, call = World(failure, streamed(*COMPLETE)), new_call(stream=True)
    assert "".join(await texts(world, call)) == "Hi"
    assert asked(call) == "ab"


@pytest.mark.parametrize("piece", [{"content": "x"}, {"reasoning_content": "x"}, {"refusal": "x"}])
async def test_after_the_first_delta_a_stream_fails(piece: dict[str, str]) -> None:
    """No second model may answer, and none is retried."""
    world, call = World(streamed(delta(**piece), ConnectionLost()), retries=2), new_call(stream=True)
    with pytest.raises(UpstreamTruncated):
        await texts(world, call)
    assert asked(call) == "a"


async def test_a_stream_gives_out_what_it_has_at_once() -> None:
    """The first batch is here while the second has not been sent."""
    world, call = World(streamed(COMPLETE[0], None)), new_call(stream=True)
    async with aclosing(world.dispatcher().stream(call, world.route())) as batches:
        (chunk,) = await anext(batches)
        assert chunk["choices"][0]["delta"] == {"content": "Hi"}


async def test_a_stream_that_is_closed_closes_its_connection() -> None:
    """In the middle there is nothing left to read."""
    answer = streamed(COMPLETE[0], None)
    world, call = World(answer), new_call(stream=True)
    async with aclosing(world.dispatcher().stream(call, world.route())) as batches:
        await anext(batches)
    assert answer.closed
    assert call.answering.leftover is None


@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_a_stream_that_is_left_after_its_finish_leaves_its_usage(how: str) -> None:
    """The connection stays open for it, and is closed once it is read."""
    answer = streamed(COMPLETE[0] + delta("stop"), sse({"choices": [], "usage": USAGE}) + DONE)
    if how == "cancelled":
        answer = streamed(COMPLETE[0] + delta("stop"), None)
    world, call = World(answer), new_call(stream=True)
    batches = world.dispatcher().stream(call, world.route())
    await anext(batches)
    if how == "closed":
        await batches.aclose()
    else:
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
    attempt = call.answering
    assert not answer.closed
    assert attempt.leftover is not None
    await attempt.leftover()
    assert answer.closed
    assert (attempt.fold.usage is not None) is (how == "closed")


async def test_cancelling_a_wait_makes_no_further_attempt() -> None:
    """A client that leaves in the back-off."""
    world, call = World(error(500), whole(), retries=2), new_call()
    running = asyncio.ensure_future(world.dispatcher(backoff_s=5).complete(call, world.route()))
    while not call.attempts or call.attempts[0].ended is None:  # noqa: ASYNC110 - nothing tells when it changes
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [what for what, _ in world.log] == ["open", "send"]


async def test_what_cannot_be_sent_is_the_callers_mistake() -> None:
    """Nothing is written down for a request that no provider could be sent."""

    class Refusing(OpenAI, frozen=True, kw_only=True):
        def build_request(self, request: Any, model: str) -> Any:
            raise ProxyError("no images here", status=400, code="unsupported_content")

    world, call = World(), new_call()
    with pytest.raises(ProxyError, match="no images"):
        await world.dispatcher().complete(call, Route("x", (Deployment("a", Refusing(), "m", None),)))
    assert (world.log, call.attempts) == ([], [])


# --- several asks in one call -----------------------------------------------------------------------------------------


async def test_a_call_may_ask_several_times() -> None:
    """Each ask has its own tries; what answered ended well, whatever came later."""
    world, call = World(error(500), whole("a"), error(500), whole("b"), retries=1), new_call()
    dispatcher, route = world.dispatcher(), world.route()
    answers = [cast(ChatResponse, await dispatcher.complete(call, route, call.request)) for _ in range(2)]
    assert [answer["choices"][0]["message"]["content"] for answer in answers] == ["a", "b"]
    assert [what for what, _ in world.log if what != "send"] == ["open", "intend", "intend", "intend"]
    assert [end.outcome for end in world.ended] == [Outcome.UPSTREAM_ERROR, Outcome.OK, Outcome.UPSTREAM_ERROR]
    assert [attempt.seq for attempt in call.answered] == [2, 4]


class Single(OpenAI, frozen=True, kw_only=True):
    """A vendor that answers one choice."""

    def max_choices(self, model: str) -> int | None:
        return 1


async def test_choices_that_a_vendor_lacks_are_asked_for_at_once() -> None:
    """Each in an attempt with its own intent and hold, before its request leaves; the answer says so."""
    world, call = World(whole("a"), whole("b"), whole("c"), kind=Single), new_call(n=3)
    assert await world.complete(call) == "abc"
    assert [body.get("n") for body in world.bodies] == [None] * 3
    for place in (1, 2, 3):
        intent = "open" if place == 1 else "intend"
        assert world.log.index((intent, f"call-{place}")) < world.log.index(("send", f"call-{place}"))
    assert all(attempt.adapted == ["n"] and attempt.dropped == [] for attempt in call.attempts)
    assert call.usage()["total_tokens"] == 3 * USAGE["total_tokens"]


async def test_a_vendor_that_has_enough_choices_is_asked_once() -> None:
    """As the client said it."""
    world, call = World(whole("a")), new_call(n=3)
    assert await world.complete(call) == "a"
    assert [body["n"] for body in world.bodies] == [3]
    assert call.answering.adapted == []


async def test_each_choice_is_retried_on_its_own() -> None:
    """The others are not asked again."""
    world, call = World(error(500), whole("b"), whole("a"), kind=Single, retries=1), new_call(n=2)
    assert await world.complete(call) == "ab"
    assert [(attempt.seq, attempt.ended and attempt.ended.outcome) for attempt in call.attempts] == [
        (1, Outcome.UPSTREAM_ERROR),
        (2, Outcome.OK),
        (3, Outcome.OK),
    ]


async def test_all_choices_are_of_one_model() -> None:
    """When one cannot be had, all are asked of the next candidate; what the first one said is paid, not answered."""
    world, call = World(whole("a"), error(503), whole("c"), whole("d"), kind=Single), new_call(n=2)
    assert await world.complete(call, "ab") == "cd"
    assert asked(call) == "aabb"
    assert {attempt.deployment.provider_name for attempt in call.answered} == {"b"}
    assert call.usage()["prompt_tokens"] == 2 * USAGE["prompt_tokens"]
    each = 3 * 2_000 + 1 * 10_000
    assert round((call.usage()["cost"] or 0) * 1e9) == 3 * each


async def test_choices_keep_to_the_places_of_their_provider() -> None:
    """Who waits for one fails after some seconds, and what the others cost would be lost."""
    world, call = World(*(whole() for _ in range(3)), kind=Single), new_call(n=3)
    world.provider = structs.replace(world.provider, max_concurrent=1)
    assert await world.complete(call) == "HiHiHi"
    kinds = [what for what, _ in world.log]
    assert kinds == ["open", "send", "intend", "send", "intend", "send"]


async def test_choices_that_are_still_awaited_are_cancelled() -> None:
    """Their attempts say so, and are counted as what they may have cost."""
    waiting = Answer(200, {"content-type": "application/json"}, [b"{", None])
    world, call = World(waiting, error(400), kind=Single), new_call(n=2)
    with pytest.raises(UpstreamError):
        await world.complete(call)
    ends = [attempt.ended for attempt in call.attempts]
    assert [end and end.outcome for end in ends] == [Outcome.CANCELLED, Outcome.UPSTREAM_ERROR]
    assert ends[0] is not None
    assert (ends[0].usage_source, (ends[0].cost_nano or 0) > 0) == ("estimated", True)
    assert waiting.closed


@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_who_leaves_ends_all_choices(stream: bool) -> None:
    """Every connection is closed; what was begun is counted as what it may have cost, what ended as what it did."""
    if stream:
        waiting, done = streamed(delta(content="x"), None), streamed(*COMPLETE)
    else:
        waiting, done = Answer(200, {"content-type": "application/json"}, [b"{", None]), whole()
    world, call = World(waiting, done, kind=Single), new_call(stream=stream, n=2)
    asking = asyncio.create_task(texts(world, call) if stream else world.complete(call))
    while not call.answered:  # noqa: ASYNC110 - nothing is slept for
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    assert (waiting.closed, done.closed) == (True, True)
    call.end(Outcome.CLIENT_CLOSED)
    ends = [attempt.ended for attempt in call.attempts]
    assert [(end.outcome, end.usage_source) for end in ends if end is not None] == [
        (Outcome.CLIENT_CLOSED, "estimated"),
        (Outcome.OK, "provider"),
    ]


async def test_streams_of_choices_become_one() -> None:
    """Numbered through; each has its finish."""
    world, call = World(streamed(*COMPLETE), streamed(*COMPLETE), kind=Single), new_call(stream=True, n=2)
    seen: dict[int, list[str | None]] = {}
    async for batch in world.dispatcher().stream(call, world.route()):
        for choice in (choice for chunk in batch for choice in chunk["choices"]):
            seen.setdefault(choice["index"], []).append(choice["delta"].get("content") or choice.get("finish_reason"))
    assert seen == {0: ["Hi", "stop"], 1: ["Hi", "stop"]}
    assert call.usage()["total_tokens"] == 2 * USAGE["total_tokens"]


async def test_after_the_first_delta_of_any_choice_no_other_model_is_asked() -> None:
    """The failure of one choice ends the stream, and the others."""
    other = streamed(COMPLETE[0], None)
    world, call = World(other, streamed(delta(content="x"), ConnectionLost()), kind=Single), new_call(stream=True, n=2)
    with pytest.raises(UpstreamTruncated):
        await texts(world, call)
    assert asked(call) == "aa"
    assert other.closed
    assert [attempt.ended and attempt.ended.outcome for attempt in call.attempts] == [
        Outcome.CANCELLED,
        Outcome.UPSTREAM_TRUNCATED,
    ]


async def test_before_the_first_delta_a_choice_is_retried_also_when_another_has_begun() -> None:
    """Nothing of it has left."""
    answers = [streamed(*COMPLETE), streamed(ConnectionLost()), streamed(*COMPLETE)]
    world, call = World(*answers, kind=Single, retries=1), new_call(stream=True, n=2)
    assert "".join(await texts(world, call, "a")) == "HiHi"
    assert asked(call) == "aaa"


async def test_a_finished_choice_that_is_withdrawn_is_read_to_its_usage() -> None:
    """It is paid, so its bill should be exact."""
    done = streamed(COMPLETE[0] + delta("stop"), sse({"choices": [], "usage": USAGE}) + DONE)
    broken = streamed(delta(content="x"), ConnectionLost())
    world, call = World(broken, done, kind=Single), new_call(stream=True, n=2)
    with pytest.raises(UpstreamTruncated):
        async with aclosing(world.dispatcher().stream(call, world.route())) as batches:
            async for _ in batches:
                continue
    end = call.attempts[1].ended
    assert end is not None
    assert (end.usage_source, end.tokens.total) == ("provider", USAGE["total_tokens"])
    assert done.closed


# --- stops and JSON ---------------------------------------------------------------------------------------------------


class Lacking(OpenAI, frozen=True, kw_only=True):
    """A vendor without stops and without JSON."""

    def build_request(self, request: ChatRequest, model: str) -> Built:
        built = super().build_request(request, model)
        stops = request.fields.get("stop") or []
        return structs.replace(built, stops=stops, unchecked_json="response_format" in request.fields)


async def test_answers_are_cut_where_the_vendor_does_not_stop() -> None:
    """Whole and streamed; the vendor's usage stays what it billed, and the answer says so."""
    said, rest = delta(content="one EN"), delta(content="D two")
    world = World(whole("one END two"), streamed(said, rest, *COMPLETE), kind=Lacking)
    call = new_call(stop=["END"])
    assert await world.complete(call) == "one "
    assert call.answering.adapted == ["stop"]
    call = new_call(stream=True, stop=["END"])
    assert "".join(await texts(world, call, "a")) == "one "
    assert call.answering.fold.text() == "one END twoHi"
    assert call.usage()["total_tokens"] == USAGE["total_tokens"]


JSON_ASKED: dict[str, Any] = {"response_format": {"type": "json_object"}}


async def test_json_that_is_wrong_costs_one_more_attempt() -> None:
    """With its own intent; the answer's usage is that of both."""
    world, call = World(whole("oh"), whole("{}"), kind=Lacking), new_call(**JSON_ASKED)
    assert await world.complete(call) == "{}"
    assert world.log == [("open", "call-1"), ("send", "call-1"), ("intend", "call-2"), ("send", "call-2")]
    assert [end.outcome for end in world.ended] == [Outcome.OK]
    assert call.usage()["total_tokens"] == 2 * USAGE["total_tokens"]


async def test_a_caller_who_leaves_during_the_repair_pays_for_both_turns() -> None:
    """The first is known, the second may have cost something."""
    waiting = Answer(200, {"content-type": "application/json"}, [b"{", None])
    world, call = World(whole("oh"), waiting, kind=Lacking), new_call(**JSON_ASKED)
    asking = asyncio.create_task(world.complete(call))
    while len(world.bodies) < 2:  # noqa: ASYNC110 - nothing is slept for
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    assert waiting.closed
    call.end(Outcome.CLIENT_CLOSED)
    assert [each.usage_source for each in call.ends] == ["provider", "estimated"]
    assert (call.cost_usd() or 0) * 1e9 > 3 * 2_000 + 10_000


async def test_json_that_stays_wrong_is_asked_of_the_next_candidate() -> None:
    """Both answers of the first are paid, none is given."""
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
    """Nothing is written down either."""
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "objekt"}}}
    world, call = World(kind=Lacking), new_call(response_format=wanted)
    with pytest.raises(BadRequest, match="not a JSON schema"):
        await world.complete(call)
    assert (world.log, call.attempts) == ([], [])


async def test_streamed_json_is_passed_on_and_said_to_be_unchecked() -> None:
    """What has left cannot be repaired."""
    world, call = World(streamed(*COMPLETE), kind=Lacking), new_call(stream=True, **JSON_ASKED)
    assert "".join(await texts(world, call, "a")) == "Hi"
    assert call.answering.adapted == ["response_format"]


# --- strict -----------------------------------------------------------------------------------------------------------


class Losing(OpenAI, frozen=True, kw_only=True):
    """A vendor without `seed` that takes `user` for something else."""

    def build_request(self, request: ChatRequest, model: str) -> Built:
        built = super().build_request(request, model)
        dropped = [name for name in ("seed",) if name in request.fields]
        return structs.replace(built, dropped=dropped, adapted=[name for name in ("user",) if name in request.fields])


def strict_call(**fields: Any) -> Call:
    call = new_call(**fields)
    call.request = structs.replace(call.request, strict=True)
    return call


async def test_strict_refuses_what_would_be_lost() -> None:
    """Names it and the model, before anything is sent or held; without it the answer says what was lost."""
    world, call = World(kind=Losing), strict_call(seed=1, user="u")
    with pytest.raises(BadRequest) as caught:
        await world.complete(call)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "seed")
    assert "a/m cannot be sent seed, user" in caught.value.message
    assert (world.log, call.attempts) == ([], [])
    world, call = World(whole(), kind=Losing), new_call(seed=1, user="u")
    await world.complete(call)
    assert (call.answering.dropped, call.answering.adapted) == (["seed"], ["user"])


async def test_strict_lets_pass_what_is_made_up_for() -> None:
    """Choices and stops are the same by other means; JSON in a stream is not."""

    class Emulated(Lacking, Single, frozen=True, kw_only=True):
        pass

    world, call = World(whole("aX"), whole("bX"), kind=Emulated), strict_call(n=2, stop=["X"])
    assert await world.complete(call) == "ab"
    assert call.answering.adapted == ["n", "stop"]
    with pytest.raises(BadRequest, match="response_format"):
        await texts(World(kind=Lacking), strict_call(stream=True, **JSON_ASKED), "a")


async def test_strict_skips_later_candidates_that_would_lose_something() -> None:
    """When none is left, the failure of the one that was asked is told."""
    for answers, names in ((["b"], "abc"), ([], "ab")):
        world = World(error(503), *map(whole, answers))
        losing = Deployment("b", Losing(retries=0), "m", PRICE)
        candidates = [losing if name == "b" else world.deployment(name) for name in names]
        call, route = strict_call(seed=1), Route("x", tuple(candidates))
        if answers:
            await world.dispatcher().complete(call, route)
        else:
            with pytest.raises(UpstreamError) as caught:
                await world.dispatcher().complete(call, route)
            assert caught.value.status == 503
        assert asked(call) == names.replace("b", "")


# --- what a model takes -----------------------------------------------------------------------------------------------

IMAGE = {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}
PICTURED: dict[str, Any] = {"messages": [{"role": "user", "content": [IMAGE]}]}


async def test_content_that_no_candidate_takes_is_refused_before_any_money_is_spent() -> None:
    """Naming the part and the model that was asked for."""
    world, call = World(), new_call(**PICTURED)
    blind = ModelPrice(input=2.0, output=10.0, supports=["tools"])
    with pytest.raises(BadRequest) as caught:
        await world.dispatcher().complete(
            call, Route("x", (world.deployment("a", blind), world.deployment("b", blind)))
        )
    assert (caught.value.code, caught.value.param) == ("unsupported_content", "messages.0.content.0")
    assert caught.value.message.startswith("a/m ")
    assert (world.log, call.attempts) == ([], [])


async def test_candidates_that_do_not_take_the_content_are_passed_over() -> None:
    """First, in between and as a special fallback."""
    blind = ModelPrice(input=2.0, output=10.0, max_output=100, supports=[])
    world, call = World(error(503), whole()), new_call(**PICTURED)
    prices = {"a": blind, "b": PRICE, "c": blind, "d": PRICE}
    candidates = tuple(world.deployment(name, price) for name, price in prices.items())
    await world.dispatcher().complete(call, Route("x", candidates))
    assert asked(call) == "bd"
    world, call = World(error(400, "context_length_exceeded"), whole()), new_call(**PICTURED)
    route = Route("x", candidates[1:2], context_fallback=candidates[2:4])
    await world.dispatcher().complete(call, route)
    assert asked(call) == "bd"


async def test_a_later_candidate_that_cannot_be_sent_the_request_is_passed_over() -> None:
    """Its refusal is nothing the caller asked about."""

    class Refusing(OpenAI, frozen=True, kw_only=True):
        def build_request(self, request: ChatRequest, model: str) -> Built:
            raise BadRequest("no images here", code="unsupported_content")

    world, call = World(error(503), whole()), new_call()
    refusing = Deployment("b", Refusing(), "m", PRICE)
    await world.dispatcher().complete(call, Route("x", (world.deployment("a"), refusing, world.deployment("c"))))
    assert asked(call) == "ac"


# --- broken answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{"ind'])
async def test_a_broken_answer_is_the_vendors_failure_with_its_status(body: bytes) -> None:
    """Nothing of it is shown."""
    world, call = World(Answer(200, {"content-type": "application/json"}, [body])), new_call()
    with pytest.raises(UpstreamError) as caught:
        await world.complete(call)
    assert (caught.value.status, caught.value.upstream_status) == (502, 200)
    assert "<html>" not in caught.value.message
    assert call.answering.ended is not None
    assert call.answering.ended.status == 200
