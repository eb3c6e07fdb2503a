"""Which deployment is asked when some are not well, within the time, the money and the retries of a call."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec import structs

from proxy.pipeline.bounds import Bounds
from proxy.pipeline.call import Call
from proxy.pipeline.timing import CallTime
from proxy.providers.openai import OpenAI
from proxy.routing.decision import Decision
from proxy.routing.facts import Facts
from proxy.routing.settings import Breaker, RouterConfig
from proxy.schema.errors import AllDown, BadRequest, CostLimit, StorageUnavailable, UpstreamError, UpstreamTimeout
from proxy.schema.hints import Hints
from proxy.schema.records import NANO_PER_USD, Outcome
from proxy.upstream.transports.base import ConnectFailed
from tests.pipeline.calls import HandClock
from tests.pipeline.world import (
    USAGE,
    Script,
    World,
    asked,
    error,
    new_call,
    stuck,
    turns,
    whole,
)


def limited(seconds: str = "20") -> Script:
    return error(429, retry_after=seconds)


async def failing(world: World, names: str = "a", times: int = 5) -> None:
    """Opens the breakers of these deployments."""
    for name in names:
        for _ in range(times):
            with pytest.raises(UpstreamError):
                await world.complete(new_call(), name)


async def asks(world: World, names: str, **fields: Any) -> str:
    """Whom one more call asks, in order; `!` at the end if it fails."""
    call = new_call(**fields)
    try:
        await world.complete(call, names)
    except UpstreamError:
        return asked(call) + "!"
    return asked(call)


# --- who is asked -----------------------------------------------------------------------------------------------------


async def test_what_rests_is_passed_over_until_its_time() -> None:
    """A vendor that asked for 20 seconds gets no request for 20 seconds."""
    world = World(limited(), *(whole() for _ in range(9)))
    assert await asks(world, "ab") == "ab"
    assert [await asks(world, "ab") for _ in range(3)] == ["b"] * 3
    world.now_s += 19.9
    assert await asks(world, "ab") == "b"
    world.now_s += 0.1
    assert await asks(world, "ab") == "a"


async def test_an_open_breaker_is_passed_over_and_probed_once() -> None:
    """While the probe runs, the others go elsewhere."""
    release = asyncio.Event()
    probe = whole("probe")
    probe._pieces.insert(0, release)
    world = World(*(error(500) for _ in range(5)), whole(), probe, whole(), whole(), whole())
    await failing(world)
    assert await asks(world, "ab") == "b"
    world.now_s += 30
    first = asyncio.create_task(asks(world, "ab"))
    await turns()
    assert [await asks(world, "ab") for _ in range(2)] == ["b", "b"]
    release.set()
    assert await first == "a"
    assert await asks(world, "ab") == "a"


@pytest.mark.parametrize("how", ["cancelled", "no intent", "a bad request"])
async def test_a_probe_that_ends_in_any_way_makes_room_for_the_next(how: str) -> None:
    """Otherwise nobody would ask this deployment again."""
    world = World(*(error(500) for _ in range(5)), None, whole())
    await failing(world)
    world.now_s += 30
    call = new_call()
    if how == "cancelled":
        asking = asyncio.create_task(world.complete(call, "a"))
        await turns()
        asking.cancel()
        await asyncio.wait([asking])
    elif how == "no intent":
        world.refuse_intent_of = 1
        with pytest.raises(StorageUnavailable):
            await world.complete(call, "a")
        world.refuse_intent_of = None
        world._answers.pop(0)
    else:
        world._answers.pop(0)
        with pytest.raises(BadRequest):
            await _ask_one_that_cannot_take_it(world, call)
    assert await asks(world, "ab") == "a"


async def _ask_one_that_cannot_take_it(world: World, call: Call) -> None:
    class Unable(OpenAI, frozen=True, kw_only=True):
        def build_request(self, request: Any, model: str) -> Any:
            raise BadRequest("no")

    deployment = structs.replace(world.deployment("a"), provider=Unable())
    await world.dispatcher().complete(call, structs.replace(world.route("a"), candidates=(deployment,)), call.request)


async def test_if_nobody_is_well_one_is_asked_all_the_same() -> None:
    """Once, and in turn, so that the first that recovers is found; no retry and no fallback add to the load."""
    world = World(*(error(500) for _ in range(15)), *(error(500) for _ in range(3)), whole(), whole(), retries=2)
    world.router = RouterConfig(auto_retry=False)
    await failing(world, "abc")
    order = []
    for _ in range(4):
        world.now_s += 1
        order.append(await asks(world, "abc"))
    assert order == ["a!", "b!", "c!", "a"]
    assert await asks(world, "abc") == "a"


async def test_a_lone_candidate_is_never_given_up() -> None:
    """Its breaker is open, but there is nobody else."""
    world = World(*(error(500) for _ in range(9)), whole(), whole())
    await failing(world, times=9)
    assert await asks(world, "a") == "a"
    assert world.board.is_open("a/m") is False


async def test_a_time_that_a_vendor_names_holds_for_a_lone_candidate_too() -> None:
    """The client learns at once when to try again; nothing is sent and nothing is written."""
    world = World(limited("20"), whole())
    assert await asks(world, "a") == "a!"
    world.now_s += 8
    call = new_call()
    with pytest.raises(UpstreamError) as caught:
        await world.complete(call, "a")
    failure = caught.value
    assert (failure.status, failure.code, call.attempts) == (429, "rate_limit_exceeded", [])
    assert failure.headers == {"retry-after": "12"}
    assert [(each.model, each.retry_after_s) for each in failure.availability] == [("a/m", 12)]
    world.now_s += 12
    assert await asks(world, "a") == "a"


async def test_if_all_rest_the_error_names_each() -> None:
    """503, and the soonest of their times."""
    world = World(limited("20"), limited("9"))
    assert await asks(world, "ab") == "ab!"
    call = new_call()
    with pytest.raises(AllDown) as caught:
        await world.complete(call, "ab")
    failure = caught.value
    assert (failure.status, failure.headers["retry-after"], call.attempts) == (503, "9", [])
    assert [(each.code, each.retryable, each.retry_after_s) for each in failure.availability] == [
        ("rate_limit_exceeded", True, 20),
        ("rate_limit_exceeded", True, 9),
    ]
    assert "a/m: rate_limit_exceeded, again in 20 s" in failure.message


async def test_a_stream_that_nobody_can_answer_fails_in_the_same_way() -> None:
    """Before its first byte."""
    world = World(limited("20"), ConnectFailed())
    call = new_call(stream=True)
    with pytest.raises(AllDown) as caught:
        await world.stream(call, "ab")
    assert [each.code for each in caught.value.availability] == ["rate_limit_exceeded", "upstream_unavailable"]
    assert not call.gate.is_closed


async def test_special_fallbacks_ask_nobody_twice() -> None:
    """All that are on the list find the request too long."""
    world, call = World(*(error(400, "context_length_exceeded") for _ in range(9))), new_call()
    with pytest.raises(UpstreamError) as caught:
        await world.complete(call, "ab", context_fallback="acd")
    assert (asked(call), caught.value.status) == ("acd", 400)


async def test_a_vendor_that_asks_for_time_is_left_at_once_if_another_is_well() -> None:
    """The caller need not wait. Only where there is no other it waits, for a short time."""
    for names, expected in (("ab", "ab"), ("a", "aa")):
        world = World(limited("0.01"), whole(), retries=2)
        assert await asks(world, names) == expected
    world = World(error(503, retry_after="0.01"), limited("0.01"), whole(), retries=2)
    assert await asks(world, "ab") == "abb"


# --- retries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("settings", "expected"), [({"auto_retry": False}, "abc!"), ({"max_retries": 0}, "a!")])
async def test_retries_can_be_switched_off(settings: dict[str, Any], expected: str) -> None:
    """`auto_retry` those at the same deployment, `max_retries: 0` every second attempt."""
    world = World(*(error(500) for _ in range(9)), retries=2)
    world.router = RouterConfig(**settings)
    assert await asks(world, "abc") == expected


async def test_without_budget_nothing_is_repeated() -> None:
    """The next candidate is asked instead: that is no extra request for it."""
    world = World(*(error(500) for _ in range(99)), retries=2)
    world.router = RouterConfig(breaker=Breaker(failures=1000), retry_budget=0.0)
    shown = [await asks(world, "a") for _ in range(4)]
    assert shown == ["aaa!", "aa!", "a!", "a!"]
    assert await asks(world, "ab") == "ab!"


async def test_an_open_breaker_ends_the_retries() -> None:
    """The attempt that opens it is the last one there."""
    world = World(*(error(500) for _ in range(4)), whole(), retries=9)
    world.router = RouterConfig(breaker=Breaker(failures=2), max_retries=9)
    assert await asks(world, "ab") == "aabb!"


async def test_a_breaker_that_opens_during_the_back_off_ends_it_too() -> None:
    """Other calls opened it. Otherwise a repeat would be a second probe, and its answer would close the breaker."""
    world, call = World(error(500), whole(), retries=1), new_call()
    world.router = RouterConfig(breaker=Breaker(failures=2))
    waiting = asyncio.create_task(world.dispatcher(backoff_s=0.2).complete(call, world.route("ab"), call.request))
    while not world.ended:  # noqa: ASYNC110 - nothing tells when it changes
        await asyncio.sleep(0)
    world.board.observe("a/m", world.ended[0])
    assert world.board.is_open("a/m")
    await waiting
    assert asked(call) == "ab"


@pytest.mark.parametrize(("may", "expected"), [(False, "a!"), (True, "aa")])
@pytest.mark.slow
async def test_after_a_time_out_the_same_deployment_is_asked_only_if_that_is_wanted(may: bool, expected: str) -> None:
    """Its vendor may be working on the first request, and bill both."""
    world = World(stuck(), whole(), retries=1)
    world.router = RouterConfig(retry_after_timeout=may)
    assert await asks(world, "a") == expected


# --- time and money ---------------------------------------------------------------------------------------------------


def bounds(headers: Mapping[str, str], hints: Hints | None = None, *, stream: bool = False) -> Bounds:
    request = structs.replace(new_call(stream=stream).request, hints=hints or Hints())
    return Bounds(900, 900).narrowed(request, headers)


@pytest.mark.parametrize(
    ("hints", "headers", "deadline_s", "whose"),
    [
        (Hints(), {}, 900, "router.deadline_s"),
        (Hints(deadline_ms=1500), {}, 1.5, "routing.deadline_ms"),
        (Hints(deadline_ms=10**9), {}, 900, "router.deadline_s"),
        (Hints(), {"x-stainless-read-timeout": "600"}, 599.9, "the client's x-stainless-read-timeout"),
        (Hints(), {"x-stainless-timeout": "10"}, 9.9, "the client's x-stainless-timeout"),
        (Hints(), {"x-stainless-read-timeout": "0.1"}, 0.05, "the client's x-stainless-read-timeout"),
        (Hints(deadline_ms=1500), {"x-stainless-read-timeout": "600"}, 1.5, "routing.deadline_ms"),
        *(
            (Hints(), {"x-stainless-read-timeout": bad}, 900, "router.deadline_s")
            for bad in ("", "None", "-1", "0", "nan", "inf", "1e999", "5s")
        ),
    ],
)
def test_the_deadline_is_the_shortest(hints: Hints, headers: dict[str, str], deadline_s: float, whose: str) -> None:
    """The server's, the hint's, or the client's own time-out: a little before it, so that the client learns why."""
    found = bounds(headers, hints)
    assert found.deadline_s == pytest.approx(deadline_s)
    assert found.whose == whose


def test_a_stream_is_not_cut_by_the_patience_of_its_client() -> None:
    """Each token starts that anew. But no attempt begins after it."""
    hand = HandClock()
    call = timed_call(hand, None)
    call.bounds = bounds({"x-stainless-read-timeout": "20"}, stream=True)
    assert (call.bounds.deadline_s, call.time_left_s, call.is_late) == (900, 20, False)
    hand.monotonic_s += 20
    assert call.is_late


def timed_call(hand: HandClock, deadline_ms: int | None) -> Call:
    call = new_call()
    call.time = CallTime(hand.clock())
    call.request = structs.replace(call.request, hints=Hints(deadline_ms=deadline_ms))
    call.bounds = Bounds(900, 900).narrowed(call.request, {})
    return call


async def test_no_wait_lasts_longer_than_the_deadline() -> None:
    """A Retry-After beyond it is not waited for."""
    world = World(error(500, retry_after="0.2"), whole(), retries=1)
    call = timed_call(HandClock(), None)
    await world.complete(call, "a")
    assert asked(call) == "aa"
    world = World(error(500, retry_after="0.2"), whole(), retries=1)
    call = timed_call(HandClock(), 199)
    with pytest.raises(UpstreamError):
        await world.complete(call, "a")
    assert asked(call) == "a"


async def test_nobody_is_asked_after_the_deadline() -> None:
    """The failure of the first candidate is the answer."""
    hand = HandClock()
    call = timed_call(hand, 500)
    world = World(error(500), whole())
    world.stuck_at = {"open"}
    asking = asyncio.create_task(world.complete(call, "ab"))
    await world.reached.wait()
    hand.monotonic_s += 0.5
    world.release.set()
    with pytest.raises(AllDown) as caught:
        await asking
    assert asked(call) == "a"
    assert [each.code for each in caught.value.availability] == ["upstream_error", "not_tried"]


async def test_the_deadline_of_a_hint_ends_the_call() -> None:
    """With the hint's name in the error."""
    world = World(None)
    running = await world.begin(world.pipeline(), routing={"deadline_ms": 50})
    await running.ended()
    with pytest.raises(UpstreamTimeout, match=r"No answer within 0.05 s.*routing.deadline_ms"):
        await running.output.read()
    assert world.ended[0].outcome is Outcome.TIMEOUT_TOTAL
    assert world.board.state().deployments == {}  # it was the caller's deadline, not the deployment's failure


def capped(max_cost_usd: float, **fields: Any) -> Call:
    call = new_call(max_tokens=10, **fields)
    call.request = structs.replace(call.request, hints=Hints(max_cost_usd=max_cost_usd))
    call.bounds = Bounds(900, 900).narrowed(call.request, {})
    return call


async def test_an_attempt_that_could_cost_too_much_is_not_made() -> None:
    """The error says how much it could have been, and what lowers that."""
    world = World(whole())
    await world.complete(new_call(max_tokens=10))
    (bound,) = world.holds
    assert bound is not None
    for spare, may in ((1, True), (-1, False)):
        world, call = World(whole()), capped((bound + spare) / NANO_PER_USD)
        if may:
            assert await world.complete(call) == "Hi"
            continue
        told = r"a/m could cost up to \$0\.\d+, but only \$0\.\d+ of routing.max_cost_usd"
        with pytest.raises(CostLimit, match=told) as caught:
            await world.complete(call)
        assert (caught.value.status, caught.value.code, call.attempts) == (402, "max_cost_exceeded", [])


async def test_a_candidate_that_is_too_expensive_is_passed_over() -> None:
    """So is one whose price nobody knows."""
    for expensive in (False, True):
        world, call = World(whole()), capped(0.005)
        price = structs.replace(world.deployment("a").price or pytest.fail(), output=900.0) if expensive else None
        route = structs.replace(world.route("ab"), candidates=(world.deployment("a", price), world.deployment("b")))
        assert await world.complete(call, route) == "Hi"
        assert asked(call) == "b"
    call = capped(0.005)
    route = structs.replace(world.route("a"), candidates=(world.deployment("a", None),))
    with pytest.raises(CostLimit) as caught:
        await world.complete(call, route)
    assert caught.value.code == "price_unknown"


async def test_what_was_spent_counts() -> None:
    """An attempt that may have been billed leaves less for the next one; one that was refused leaves all."""
    bound = await _bound()
    for first, expected in ((stuck(), "a!"), (error(500), "ab")):
        world, call = World(first, whole()), capped(1.5 * bound / NANO_PER_USD)
        try:
            await world.complete(call, "ab")
            shown = asked(call)
        except UpstreamError as failure:
            shown = asked(call) + "!"
            assert [each.code for each in failure.availability] == ["upstream_timeout", "max_cost_exceeded"]
        assert shown == expected


async def _bound() -> int:
    world = World(whole())
    await world.complete(new_call(max_tokens=10))
    return world.holds[0] or 0


async def test_the_money_of_a_call_is_for_all_its_asks() -> None:
    """Concurrent ones too: a running attempt counts with its hold."""
    bound = await _bound()
    world, call = World(stuck(), whole(), whole()), capped(1.5 * bound / NANO_PER_USD)
    first = asyncio.create_task(world.complete(call))
    await turns()
    with pytest.raises(CostLimit):
        await world.complete(call)
    first.cancel()
    await asyncio.wait([first])


# --- keys -------------------------------------------------------------------------------------------------------------


async def test_a_refused_key_of_several_does_not_rest_the_deployment() -> None:
    """The next key is used at once, and that takes nothing from the retry budget."""
    world = World(whole())
    call = new_call()
    refused = UpstreamError("no", status=429, code="rate_limit_exceeded", upstream_status=429)
    refused.other_key = True
    world._answers.insert(0, refused)
    world.provider = structs.replace(world.provider, retries=1)
    route = structs.replace(world.route("a"), candidates=(world.deployment("a"),))
    assert await world.complete(call, route) == "Hi"
    assert (asked(call), world.board.rest_of("a/m")[0]) == ("aa", 0)


# --- sessions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [1023, 1024])
async def test_the_deployment_that_answered_is_where_the_session_is_warm(tokens: int) -> None:
    """The next turn begins with the tokens of prompt and answer. Vendors cache no short prompt."""
    world, call = World(error(500), whole(usage={**USAGE, "prompt_tokens": tokens})), new_call()
    dispatcher = world.dispatcher()
    call.decision = Decision(world.route("ab"), Facts(session="s1"))
    answer = await dispatcher.complete(call, world.route("ab"), call.request)
    call.note_answered(answer.attempts)
    dispatcher.note_warm(call)
    assert world.board.state("s1").warm == ({"s1": ("b/m", 1025)} if tokens == 1024 else {})
    call.decision = None
    dispatcher.note_warm(call)  # a named model has no session
