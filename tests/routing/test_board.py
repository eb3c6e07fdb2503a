"""The HealthBoard: pace, breaker, rests, probes, warm sessions and snapshots, on clocks that are moved by hand."""

from __future__ import annotations

import random
from typing import Any

import pytest

from proxy.routing.board import MAX_REST_S, REFUSED_REST_S, HealthBoard
from proxy.routing.health import least_bad
from proxy.routing.retry_budget import FLOOR, REFILL_S, HedgeSpending
from proxy.routing.settings import Breaker, RouterConfig, Sticky
from proxy.routing.standing import MIN_SAMPLES
from proxy.schema.records import AttemptEnd, Outcome, Tokens

A = "a/m"
UNIX = 1_700_000_000.0


class Clocked:
    """A board, and the clock that it reads. `turns`: the changes of its breakers."""

    def __init__(self, **settings: Any) -> None:
        self.now_s = 5.0
        self.turns: list[tuple[str, str]] = []
        self.refused: list[str] = []
        self.board = HealthBoard(lambda: self.now_s, lambda: UNIX + self.now_s)
        self.board.configure(RouterConfig(breaker=Breaker(failures=3, open_s=30, max_open_s=100), **settings))
        self.board.on_breaker = lambda name, state: self.turns.append((name, state))
        self.board.on_refused = self.refused.append

    def ends(
        self,
        outcome: Outcome = Outcome.UPSTREAM_ERROR,
        status: int | None = 500,
        code: str | None = "upstream_error",
        retry_after_s: float | None = None,
        lasted_s: float = 0.0,
    ) -> None:
        end = AttemptEnd("1", "c", outcome, status, code, duration_ms=lasted_s * 1000)
        self.board.observe(A, end, None, retry_after_s)

    def answers(self, lasted_s: float = 0.0) -> None:
        self.ends(Outcome.OK, 200, None, lasted_s=lasted_s)

    def fails(self, times: int = 3) -> None:
        for _ in range(times):
            self.ends()

    @property
    def may_try(self) -> bool:
        return self.board.may_try(A)

    @property
    def breaker(self) -> str:
        return self.board.state().of(A).breaker


# --- the breaker ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "status", "code"),
    [
        (Outcome.UPSTREAM_ERROR, 500, "upstream_error"),
        (Outcome.UPSTREAM_ERROR, 529, "overloaded"),
        (Outcome.UPSTREAM_ERROR, 408, None),
        (Outcome.UPSTREAM_ERROR, None, "upstream_unavailable"),
        (Outcome.UPSTREAM_ERROR, 200, "upstream_error"),
        (Outcome.UPSTREAM_TRUNCATED, 200, "upstream_truncated"),
        (Outcome.TIMEOUT_CONNECT, None, "upstream_timeout"),
        (Outcome.TIMEOUT_FIRST_TOKEN, None, "upstream_timeout"),
        (Outcome.TIMEOUT_IDLE, 200, "upstream_timeout"),
        (Outcome.TIMEOUT_TOTAL, 200, "upstream_timeout"),
    ],
)
def test_failures_in_a_row_open_the_breaker(outcome: Outcome, status: int | None, code: str | None) -> None:
    """Failed connections, 5xx, broken answers and time-outs alike."""
    it = Clocked()
    for number in range(3):
        assert it.may_try, number
        it.ends(outcome, status, code)
    assert not it.may_try
    assert (it.breaker, it.turns) == ("open", [(A, "open")])


@pytest.mark.parametrize(
    ("outcome", "status", "code"),
    [
        *((Outcome.UPSTREAM_ERROR, status, None) for status in (400, 404, 405, 409, 413, 422)),
        (Outcome.UPSTREAM_ERROR, 500, "context_length_exceeded"),
        (Outcome.UPSTREAM_ERROR, 403, "content_filter"),
        (Outcome.UPSTREAM_ERROR, None, "overloaded"),
        (Outcome.UPSTREAM_ERROR, None, "rate_limit_exceeded"),
        (Outcome.TIMEOUT_TOTAL, None, None),
        (Outcome.CLIENT_CLOSED, 200, None),
        (Outcome.CANCELLED, None, None),
        (Outcome.REJECTED, None, "unsupported_content"),
        (Outcome.UNKNOWN, None, None),
    ],
)
def test_what_the_request_or_the_caller_causes_says_nothing(
    outcome: Outcome, status: int | None, code: str | None
) -> None:
    """Nor does a call's own deadline: one caller could close a deployment to all."""
    it = Clocked()
    for _ in range(20):
        it.ends(outcome, status, code)
    assert it.may_try
    assert it.board.state().deployments == {}


def test_failures_far_apart_keep_it_closed() -> None:
    """Never three of eighteen attempts."""
    it = Clocked()
    for _ in range(20):
        it.fails(2)
        for _ in range(16):
            it.answers()
    assert it.turns == []


def test_failures_among_answers_open_it_too() -> None:
    """Three of the last eighteen attempts, hardly ever in a row."""
    it = Clocked()
    for _ in range(30):
        it.answers()
    for _ in range(2):
        it.fails(1)
        for _ in range(7):
            it.answers()
    assert it.may_try
    it.fails(1)
    assert (it.may_try, it.breaker) == (False, "open")


@pytest.mark.parametrize(("share", "most"), [(1.0, 5), (0.3, 5), (0.2, 10)])
def test_a_deployment_that_fails_for_a_share_of_its_attempts_is_ejected_at_the_fifth_failure(
    share: float, most: int
) -> None:
    """R15: as shipped, and in nineteen of twenty cases (all of them where everything fails)."""
    failures = []
    for seed in range(400):
        it, dice = Clocked(), random.Random(seed)
        it.board.configure(RouterConfig())
        failed = 0
        while it.may_try:
            is_bad = dice.random() < share
            failed += is_bad
            it.ends() if is_bad else it.answers()
        failures.append(failed)
    assert min(failures) == 5
    assert sorted(failures)[380] <= most


def test_the_breaker_takes_any_number_of_failures() -> None:
    """Its memory stays bounded."""
    it = Clocked()
    it.board.configure(RouterConfig(breaker=Breaker(failures=10**9)))
    for _ in range(20_000):
        it.fails(1)
    assert it.may_try


def test_a_rare_failure_never_opens_it() -> None:
    """One of fifty."""
    it = Clocked()
    for number in range(1000):
        it.ends() if number % 50 == 0 else it.answers()
    assert it.turns == []


def test_a_half_open_breaker_lets_one_probe_through() -> None:
    """After `open_s`. It closes when the probe is answered."""
    it = Clocked()
    it.fails()
    it.now_s += 29
    assert (it.may_try, it.board.enter(A)) == (False, None)
    it.now_s += 1
    assert (it.breaker, it.may_try) == ("half_open", True)
    probe = it.board.enter(A)
    assert probe is not None
    assert (it.may_try, it.board.enter(A), it.breaker) == (False, None, "open")
    it.answers()
    it.board.leave(probe)
    assert (it.breaker, it.may_try, it.board.is_open(A)) == ("closed", True, False)
    assert it.turns == [(A, "open"), (A, "half_open"), (A, "closed")]


def test_a_probe_that_proves_nothing_makes_room_for_the_next() -> None:
    """It was cancelled, or refused before it was sent."""
    it = Clocked()
    it.fails()
    it.now_s += 30
    probe = it.board.enter(A)
    it.ends(Outcome.CLIENT_CLOSED, None, None)
    assert not it.may_try
    it.board.leave(probe)
    it.board.leave(probe)
    assert it.may_try
    another = it.board.enter(A)
    it.board.leave(probe)  # its own place is long gone
    assert (another is not None, it.may_try) == (True, False)


def test_a_failed_probe_opens_it_for_twice_as_long() -> None:
    """Up to `max_open_s`; after a long good time from the start again."""
    it = Clocked()
    it.fails()
    waits = []
    for _ in range(4):
        begun = it.now_s
        while not it.may_try:
            it.now_s += 1
        waits.append(it.now_s - begun)
        probe = it.board.enter(A)
        it.ends()
        it.board.leave(probe)
    assert waits == [30, 60, 100, 100]
    it.now_s += 100
    it.answers()
    it.now_s += 101
    it.fails()
    it.now_s += 30
    assert it.may_try


def test_attempts_from_before_say_nothing_about_the_breaker() -> None:
    """An answer that began before it opened does not close it, a failure from before it closed does not count."""
    it = Clocked()
    it.fails()
    it.now_s += 10
    it.answers(lasted_s=20)
    assert it.breaker == "open"
    it.now_s += 20
    it.board.enter(A)
    it.answers(lasted_s=0)
    it.now_s += 1
    for _ in range(5):
        it.ends(Outcome.TIMEOUT_TOTAL, None, "upstream_timeout", lasted_s=60)
    assert (it.breaker, it.may_try) == ("closed", True)


# --- rests ------------------------------------------------------------------------------------------------------------


def test_a_429_rests_for_the_time_its_vendor_names() -> None:
    """Capped; longer wins. The breaker stays closed, and the reason is told."""
    it = Clocked()
    for _ in range(10):
        it.ends(status=429, code="rate_limit_exceeded", retry_after_s=20)
        it.ends(status=429, code="rate_limit_exceeded", retry_after_s=5)
    assert it.board.rest_of(A) == (20, "rate_limit_exceeded", True)
    health = it.board.state().of(A)
    assert (health.breaker, health.rests_until, health.why) == ("closed", UNIX + 25, "rate_limit_exceeded")
    assert health.named_until == UNIX + 25
    it.now_s += 19.9
    assert not it.may_try
    it.now_s += 0.1
    assert it.may_try
    assert it.board.state().of(A).rests_until == 0
    it.ends(status=429, code="rate_limit_exceeded", retry_after_s=86_400)
    assert it.board.rest_of(A)[0] == MAX_REST_S


def test_a_429_without_a_time_rests_for_a_moment() -> None:
    """That is our own guess, so a lone candidate is asked all the same."""
    it = Clocked()
    it.ends(status=429, code="rate_limit_exceeded")
    rest_s, _, is_firm = it.board.rest_of(A)
    assert (0 < rest_s <= 2, is_firm, it.may_try) == (True, False, False)


@pytest.mark.parametrize(
    ("status", "code"), [(401, "invalid_api_key"), (402, None), (403, None), (429, "insufficient_quota")]
)
def test_refused_credentials_rest_without_the_breaker(status: int, code: str | None) -> None:
    """Until somebody has had time to act."""
    it = Clocked()
    for _ in range(10):
        it.ends(status=status, code=code)
    assert (it.may_try, it.breaker, it.board.rest_of(A)[0]) == (False, "closed", REFUSED_REST_S)


def test_an_overloaded_vendor_that_names_a_time_gets_it() -> None:
    """503 with Retry-After."""
    it = Clocked()
    it.ends(status=503, retry_after_s=7)
    assert it.board.rest_of(A) == (7, "upstream_error", True)


def test_the_word_of_a_vendor_stands_over_our_guess() -> None:
    """Also if it is the shorter time."""
    it = Clocked()
    it.ends(status=401, code="invalid_api_key")
    it.ends(status=429, code="rate_limit_exceeded", retry_after_s=30)
    assert it.board.rest_of(A) == (30, "rate_limit_exceeded", True)


def test_a_snapshot_sorts_what_is_unwell_as_the_board_does() -> None:
    """By the same function: the last failure, or the time that the vendor named."""
    it = Clocked()
    names = [f"a/{number}" for number in range(6)]
    for number, name in enumerate(reversed(names)):
        it.now_s += 1
        end = AttemptEnd("1", "c", Outcome.UPSTREAM_ERROR, 500, "upstream_error", duration_ms=0)
        for _ in range(3):
            it.board.observe(name, end, None, 30 - number if number % 2 else None)
    state = it.board.state()
    by_snapshot = {
        name: least_bad(health.named_until if health.named_until > state.now else None, health.failed_at)
        for name in names
        if (health := state.of(name))
    }
    assert sorted(names, key=it.board.badness) == sorted(names, key=by_snapshot.__getitem__) != names
    assert [it.board.badness(name)[0] for name in names] == [True, False] * 3


# --- pace -------------------------------------------------------------------------------------------------------------


def stream_end(duration_ms: float, output: int) -> AttemptEnd:
    return AttemptEnd("1", "c", Outcome.OK, 200, tokens=Tokens(output=output), duration_ms=duration_ms)


def test_pace_is_a_moving_average() -> None:
    """Of the time to the first token, and of the tokens a second after it."""
    board = Clocked().board
    board.observe(A, stream_end(600, 50), 100)
    health = board.state().of(A)
    assert (health.first_token_ms, health.tokens_per_s, health.first_token_p95_ms) == (100, 100, None)
    board.observe(A, stream_end(1200, 50), 200)
    health = board.state().of(A)
    assert health.first_token_ms == pytest.approx(120)
    assert health.tokens_per_s == pytest.approx(90)
    board.observe(A, stream_end(300, 2), 150)  # too short to tell a throughput
    assert board.state().of(A).tokens_per_s == pytest.approx(90)


def test_the_p95_follows_the_latest_times_in_bounded_memory() -> None:
    """The nearest rank; none before there are enough. Whole answers have their own."""
    board = Clocked().board
    for number in range(1, MIN_SAMPLES):
        board.observe(A, stream_end(1000, 1), number)
    assert board.late_after_s(A, stream=True) is None
    board.observe(A, stream_end(1000, 1), MIN_SAMPLES)
    assert board.late_after_s(A, stream=True) == 0.019
    for _ in range(500):
        board.observe(A, stream_end(1000, 1), 70)
    assert board.late_after_s(A, stream=True) == 0.07
    assert board.state().of(A).first_token_p95_ms == 70
    assert board.late_after_s(A, stream=False) is None
    for _ in range(MIN_SAMPLES):
        board.observe(A, stream_end(900, 1))
    assert board.late_after_s(A, stream=False) == 0.9
    assert board.late_after_s("b/m", stream=True) is None


def test_broken_tool_calls_are_counted() -> None:
    """As a moving average of their share; answers without tool calls do not count."""
    board = Clocked().board
    for calls in ((1, 1), (0, 0), (2, 1), (4, 0)):
        board.observe(A, stream_end(10, 1), None, None, calls)
    assert board.state().of(A).tool_errors == pytest.approx((0.2 + 0.2 * 0.3) * 0.8)


# --- snapshots --------------------------------------------------------------------------------------------------------


def test_while_nothing_changes_the_snapshot_is_the_same() -> None:
    """Also if time passes, until a rest ends: then it has another name."""
    it = Clocked()
    it.answers()
    first = it.board.state()
    it.now_s += 1000
    assert it.board.state() is first
    it.ends(status=429, code="rate_limit_exceeded", retry_after_s=10)
    second = it.board.state()
    it.now_s += 9
    assert it.board.state() is second
    it.now_s += 1
    third = it.board.state()
    assert (second.of(A).rests_until, third.of(A).rests_until) == (UNIX + 1015, 0)
    assert len({first.id, second.id, third.id}) == 3
    assert first.of(A).rests_until == 0  # snapshots never change


def test_a_snapshot_knows_the_warm_session_that_it_is_made_for() -> None:
    """For as long as it is warm, and under a name of its own."""
    it = Clocked(sticky=Sticky(ttl_s=60))
    it.board.sessions.note("s", A, 900)
    assert it.board.state().warm == {}
    assert it.board.state("other") is it.board.state()
    mine = it.board.state("s")
    assert mine.warm == {"s": (A, 900)}
    assert mine.id != it.board.state().id
    it.now_s += 60
    assert it.board.state("s").warm == {}


def test_memory_is_bounded() -> None:
    """Clients may invent models and sessions."""
    it = Clocked()
    for number in range(20_000):
        it.board.observe(f"a/{number}", stream_end(10, 1), 1.0)
        it.board.sessions.note(str(number), A, 1)
    assert len(it.board.state().deployments) <= 1_024
    assert it.board.state("0").warm == {}
    assert it.board.state("19999").warm == {"19999": (A, 1)}


# --- budgets ----------------------------------------------------------------------------------------------------------


def test_extra_requests_are_a_fifth_and_three() -> None:
    """However many there were before."""
    it = Clocked()
    extra = 0
    for _ in range(1000):
        it.board.budgets.note_request("a", "key")
    for _ in range(1000):
        it.now_s += 0.01
        it.board.budgets.note_request("a", "key")
        extra += it.board.takes_extra(A, "key")
    assert 200 <= extra <= 200 + FLOOR
    assert len(it.refused) == 1000 - extra


def test_a_caller_has_a_budget_of_its_own() -> None:
    """It cannot use up that of the others; nor can an upstream."""
    it = Clocked()
    for upstream in "abcde":
        it.board.takes_extra(f"{upstream}/m", "greedy")
    assert it.refused == ["d/m", "e/m"]
    assert it.board.takes_extra("d/m", "other")
    for caller in ("one", "two", "three"):
        it.board.takes_extra("d/m", caller)
    assert it.refused == ["d/m", "e/m", "d/m"]


def test_after_a_quiet_time_the_reserve_is_full_again() -> None:
    """One caller with few requests is not left without retries."""
    it = Clocked()
    assert [it.board.takes_extra(A, None) for _ in range(4)] == [True, True, True, False]
    it.now_s += REFILL_S
    assert [it.board.takes_extra(A, None) for _ in range(4)] == [True, True, True, False]


def test_nothing_is_repeated_where_the_breaker_is_open() -> None:
    """And that takes nothing from the budget."""
    it = Clocked()
    it.fails()
    assert not it.board.takes_extra(A, None)
    assert it.refused == []


def test_hedges_cost_at_most_their_share() -> None:
    """Reserved by the bound, so that concurrent ones cannot exceed it."""
    spending = HedgeSpending()
    assert not spending.reserve(1, 0.1)
    spending.note_cost(1000)
    assert spending.reserve(60, 0.1)
    assert not spending.reserve(60, 0.1)
    spending.settle(60, 20)
    assert spending.reserve(80, 0.1)
    spending.settle(80, 80)
    assert not spending.reserve(1, 0.1)
    assert HedgeSpending().reserve(0, 0.1)  # what is free costs nothing
