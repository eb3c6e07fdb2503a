"""The life of an attempt, its usage, and its row."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from proxy.pipeline.attempt import Attempt
from proxy.pipeline.call import Call
from proxy.providers.base.usage import read
from proxy.providers.compatible.errors import error_in
from proxy.routing.ask import Origin
from proxy.schema.attempt_state import AttemptState, IllegalStep
from proxy.schema.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable
from proxy.schema.records import Cost, Outcome, Tokens
from tests.pipeline.calls import EXACT, EXACT_NANO, USAGE, HandClock, answer_of, attempt_of, chunk_of, new_call

HOLD_NANO = 5_000_000


@pytest.fixture
def call() -> Call:
    return new_call()


def accepted(call: Call, **options: Any) -> Attempt:
    """An attempt whose answer has begun."""
    attempt = attempt_of(call, hold_nano=HOLD_NANO, **options)
    attempt.note_accepted(200, "req_1")
    return attempt


def answered(call: Call, usage: dict[str, Any] | None, **message: Any) -> Attempt:
    """An attempt whose whole answer has arrived."""
    attempt = accepted(call)
    attempt.note_whole(answer_of(usage, **message))
    return attempt


# --- its life ---------------------------------------------------------------------------------------------------------

STEPS: dict[str, Callable[[Attempt], Any]] = {
    "grant": lambda attempt: attempt.note_granted(),
    "withdraw": lambda attempt: attempt.note_withdrawn(),
    "send": lambda attempt: attempt.note_sent(),
    "accept": lambda attempt: attempt.note_accepted(200, None),
    "finish": lambda attempt: attempt.note_finished(),
}
NEXT = {
    "": {"grant", "withdraw"},
    "grant": {"send", "accept"},  # `accept`: a transport that does not say when it sends
    "send": {"grant", "accept"},  # `grant`: nothing reached the provider
    "accept": {"finish"},
    "finish": {"finish"},  # every later event of a stream says so again
    "withdraw": set(),
}


def test_no_step_of_an_attempt_can_be_left_out_or_taken_twice(call: Call) -> None:
    """Any other order of steps raises at the first wrong step."""
    deployment = attempt_of(call).deployment
    for steps in itertools.product(STEPS, repeat=4):
        attempt, last = Attempt(call, deployment, call.request), ""
        for step in steps:
            before = attempt.state
            if step in NEXT[last]:
                STEPS[step](attempt)
                last = step
                continue
            with pytest.raises(IllegalStep):
                STEPS[step](attempt)
            assert attempt.state is before
            break


@pytest.mark.parametrize("step", STEPS)
def test_nothing_happens_to_an_attempt_that_ended(call: Call, step: str) -> None:
    """Every later step raises, even a finish in the rest of its stream."""
    attempt = answered(call, USAGE)
    attempt.end(Outcome.OK)
    with pytest.raises(IllegalStep):
        STEPS[step](attempt)


@pytest.mark.parametrize("steps", [(), ("withdraw",)])
def test_what_was_never_granted_has_no_end(call: Call, steps: tuple[str, ...]) -> None:
    """It has no row to end."""
    attempt = Attempt(call, attempt_of(call).deployment, call.request)
    for step in steps:
        STEPS[step](attempt)
    with pytest.raises(IllegalStep):
        attempt.end(Outcome.OK)
    assert attempt.ended is None


def test_the_first_end_of_an_attempt_stands(call: Call) -> None:
    """A late cancellation does not overwrite what happened."""
    attempt = answered(call, USAGE)
    first = attempt.end(Outcome.OK)
    assert attempt.end(Outcome.CANCELLED, "late") is first
    assert (first.outcome, attempt.state) == (Outcome.OK, AttemptState.ENDED)


def test_what_it_used_and_cost_stays_as_it_ended(call: Call) -> None:
    """Even if bytes arrive after its end, because a cancelled reader was slow."""
    attempt = answered(call, USAGE)
    end = attempt.end(Outcome.OK)
    attempt.tally.add(chunk_of("y" * 800))
    assert (attempt.measured(), attempt.cost()) == (
        (end.tokens, end.usage_source),
        Cost(EXACT_NANO, 120_000, 20_000, 0, 70_000),
    )


def test_the_wait_for_a_provider_ends_with_its_attempt(call: Call) -> None:
    """Exactly once: the time after it is the proxy's own."""
    clock = HandClock()
    call = new_call(clock)
    attempt = attempt_of(call, is_sent=False)
    attempt.begin_wait()
    clock.monotonic_s += 1
    attempt.note_received()
    attempt.note_received()
    attempt.end(Outcome.CANCELLED)
    clock.monotonic_s += 0.5
    assert call.time.overhead_ms() == pytest.approx(500)


# --- tokens and where they are from -----------------------------------------------------------------------------------


def test_the_providers_usage_is_exact(call: Call) -> None:
    """Cached tokens apart from the others."""
    attempt = answered(call, USAGE, content="anything")
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
    """Generated text never counts as zero."""
    measured, source = answered(call, None, **message).measured()
    assert (source, measured.output) == ("estimated", 20)
    assert measured.input > 0


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 100, "completion_tokens": 0, "total_tokens": 100}, Tokens(input=100, output=20)),
        ({"prompt_tokens": 0, "completion_tokens": 7, "total_tokens": 7}, Tokens(input=14, output=7)),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, Tokens(input=14, output=20)),
    ],
)
def test_what_usage_leaves_out_of_a_whole_answer_is_estimated(call: Call, usage: dict[str, Any], expected: Any) -> None:
    """The rest of it is kept; what is shown says the same."""
    attempt = answered(call, usage, content="y" * 80)
    attempt.end(Outcome.OK)
    assert attempt.measured() == (expected, "estimated")
    shown = attempt.used().report.shown
    assert (shown["prompt_tokens"], shown["completion_tokens"]) == (expected.prompt, expected.output)


def test_the_text_of_an_answer_whose_usage_is_there_is_not_counted(call: Call) -> None:
    """It would cost time for nothing."""
    assert answered(call, USAGE, content="y" * 80).tally.output_tokens == 0


def test_a_request_that_never_left_used_nothing(call: Call) -> None:
    """It cost zero, which is different from an unknown cost."""
    attempt = attempt_of(call, price=None, is_sent=False)
    assert attempt.measured() == (Tokens(), "none")
    assert attempt.end(Outcome.CANCELLED).cost_nano == 0


def test_a_stream_that_was_cut_costs_the_larger_of_seen_and_counted(call: Call) -> None:
    """The text so far or the usage in the chunks, whichever is larger, flagged as estimated."""
    attempt = accepted(call)
    attempt.tally.add(chunk_of("y" * 80, {"prompt_tokens": 50, "completion_tokens": 3, "total_tokens": 53}))
    assert attempt.measured() == (Tokens(input=50, output=20), "estimated")
    attempt.tally.add(chunk_of("y", {"prompt_tokens": 50, "completion_tokens": 30, "total_tokens": 80}))
    assert attempt.measured() == (Tokens(input=50, output=30), "estimated")


@pytest.mark.parametrize("is_accepted", [True, False])
def test_what_nobody_saw_costs_its_hold(call: Call, is_accepted: bool) -> None:
    """A request that was sent may have been answered in full, so its prompt alone would be too little."""
    attempt = accepted(call) if is_accepted else attempt_of(call, hold_nano=HOLD_NANO)
    measured, source = attempt.measured()
    assert (source, measured.output) == ("unknown", 0)
    assert measured.input > 0
    cost = attempt.cost()
    assert cost is not None
    assert cost.total == cost.input + cost.output == HOLD_NANO
    assert attempt.end(Outcome.CLIENT_CLOSED).cost_nano == HOLD_NANO


def test_what_nobody_saw_of_an_attempt_without_a_bound_has_no_known_cost(call: Call) -> None:
    """The cost is null, not that of the prompt."""
    assert attempt_of(call, hold_nano=None).end(Outcome.CLIENT_CLOSED).cost_nano is None
    assert attempt_of(call, price=None, hold_nano=None).end(Outcome.CLIENT_CLOSED).cost_nano is None


def test_usage_seen_above_the_hold_is_not_cut_to_it(call: Call) -> None:
    """If the bound was wrong, the observed usage is booked."""
    attempt = attempt_of(call, hold_nano=1)
    attempt.note_accepted(200, None)
    attempt.tally.usage = read({"prompt_tokens": 100, "completion_tokens": 0, "total_tokens": 100})
    assert attempt.measured()[1] == "unknown"
    assert attempt.end(Outcome.CLIENT_CLOSED).cost_nano == 100 * 2_000


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        UpstreamError("redirected", upstream_status=302),
        UpstreamError("refused", status=429, upstream_status=429),
        UpstreamError("failed", upstream_status=500),
        UpstreamUnavailable("nobody listens"),
        UpstreamTimeout("no connection", Outcome.TIMEOUT_CONNECT),
    ],
    ids=str,
)
@pytest.mark.parametrize("is_sent", [True, False])
def test_what_was_refused_or_never_arrived_used_nothing(call: Call, error: UpstreamError, is_sent: bool) -> None:
    """Vendors do not bill it."""
    attempt = attempt_of(call, hold_nano=HOLD_NANO, is_sent=is_sent)
    attempt.fail(error)
    assert attempt.ended is not None
    assert (attempt.ended.usage_source, attempt.ended.cost_nano, attempt.ended.tokens) == ("none", 0, Tokens())
    assert (attempt.ended.outcome, attempt.ended.status) == (error.outcome, error.upstream_status)


@pytest.mark.parametrize(
    "error",
    [
        UpstreamTimeout("no answer", Outcome.TIMEOUT_TOTAL),
        UpstreamTimeout("no token", Outcome.TIMEOUT_FIRST_TOKEN),
        UpstreamError("closed without an answer", code="upstream_truncated"),
        UpstreamError("a page of HTML", upstream_status=200),
    ],
    ids=str,
)
def test_what_may_have_been_worked_on_costs_its_hold(call: Call, error: UpstreamError) -> None:
    """The usage is unknown, so neither zero nor only the prompt is booked."""
    attempt = attempt_of(call, hold_nano=HOLD_NANO)
    attempt.fail(error)
    assert attempt.ended is not None
    assert (attempt.ended.usage_source, attempt.ended.cost_nano) == ("unknown", HOLD_NANO)
    assert error.resendable is False


def inside(error: dict[str, Any], **more: Any) -> UpstreamError:
    """The error in a 200 of this body."""
    found = error_in({"error": {"message": "no", **error}, **more})
    assert found is not None
    return found


@pytest.mark.parametrize("code", ["invalid_api_key", "insufficient_quota", "model_not_found", "rate_limit_exceeded"])
def test_a_refusal_inside_a_200_used_nothing(call: Call, code: str) -> None:
    """The status of HTTP does not tell; the words do."""
    attempt = accepted(call)
    attempt.fail(inside({"code": code}))
    assert attempt.ended is not None
    assert (attempt.ended.usage_source, attempt.ended.cost_nano, attempt.ended.error_code) == ("none", 0, code)


def test_an_error_inside_a_200_may_come_with_what_was_counted(call: Call) -> None:
    """Then that is in the row, and the hold is given back; a failure without it costs its hold."""
    attempt = accepted(call)
    attempt.fail(inside({"code": 502}, usage={"prompt_tokens": 10, "completion_tokens": 72, "total_tokens": 82}))
    assert attempt.ended is not None
    assert (attempt.ended.usage_source, attempt.ended.tokens.prompt, attempt.ended.tokens.output) == (
        "estimated",
        10,
        72,
    )
    silent = accepted(call)
    silent.fail(inside({"code": 502}))
    assert silent.ended is not None
    assert (silent.ended.usage_source, silent.ended.cost_nano) == ("unknown", HOLD_NANO)


def test_a_broken_stream_with_text_is_estimated_from_it(call: Call) -> None:
    """The client's text is known; the hold would be many times too much."""
    attempt = accepted(call)
    attempt.tally.add(chunk_of("y" * 80))
    attempt.fail(UpstreamError("broke off", code="upstream_truncated"))
    assert attempt.ended is not None
    assert (attempt.ended.usage_source, attempt.ended.tokens.output) == ("estimated", 20)
    assert (attempt.ended.cost_nano or 0) < HOLD_NANO


# --- rows -------------------------------------------------------------------------------------------------------------


def test_its_row_says_where_it_stands_in_the_tree(call: Call) -> None:
    """Its parent attempt, and its seat among concurrent ones."""
    first = attempt_of(call)
    repair = attempt_of(call, origin=Origin(first.id, 2))
    opening = repair.opening(HOLD_NANO)
    assert (opening.parent, opening.seat, opening.seq, opening.hold_nano) == (first.id, 2, 2, HOLD_NANO)
    assert (first.opening(None).parent, first.opening(None).seat) == (None, 0)


def test_its_end_repeats_what_the_vendor_said(call: Call) -> None:
    """The status and id of the answer, or the status of the error."""
    attempt = accepted(call)
    end = attempt.end(Outcome.CLIENT_CLOSED)
    assert (end.id, end.call_id, end.status, end.upstream_request_id) == (attempt.id, call.id, 200, "req_1")
    failed = accepted(call)
    error = UpstreamError("overloaded", code="overloaded", upstream_status=529)
    error.retry_after_s = 3.0
    failed.fail(error)
    assert failed.ended is not None
    assert (failed.ended.status, failed.ended.error_code, failed.retry_after_s) == (529, "overloaded", 3.0)
