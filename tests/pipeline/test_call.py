"""A call's row, the usage of its answer, and its first token."""

from __future__ import annotations

from typing import Any, cast

import pytest

from proxy.metering.pricing import ModelPrice
from proxy.pipeline.attempt import Attempt
from proxy.pipeline.call import Call
from proxy.schema.errors import ProxyError, UpstreamError, UpstreamTimeout
from proxy.schema.records import Outcome
from proxy.server.formats.chat import completion_id
from tests.pipeline.calls import EXACT_NANO, PRICE, USAGE, HandClock, answer_of, attempt_of, chunk_of, new_call

MISSING_NANO = 1_234_567  # the hold of an attempt whose answer nobody saw


@pytest.fixture
def hands() -> HandClock:
    return HandClock()


@pytest.fixture
def call(hands: HandClock) -> Call:
    return new_call(hands)


def give(attempt: Attempt, usage: dict[str, Any] | None, **message: Any) -> None:
    """Gives a whole, valid answer that becomes part of the call's answer."""
    call = attempt.call  # an attempt that has ended has let it go
    attempt.note_accepted(200, None)
    attempt.note_whole(answer_of(usage, **message))
    attempt.end(Outcome.OK)
    answer_with(call, attempt)


def answer_with(call: Call, *attempts: Attempt) -> None:
    call.note_answered([attempt.id for attempt in (*call.answered, *attempts)])


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
    """The model name as the client wrote it, the caller, and the time."""
    opening = call.opening("v1")
    assert (opening.id, opening.requested_model, opening.key_id) == ("call1", "smart", "default")
    assert (opening.opened_ns, opening.config_version) == (1_760_000_000_500_000_000, "v1")
    assert call.created == 1_760_000_000


def test_durations_are_measured_on_the_monotonic_clock(call: Call, hands: HandClock) -> None:
    """A jump of the wall clock changes no latency."""
    attempt = attempt_of(call)
    hands.monotonic_s += 0.25
    hands.unix_ns -= 3_600_000_000_000
    attempt.note_first_token()
    hands.monotonic_s += 0.5
    ended, end = attempt.end(Outcome.OK), call.end(Outcome.OK)
    assert (end.first_token_ms, end.latency_ms) == (250.0, 750.0)
    assert (ended.first_token_ms, ended.duration_ms) == (250.0, 750.0)


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
    """Or 499 if the client had left."""
    end = call.end(outcome, error)
    assert (end.outcome, end.status, end.error_code) == (outcome, status, error.code if error else None)


def test_a_call_without_attempts_names_no_model(call: Call) -> None:
    """It was refused before a model was chosen."""
    end = call.end(Outcome.REJECTED)
    assert (end.provider, end.model, end.fallback) == (None, None, False)


def test_fallback_means_another_model_not_another_try(call: Call) -> None:
    """Retries of one deployment do not count."""
    attempt_of(call)
    attempt_of(call)
    assert not call.end(Outcome.OK).fallback
    attempt_of(call, "other")
    assert call.end(Outcome.OK).fallback


# --- usage in the answer ----------------------------------------------------------------------------------------------


def test_usage_keeps_what_the_provider_said_and_adds_the_cost(call: Call) -> None:
    """Details are kept, and the parts of the cost add up to it."""
    give(attempt_of(call), {**USAGE, "queue_time": 0.1})
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
    give(attempt, {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2})
    usage = cast(dict[str, Any], call.usage())
    assert usage["cost_details"]["requests"] == 0.001
    assert "searches" not in usage["cost_details"]
    assert round(sum(usage["cost_details"].values()) * 1e9) == round(usage["cost"] * 1e9) == 12_000 + 1_000_000


def test_cost_includes_earlier_attempts_that_cost_something(call: Call) -> None:
    """Failed attempts that cost something are part of the price of the answer."""
    failed = attempt_of(call)
    failed.note_accepted(200, None)
    failed.tally.add(chunk_of("y" * 80))
    failed.fail(UpstreamError("broke off"))
    assert failed.ended is not None
    assert failed.ended.cost_nano
    give(attempt_of(call, "other"), USAGE)
    usage = call.usage()
    assert round((usage["cost"] or 0) * 1e9) == EXACT_NANO + failed.ended.cost_nano
    assert usage["completion_tokens"] == 7


def test_cost_includes_the_hold_of_what_nobody_saw(call: Call) -> None:
    """A time-out may have been a whole answer, which the vendor bills."""
    lost = attempt_of(call, hold_nano=MISSING_NANO)
    lost.fail(UpstreamTimeout("no answer", Outcome.TIMEOUT_TOTAL))
    give(attempt_of(call, "other"), USAGE)
    assert round((call.usage()["cost"] or 0) * 1e9) == EXACT_NANO + MISSING_NANO


@pytest.mark.parametrize("unpriced", ["the answer", "an earlier attempt"])
def test_cost_is_null_as_soon_as_a_part_is_unknown(call: Call, unpriced: str) -> None:
    """A sum with an unknown term is unknown, not smaller."""
    failed = attempt_of(call, price=None if unpriced == "an earlier attempt" else PRICE)
    failed.note_accepted(200, None)
    failed.fail(UpstreamError("broke off"))
    give(attempt_of(call, "other", None if unpriced == "the answer" else PRICE), USAGE)
    assert call.usage()["cost"] is None


def test_estimated_usage_says_so_and_has_three_integers(call: Call) -> None:
    """And total is their sum."""
    give(attempt_of(call), None, content="y" * 80)
    usage = cast(dict[str, Any], call.usage())
    assert usage["estimated"] is True
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert [type(usage[f"{part}_tokens"]) for part in ("prompt", "completion", "total")] == [int, int, int]


def test_usage_is_the_sum_over_what_the_answer_is_made_of(call: Call) -> None:
    """Tokens, details and costs, nested ones too. Other values come from the first attempt."""
    give(attempt_of(call), {**USAGE, "queue_time": 0.25, "tier": "a", "extra": None, "flag": True})
    give(attempt_of(call), {**USAGE, "queue_time": 0.5, "tier": "b", "extra": 1, "flag": True})
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
    """Its tokens are not in the answer's usage, but its cost is in the call's."""
    withdrawn, answering = attempt_of(call), attempt_of(call, "other")
    give(withdrawn, USAGE)
    give(answering, USAGE)
    call.note_answered([answering.id])
    assert call.answered == [answering]
    assert call.usage()["total_tokens"] == 107
    assert round((call.usage()["cost"] or 0) * 1e9) == 2 * EXACT_NANO


def test_the_parts_of_the_cost_add_up_to_it_whatever_was_tried(call: Call) -> None:
    """An attempt before the answer is paid too, so its parts are among them."""
    give(attempt_of(call, "first"), USAGE)
    answering = attempt_of(call, "second")
    give(answering, USAGE)
    call.note_answered([answering.id])
    usage = call.usage()
    assert usage["prompt_tokens"] == 100
    assert usage["cost"] == 2 * EXACT_NANO / 1e9
    assert round(sum(usage["cost_details"].values()) * 1e9) == 2 * EXACT_NANO


def test_an_answer_may_come_from_several_deployments(call: Call) -> None:
    """Its usage is the sum over them; the row names the one whose answer came last."""
    first, other, last = attempt_of(call), attempt_of(call, "judge"), attempt_of(call, "writer")
    for attempt in (first, other, last):
        give(attempt, USAGE)
    call.note_answered([last.id, first.id])
    assert call.answered == [first, last]  # in the order they began
    assert (call.end(Outcome.OK).model, call.answering) == ("writer", last)
    assert call.usage()["total_tokens"] == 2 * 107


def test_while_nobody_answered_the_call_is_that_of_whose_content_leaves(call: Call) -> None:
    """Otherwise of the latest attempt."""
    first, last = attempt_of(call), attempt_of(call, "other")
    assert call.answering is last
    call.gate.attempt = first
    assert call.answering is first
    answer_with(call, last)
    assert call.answering is last


async def test_the_end_of_a_call_gives_its_place_back_with_what_it_used(call: Call) -> None:
    """The tokens of all ended attempts; withdrawn ones have none."""
    given: list[int | None] = []
    call.leave = given.append
    give(attempt_of(call), USAGE)
    give(attempt_of(call), USAGE)
    attempt_of(call)
    call.note_ended()
    assert given == [2 * 107]


async def test_an_answer_that_nobody_saw_takes_its_prompt_from_the_rate_limit(hands: HandClock) -> None:
    """Its row has all that the model may have written: enough to block the caller for minutes."""
    call = new_call(hands)
    given: list[int | None] = []
    call.leave = given.append
    attempt = attempt_of(call, price=ModelPrice(input=2.0, output=10.0, max_output=4096), hold_nano=50_000_000)
    ended = attempt.end(Outcome.TIMEOUT_TOTAL)
    assert (ended.usage_source, ended.tokens.output) == ("unknown", 4096)
    call.note_ended()
    assert given == [ended.tokens.input]


def test_a_calls_first_token_is_the_first_of_all_that_answer(call: Call, hands: HandClock) -> None:
    """Its overhead ends there too, whatever follows."""
    first, second = attempt_of(call), attempt_of(call)
    hands.monotonic_s += 0.1
    for attempt in (first, second):
        attempt.begin_wait()
    for attempt in (second, first):
        hands.monotonic_s += 1
        attempt.note_first_token()
    answer_with(call, first, second)
    assert call.end(Outcome.OK).first_token_ms == pytest.approx(1100)
    assert call.time.overhead_ms() == pytest.approx(100)
