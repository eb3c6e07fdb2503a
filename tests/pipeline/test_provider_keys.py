"""Several keys of one provider in the attempt loop: the attempts there are, and what each leaves of a key's minute."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from proxy.pipeline.dispatch import Dispatcher
from proxy.providers.base.contract import ProviderLimits
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import KeysUnavailable, UpstreamError
from proxy.schema.records import Endpoint, Outcome, Secret
from proxy.upstream.keys import Key, Keys, KeyState
from proxy.upstream.transports.base import ConnectFailed, ConnectionLost, Outgoing
from tests.pipeline.world import (
    ANSWER_NANO,
    COMPLETE,
    Reply,
    Script,
    World,
    asked,
    delta,
    error,
    new_call,
    streamed,
    stuck,
    whole,
)

LONG: dict[str, Any] = {"max_completion_tokens": 900}


class Keyed(World):
    """Provider `a` has several keys. `sent` is the key of each request, `-` for the other providers."""

    def __init__(self, *answers: Script, variables: str = "XY", limits: ProviderLimits | None = None, **provider: Any):
        super().__init__(*answers, **provider)
        self.sent = ""
        ends = {name: Endpoint("http://upstream.test/v1", Secret(f"secret-{name}")) for name in variables}
        keys = [Key(name, end, KeyState()) for name, end in ends.items()]
        self.keys = Keys("a", keys, limits or ProviderLimits(), lambda *_, **__: None, lambda: 100.0)
        self.upstreams["a"].keys = self.keys

    async def send(self, request: Outgoing, connect_timeout_s: float, on_sent: Callable[[], None]) -> Reply:
        key = dict(request.fixed.pairs).get(b"authorization", b"-").decode()
        self.sent += key[-1]
        return await super().send(request, connect_timeout_s, on_sent)

    def patient(self) -> Dispatcher:
        """A back-off that no test would wait for."""
        return self.dispatcher(backoff_s=600)


@pytest.mark.parametrize("failure", [error(401), error(403), error(429, retry_after="9"), error(429, retry_after="90")])
async def test_another_key_is_tried_at_once(failure: Reply) -> None:
    """An attempt of its own, with a row of its own. The refused one cost nothing, and whoever observes it is told."""
    world, call = Keyed(failure, whole(), retries=1), new_call()
    answer = await world.patient().complete(call, world.route("ab"), call.request)
    assert answer.response is not None
    assert (asked(call), world.sent) == ("aa", "XY")
    assert [what for what, _ in world.log] == ["open", "send", "end", "intend", "send", "end"]
    assert [(end.usage_source, end.cost_nano) for end in world.ended] == [("none", 0), ("provider", ANSWER_NANO)]
    assert [(attempt.other_key, attempt.retry_after_s) for attempt in world.observed] == [(True, None), (False, None)]


async def test_a_stream_goes_on_with_another_key() -> None:
    """Before its first token."""
    world, call = Keyed(error(401), streamed(*COMPLETE), retries=1), new_call(stream=True)
    request = cast(ChatRequest, call.request)
    batches: list[Any] = []
    await world.patient().stream(call, world.route(), batches.append, call.gate, request)
    assert (world.sent, call.gate.is_closed) == ("XY", True)


@pytest.mark.parametrize(("retries", "keys"), [(0, "X"), (1, "XY"), (2, "XYZ"), (5, "XYZ")])
async def test_other_keys_count_as_retries(retries: int, keys: str) -> None:
    """Then the next candidate is asked."""
    answers = [*(error(401) for _ in keys), whole()]
    world, call = Keyed(*answers, variables="XYZ", retries=retries), new_call()
    await world.patient().complete(call, world.route("ab"), call.request)
    assert (world.sent, asked(call)) == (keys + "-", "a" * len(keys) + "b")


async def test_a_failure_of_the_vendor_keeps_its_back_off() -> None:
    """It is not about the key; the least used one is next all the same."""
    world = Keyed(error(500), whole(), retries=1)
    await world.complete(new_call())
    assert world.sent == "XY"
    assert world.keys.resting() == {}


async def test_without_a_free_key_the_call_moves_on_without_a_wait() -> None:
    """Nothing is sent, nothing is paid, and nothing is tried again."""
    world = Keyed(whole(), whole(), whole(), retries=2, limits=ProviderLimits(requests_per_minute=1))
    for _ in range(2):
        await world.complete(new_call())
    call = new_call()
    await world.patient().complete(call, world.route("ab"), call.request)
    assert (asked(call), world.sent) == ("ab", "XY-")
    refused = next(attempt for attempt in world.observed if attempt.ended and attempt.ended.error_code)
    assert refused.ended is not None
    assert (refused.ended.error_code, refused.ended.cost_nano) == ("rate_limit_exceeded", 0)
    assert (refused.other_key, refused.retry_after_s) == (False, 61)
    alone = new_call()
    with pytest.raises(KeysUnavailable, match="X has used its 1 requests per minute"):
        await world.patient().complete(alone, world.route("a"), alone.request)


async def test_requests_at_once_use_several_keys() -> None:
    """The one in flight counts."""
    world = Keyed(whole(), whole(), whole(), variables="XYZ")
    calls = [new_call() for _ in range(3)]
    await asyncio.gather(*(world.complete(call) for call in calls))
    assert sorted(world.sent) == ["X", "Y", "Z"]


# --- tokens of the minute ---------------------------------------------------------------------------------------------

PROMPT = "w" * 400  # some 100 tokens


def tokens_of(world: Keyed) -> int:
    return world.keys.keys[0].state.tokens


async def left(world: Keyed, *, stream: bool = False) -> int:
    """The tokens that a failed call leaves in the minute."""
    call = new_call(stream, messages=[{"role": "user", "content": PROMPT}], **LONG)
    request = cast(ChatRequest, call.request)
    with pytest.raises(UpstreamError):
        if stream:
            await world.dispatcher().stream(call, world.route(), lambda batch: None, call.gate, request)
        else:
            await world.dispatcher().complete(call, world.route(), call.request)
    return tokens_of(world)


LIMITED: Any = {"variables": "X", "limits": ProviderLimits(tokens_per_minute=5000)}


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_leaves_its_usage(stream: bool) -> None:
    """Not what was reserved for it."""
    world = Keyed(streamed(*COMPLETE) if stream else whole(), **LIMITED)
    call = new_call(stream, **LONG)
    await (world.stream(call, "a") if stream else world.complete(call))
    assert world.ended[0].usage_source == "provider"
    assert tokens_of(world) == world.ended[0].tokens.total > 0


@pytest.mark.parametrize("failure", [error(400), error(500), error(401), ConnectFailed()])
async def test_a_refusal_leaves_no_tokens(failure: Script) -> None:
    """Nothing was written. Only what was sent counts as a request."""
    world = Keyed(failure, **LIMITED)
    assert await left(world) == 0
    assert world.keys.keys[0].state.requests == (0 if isinstance(failure, ConnectFailed) else 1)


@pytest.mark.parametrize("failure", [None, ConnectionLost(), stuck()])
@pytest.mark.slow
async def test_an_answer_that_nobody_saw_leaves_its_prompt(failure: Script) -> None:
    """The vendor has read it; what it would have written is given back."""
    world = Keyed(failure, **LIMITED)
    assert 100 <= await left(world) < 200


async def test_a_stream_that_broke_off_leaves_what_arrived() -> None:
    """By estimate."""
    world = Keyed(streamed(delta(content="word " * 20), ConnectionLost()), **LIMITED)
    assert 110 <= await left(world, stream=True) < 250


@pytest.mark.parametrize("turn", range(12))
async def test_a_cancelled_call_leaves_no_reservation(turn: int) -> None:
    """Wherever it is: before its request left nothing counts, afterwards the prompt."""
    world = Keyed(asyncio.Event() if turn % 2 else None, **LIMITED)
    call = new_call(messages=[{"role": "user", "content": PROMPT}], **LONG)
    task = asyncio.create_task(world.complete(call))
    for _ in range(turn):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    state = world.keys.keys[0].state
    if turn % 2 or not state.requests:
        assert (state.requests, state.tokens) == (0, 0)
    else:
        assert state.requests == 1
        assert 100 <= state.tokens < 200
    assert {end.outcome for end in world.ended} <= {Outcome.CANCELLED}
