"""Calls and attempts for tests: one request, one price, and a clock moved by hand."""

from __future__ import annotations

from typing import Any, cast

from proxy.metering.pricing import ModelPrice
from proxy.pipeline.attempt import Attempt
from proxy.pipeline.call import Call
from proxy.pipeline.timing import Clock
from proxy.providers.base.usage import read
from proxy.providers.openai import OpenAI
from proxy.routing.ask import CALL, Origin
from proxy.routing.deployment import Deployment
from proxy.schema.chat import ChatChunk, ChatRequest, ChatResponse, Message
from proxy.schema.records import Caller, Tokens

PRICE = ModelPrice(input=2.0, output=10.0, cached_input=0.5)  # 2,000, 10,000 and 500 nano-USD a token
USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 7,
    "total_tokens": 107,
    "prompt_tokens_details": {"cached_tokens": 40},
}
EXACT = Tokens(input=60, cache_read=40, output=7)
EXACT_NANO = 60 * 2_000 + 40 * 500 + 7 * 10_000


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.unix_ns = 1_760_000_000_500_000_000
        self.monotonic_s = 10.0

    def clock(self) -> Clock:
        return Clock(lambda: self.unix_ns, lambda: self.monotonic_s)


def new_call(clock: HandClock | None = None, *, stream: bool = False) -> Call:
    request = ChatRequest(model="smart", messages=[Message("user", "x" * 40)], stream=stream, fields={})
    return Call("call1", Caller("default"), request, (clock or HandClock()).clock())


def attempt_of(
    call: Call,
    model: str = "gpt",
    price: ModelPrice | None = PRICE,
    *,
    hold_nano: int | None = None,
    is_sent: bool = True,
    origin: Origin = CALL,
) -> Attempt:
    """One more attempt of the call, granted, and sent unless told otherwise."""
    attempt = Attempt(call, Deployment("openai", OpenAI(), model, price), call.request, origin)
    attempt.opening(hold_nano)
    call.attempts.append(attempt)
    attempt.note_granted()
    if is_sent:
        attempt.note_sent()
    return attempt


def answer_of(usage: dict[str, Any] | None, **message: Any) -> ChatResponse:
    """A whole answer as a provider parses it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": "stop"}
    return cast(ChatResponse, {"choices": [choice]} | ({"usage": read(usage)} if usage else {}))


def chunk_of(content: str, usage: dict[str, Any] | None = None) -> ChatChunk:
    return cast(ChatChunk, {"choices": [{"index": 0, "delta": {"content": content}}], "usage": read(usage)})
