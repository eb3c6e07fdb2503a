"""What a call and its attempts turn into: rows for the ledger, usage for the answer."""

from __future__ import annotations

from typing import Any, cast

import pytest

from proxy.metering.pricing import ModelPrice
from proxy.pipeline.call import Attempt, Call
from proxy.pipeline.timing import Clock
from proxy.providers.openai import OpenAI
from proxy.routing.names import Deployment
from proxy.schema.chat import ChatChunk, ChatRequest, ChatResponse, Message
from proxy.schema.errors import ProxyError, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from proxy.schema.records import Caller, Cost, Outcome, Tokens
from proxy.server.formats.chat import completion_id

PRICE = ModelPrice(input=2.0, output=10.0, cached_input=0.5)  # 2,000, 10,000 and 500 nano-USD a token
USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 7,
    "total_tokens": 107,
    "prompt_tokens_details": {"cached_tokens": 40},
}
EXACT = Tokens(input=60, cache_read=40, output=7)
EXACT_NANO = 60 * 2_000 + 40 * 500 + 7 * 10_000


class Hands:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.unix_ns = 1_760_000_000_500_000_000
        self.monotonic_s = 10.0

    def clock(self) -> Clock:
        return Clock(lambda: self.unix_ns, lambda: self.monotonic_s)


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def call(hands: Hands) -> Call:
    request = ChatRequest(model="smart", messages=[Message("user", "x" * 40)], fields={})
    return Call("call1", Caller("default"), request, hands.clock())


def attempt_of(call: Call, model: str = "gpt", price: ModelPrice | None = PRICE) -> Attempt:
    """One more attempt, as the dispatcher begins it."""
    attempt = Attempt(call, Deployment("openai", OpenAI(), model, price), call.request)
    call.attempts.append(attempt)
    attempt.sent = True
    return attempt


def give(attempt: Attempt, response: ChatResponse) -> None:
    """A whole answer comes, and is what was asked for."""
    attempt.note_whole(response)
    attempt.note_answered()


def answer_of(usage: dict[str, Any] | None, **message: Any) -> ChatResponse:
    """A whole answer as a provider parses it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": "stop"}
    return cast(ChatResponse, {"choices": [choice]} | ({"usage": usage} if usage else {}))


def chunk_of(content: str, usage: dict[str, Any] | None = None) -> ChatChunk:
    return cast(ChatChunk, {"choices": [{"index": 0, "delta": {"content": content}}], "usage": usage})


# --- tokens and where they are from -----------------------------------------------------------------------------------


def test_the_providers_usage_is_exact(call: Call) -> None:
    """Cached tokens apart from the others."""
    attempt = attempt_of(call)
    give(attempt, answer_of(USAGE, content="anything"))
    assert attempt.measured() == (EXACT, "provider")
    assert attempt.cost() == Cost(EXACT_NANO, 120_000, 20_000, 0, 70_000)


@pytest.mark.parametrize(
    "message",
    [
        {"content": "y" * 80},
        {"refusal": "y" * 80},
        {"reasoning_content": "y" * 80},
        {"content": "y" * 40, "reasoning_content": "y" * 40},
        {"tool_calls": [{"id": "1", "type": "function", "function": {"name": "y" * 20, "arguments": "y" * 60}}]},
    ],
)
def test_an_answer_without_usage_is_estimated_from_all_it_says(call: Call, message: dict[str, Any]) -> None:
    """Never zero for words that were written."""
    attempt = attempt_of(call)
    give(attempt, answer_of(None, **message))
    measured, source = attempt.measured()
    assert (source, measured.output) == ("estimated", 20)
    assert measured.input > 0


def test_a_request_that_never_left_used_nothing(call: Call) -> None:
    """And cost nothing, which is not the same as an unknown cost."""
    attempt = attempt_of(call, price=None)
    attempt.sent = False
    assert attempt.measured() == (Tokens(), "none")
    assert attempt.end(Outcome.CANCELLED).cost_nano == 0


def test_a_stream_that_was_cut_costs_the_larger_of_seen_and_counted(call: Call) -> None:
    """Its text so far, or the usage that a vendor sends with each chunk, and it is flagged as estimated."""
    attempt = attempt_of(call)
    attempt.accepted = True
    attempt.fold.add(chunk_of("y" * 80, {"prompt_tokens": 50, "completion_tokens": 3, "total_tokens": 53}))
    assert attempt.measured() == (Tokens(input=50, output=20), "estimated")
    attempt.fold.add(chunk_of("y", {"prompt_tokens": 50, "completion_tokens": 30, "total_tokens": 80}))
    assert attempt.measured() == (Tokens(input=50, output=30), "estimated")


def test_a_cut_before_the_first_token_costs_the_prompt(call: Call) -> None:
    """The provider has read it."""
    attempt = attempt_of(call)
    attempt.accepted = True
    measured, source = attempt.measured()
    assert (source, measured.output) == ("estimated", 0)
    assert measured.input > 0


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        UpstreamError("refused", status=429, upstream_status=429),
        UpstreamError("failed", upstream_status=500),
        UpstreamUnavailable("nobody listens"),
        UpstreamTimeout("no connection", Outcome.TIMEOUT_CONNECT),
    ],
    ids=str,
)
def test_what_was_refused_or_never_arrived_used_nothing(call: Call, error: UpstreamError) -> None:
    """Vendors do not bill it."""
    attempt = attempt_of(call)
    attempt.note_failure(error)
    assert attempt.ended is not None
    assert (attempt.ended.usage_source, attempt.ended.cost_nano, attempt.ended.tokens) == ("none", 0, Tokens())
    assert (attempt.ended.outcome, attempt.ended.status) == (error.outcome, error.upstream_status)


@pytest.mark.parametrize(
    "error",
    [
        UpstreamTimeout("no answer", Outcome.TIMEOUT_TOTAL),
        UpstreamTimeout("no token", Outcome.TIMEOUT_FIRST_TOKEN),
        UpstreamError("closed without an answer", code="upstream_truncated"),
    ],
    ids=str,
)
def test_what_may_have_been_worked_on_is_estimated(call: Call, error: UpstreamError) -> None:
    """Nobody knows, so it is not free."""
    attempt = attempt_of(call)
    attempt.note_failure(error)
    assert attempt.ended is not None
    assert attempt.ended.usage_source == "estimated"
    assert (attempt.ended.cost_nano or 0) > 0


def test_the_first_end_of_an_attempt_stands(call: Call) -> None:
    """A late cancellation does not overwrite what happened."""
    attempt = attempt_of(call)
    give(attempt, answer_of(USAGE))
    first = attempt.end(Outcome.OK)
    assert attempt.end(Outcome.CANCELLED, "late") is first
    assert first.outcome is Outcome.OK


# --- rows -------------------------------------------------------------------------------------------------------------


def test_ids_join_call_attempt_and_answer(call: Call) -> None:
    """One id in the row, upstream and in the answer."""
    first, second = attempt_of(call), attempt_of(call)
    assert (completion_id(call), first.id, second.id) == ("chatcmpl-call1", "call1-1", "call1-2")
    assert [first.seq, second.seq] == [1, 2]
    opening = first.opening(123)
    assert (opening.id, opening.call_id, opening.provider, opening.model) == ("call1-1", "call1", "openai", "gpt")
    assert opening.hold_nano == 123


def test_a_call_opens_with_what_was_asked(call: Call) -> None:
    """The name as the client wrote it, who asked, and when."""
    opening = call.opening("v1")
    assert (opening.id, opening.requested_model, opening.key_id) == ("call1", "smart", "default")
    assert (opening.opened_ns, opening.config_version) == (1_760_000_000_500_000_000, "v1")
    assert call.created == 1_760_000_000


def test_durations_are_measured_on_the_monotonic_clock(call: Call, hands: Hands) -> None:
    """A wall clock that jumps changes no latency."""
    attempt = attempt_of(call)
    hands.monotonic_s += 0.25
    hands.unix_ns -= 3_600_000_000_000
    attempt.note_first_token()
    hands.monotonic_s += 0.5
    end = call.end(Outcome.OK)
    assert (end.first_token_ms, end.latency_ms) == (250.0, 750.0)
    assert [(each.first_token_ms, each.duration_ms) for each in call.ends] == [(250.0, 750.0)]


@pytest.mark.parametrize(
    ("outcome", "error", "status"),
    [
        (Outcome.OK, None, 200),
        (Outcome.CLIENT_CLOSED, None, 499),
        (Outcome.CANCELLED, None, 503),
        (Outcome.UNKNOWN, None, 500),
        (Outcome.REJECTED, ProxyError("no", status=404, code="model_not_found"), 404),
        (Outcome.TIMEOUT_TOTAL, UpstreamTimeout("late", Outcome.TIMEOUT_TOTAL), 504),
    ],
)
def test_a_rows_status_is_what_the_client_saw(
    call: Call, outcome: Outcome, error: ProxyError | None, status: int
) -> None:
    """Or 499 where it saw nothing any more."""
    end = call.end(outcome, error)
    assert (end.outcome, end.status, end.error_code) == (outcome, status, error.code if error else None)


def test_a_call_without_attempts_names_no_model(call: Call) -> None:
    """It was refused before anybody was chosen."""
    end = call.end(Outcome.REJECTED)
    assert (end.provider, end.model, call.ends, end.fallback) == (None, None, [], False)


def test_fallback_means_another_model_not_another_try(call: Call) -> None:
    """Retries of one deployment are none."""
    attempt_of(call)
    attempt_of(call)
    assert not call.end(Outcome.OK).fallback
    attempt_of(call, "other")
    assert call.end(Outcome.OK).fallback


# --- usage in the answer ----------------------------------------------------------------------------------------------


def test_usage_keeps_what_the_provider_said_and_adds_the_cost(call: Call) -> None:
    """Details ride along; the parts of the cost add up to it."""
    give(attempt_of(call), answer_of({**USAGE, "queue_time": 0.1}))
    usage = cast(dict[str, Any], call.usage())
    assert usage == {
        **USAGE,
        "queue_time": 0.1,
        "cost": EXACT_NANO / 1e9,
        "cost_details": {"input": 0.00012, "cache_read": 0.00002, "cache_write": 0.0, "output": 0.00007},
    }
    assert round(sum(usage["cost_details"].values()) * 1e9) == EXACT_NANO


def test_fees_are_parts_of_the_cost_where_there_are_some(call: Call) -> None:
    """A price per request and per search; without them the parts are those of tokens alone."""
    price = ModelPrice(input=2.0, output=10.0, per_request=0.001, per_search=0.0025)
    attempt = attempt_of(call, price=price)
    give(attempt, answer_of({"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}))
    usage = cast(dict[str, Any], call.usage())
    assert usage["cost_details"]["requests"] == 0.001
    assert "searches" not in usage["cost_details"]
    assert round(sum(usage["cost_details"].values()) * 1e9) == round(usage["cost"] * 1e9) == 12_000 + 1_000_000


def test_cost_includes_earlier_attempts_that_cost_something(call: Call) -> None:
    """What was paid for a failed try was paid for this answer."""
    failed = attempt_of(call)
    failed.accepted = True
    failed.fold.add(chunk_of("y" * 80))
    failed.note_failure(UpstreamError("broke off"))
    assert failed.ended is not None
    assert failed.ended.cost_nano
    give(attempt_of(call, "other"), answer_of(USAGE))
    usage = call.usage()
    assert round((usage["cost"] or 0) * 1e9) == EXACT_NANO + failed.ended.cost_nano
    assert usage["completion_tokens"] == 7


@pytest.mark.parametrize("unpriced", ["the answer", "an earlier attempt"])
def test_cost_is_null_as_soon_as_a_part_is_unknown(call: Call, unpriced: str) -> None:
    """A sum with an unknown in it is unknown, not smaller."""
    failed = attempt_of(call, price=None if unpriced == "an earlier attempt" else PRICE)
    failed.accepted = True
    failed.note_failure(UpstreamError("broke off"))
    give(attempt_of(call, "other", None if unpriced == "the answer" else PRICE), answer_of(USAGE))
    assert call.usage()["cost"] is None


def test_estimated_usage_says_so_and_has_three_integers(call: Call) -> None:
    """And total is their sum."""
    give(attempt_of(call), answer_of(None, content="y" * 80))
    usage = cast(dict[str, Any], call.usage())
    assert usage["estimated"] is True
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert [type(usage[f"{part}_tokens"]) for part in ("prompt", "completion", "total")] == [int, int, int]


def test_usage_is_the_sum_over_what_the_answer_is_made_of(call: Call) -> None:
    """Tokens, details and costs, nested ones too; what is no number stays as the first said it."""
    give(attempt_of(call), answer_of({**USAGE, "queue_time": 0.25, "tier": "a", "extra": None, "flag": True}))
    give(attempt_of(call), answer_of({**USAGE, "queue_time": 0.5, "tier": "b", "extra": 1, "flag": True}))
    usage = cast(dict[str, Any], call.usage())
    assert usage == {
        "prompt_tokens": 200,
        "completion_tokens": 14,
        "total_tokens": 214,
        "prompt_tokens_details": {"cached_tokens": 80},
        "queue_time": 0.75,
        "tier": "a",
        "extra": 1,
        "flag": True,
        "cost": 2 * EXACT_NANO / 1e9,
        "cost_details": {"input": 0.00024, "cache_read": 0.00004, "cache_write": 0.0, "output": 0.00014},
    }


def test_what_was_answered_in_vain_is_paid_but_not_counted_as_the_answer(call: Call) -> None:
    """Its tokens are not the answer's, its cost is the call's."""
    withdrawn = attempt_of(call)
    give(withdrawn, answer_of(USAGE))
    call.answered.remove(withdrawn)
    give(attempt_of(call, "other"), answer_of(USAGE))
    assert call.usage()["total_tokens"] == 107
    assert round((call.usage()["cost"] or 0) * 1e9) == 2 * EXACT_NANO


def test_the_end_of_a_call_ends_all_its_attempts(call: Call) -> None:
    """Those that answered ended well before; those that still ran end as the call does."""
    answered, running, last = attempt_of(call), attempt_of(call), attempt_of(call)
    give(answered, answer_of(USAGE))
    call.end(Outcome.CLIENT_CLOSED)
    assert [each.outcome for each in call.ends] == [Outcome.OK, Outcome.CLIENT_CLOSED, Outcome.CLIENT_CLOSED]
    assert [each.id for each in call.ends] == [answered.id, running.id, last.id]


def test_a_calls_first_token_is_the_first_of_all_that_answer(call: Call, hands: Hands) -> None:
    """And its overhead ends there, whatever is waited for after it."""
    first, second = attempt_of(call), attempt_of(call)
    hands.monotonic_s += 0.1
    for attempt in (first, second):
        attempt.note_sent()
    for attempt in (second, first):
        hands.monotonic_s += 1
        attempt.note_first_token()
        attempt.note_answered()
    assert call.end(Outcome.OK).first_token_ms == pytest.approx(1100)
    assert call.time.overhead_ms() == pytest.approx(100)
