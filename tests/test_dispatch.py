"""The attempt loop: who is asked, how often, after what wait, and what is written down before. Transport and ledger are
fakes; everything between them is the product.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, cast

import pytest

from proxy.codec import DONE, decode_chat, sse
from proxy.dispatch import MAX_ATTEMPTS, Dispatcher
from proxy.errors import ProxyError, StorageUnavailable, UpstreamError, UpstreamTruncated
from proxy.ledger import Ledger
from proxy.metering import Call, Clock
from proxy.providers.openai import OpenAI
from proxy.records import AttemptEnd, AttemptOpen, Caller, CallOpen, Endpoint, ModelPrice, Outcome, Timeouts
from proxy.routing.names import Deployment, Route
from proxy.transports.base import ConnectFailed, ConnectionLost
from proxy.upstream import Pool, Upstream

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

    async def close(self) -> None:
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

    def __init__(self, *answers: Answer | Exception, retries: int = 0) -> None:
        self.log: list[tuple[str, str]] = []
        self.times: list[float] = []
        self.ended: list[AttemptEnd] = []
        self.refuse_intent_of: int | None = None
        self._answers = list(answers)
        self.provider = OpenAI(retries=retries, timeout_s=Timeouts(first_token=1, idle=1, total=1))
        self.active = 0

    # The transport.

    async def send(
        self, method: str, url: str, headers: dict[str, str], body: bytes, connect_timeout_s: float
    ) -> Answer:
        self.log.append(("send", headers["x-client-request-id"]))
        self.times.append(asyncio.get_running_loop().time())
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        raise RuntimeError("nobody here closes the transport")

    # The ledger.

    async def open(self, call: CallOpen, attempt: AttemptOpen) -> None:
        await self._intend("open", attempt)

    async def intend(self, ended: AttemptEnd, attempt: AttemptOpen) -> None:
        self.ended.append(ended)
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
        """The text of the whole answer."""
        response = await self.dispatcher().complete(call, self.route(names, **fallbacks))
        return response["choices"][0]["message"]["content"] or ""


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
    assert waits(world) == [pytest.approx(0, abs=0.05)]


async def test_falling_back_does_not_wait() -> None:
    """The next provider has done nothing to be waited for."""
    world = World(error(500), whole())
    await world.dispatcher(backoff_s=5).complete(new_call(), world.route("ab"))
    assert waits(world) == [pytest.approx(0, abs=0.05)]


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
