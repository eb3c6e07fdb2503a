"""Limits per key: requests and tokens per minute, concurrent calls; and the limit on failed logins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from proxy.pipeline.limits import (
    ALL_FAILURES_PER_MINUTE,
    FAILURES_PER_MINUTE,
    Bucket,
    FailedLogins,
    Limits,
    Place,
    RateLimit,
    RateLimited,
)
from proxy.schema.errors import ProxyError


class Now:
    """A clock that is set by hand, in seconds."""

    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def now():
    return Now()


def refused(limits, *arguments):
    with pytest.raises(RateLimited) as caught:
        limits.enter(*arguments)
    return caught.value


# --- requests ---------------------------------------------------------------------------------------------------------


def test_so_many_requests_and_no_more(now):
    """A minute's worth at once, then evenly."""
    limits, rate = Limits(clock_s=now), RateLimit(requests_per_minute=3)
    for _ in range(3):
        limits.enter("a", rate, 0, 0)
    error = refused(limits, "a", rate, 0, 0)
    assert (error.status, error.code, error.type) == (429, "rate_limit_exceeded", "rate_limit_error")
    assert error.body()["error"]["metadata"] == {
        "limiter": "requests_per_minute",
        "current": 3,
        "limit": 3,
        "reset_s": 20.0,
    }
    assert error.message == "Rate limit reached for the key 'a': requests_per_minute is 3, 3 in use. Try again in 20s."
    assert error.headers["retry-after"] == "20"
    now.s += 19.9
    refused(limits, "a", rate, 0, 0)
    now.s += 0.2
    limits.enter("a", rate, 0, 0)
    refused(limits, "a", rate, 0, 0)


def test_keys_do_not_share_their_limits(now):
    """Callers without a key have limits of their own, too."""
    limits, rate = Limits(clock_s=now), RateLimit(requests_per_minute=1)
    for name in ("a", "b", None):
        limits.enter(name, rate, 0, 0)
        assert refused(limits, name, rate, 0, 0).code == "rate_limit_exceeded"


def test_headers_have_openais_names_and_forms(now):
    """The limit, the rest, and the time until it is fully refilled."""
    limits, rate = Limits(clock_s=now), RateLimit(requests_per_minute=60, tokens_per_minute=6000)
    assert limits.enter("a", rate, 100, 50).headers == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "5850",
        "x-ratelimit-reset-tokens": "1.5s",
    }
    limits.enter("a", rate, 5000, 0)
    error = refused(limits, "a", rate, 1000, 0)
    assert error.headers["x-ratelimit-remaining-tokens"] == "850"
    assert error.headers["x-ratelimit-reset-tokens"] == "51.5s"
    assert error.headers["retry-after"] == "2"


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_tokens_are_corrected_by_what_was_used(now):
    """Unused tokens are returned; an overdraft must refill before the next call is admitted."""
    limits, rate = Limits(clock_s=now), RateLimit(tokens_per_minute=600)
    limits.enter("a", rate, 100, 500).leave(100)
    place = limits.enter("a", rate, 100, 400)
    assert place.headers["x-ratelimit-remaining-tokens"] == "0"
    place.leave(1100)
    assert refused(limits, "a", rate, 10, 0).headers["retry-after"] == "61"
    now.s += 61
    limits.enter("a", rate, 10, 0)


def test_an_answer_longer_than_the_limit_waits_for_all_of_it(now):
    """It cannot be reserved in full; its usage is counted afterwards."""
    limits, rate = Limits(clock_s=now), RateLimit(tokens_per_minute=600)
    limits.enter("a", rate, 10, 100_000).leave(60)
    assert refused(limits, "a", rate, 10, 100_000).headers["retry-after"] == "6"
    now.s += 6
    limits.enter("a", rate, 10, 100_000)


def test_a_prompt_longer_than_the_limit_is_refused_for_good(now):
    """Waiting does not help, so the response does not suggest it."""
    error = refused(Limits(clock_s=now), "a", RateLimit(tokens_per_minute=600), 601, 0)
    assert error.headers == {"x-should-retry": "false"}
    assert "601 tokens" in error.message


# --- at once ----------------------------------------------------------------------------------------------------------


def test_so_many_calls_at_once(now):
    """A place is free when its call has left, once."""
    limits, rate = Limits(clock_s=now), RateLimit(concurrent=2)
    first, _ = limits.enter("a", rate, 0, 0), limits.enter("a", rate, 0, 0)
    error = refused(limits, "a", rate, 0, 0)
    assert error.body()["error"]["metadata"] == {"limiter": "concurrent", "current": 2, "limit": 2, "reset_s": None}
    assert error.headers["retry-after"] == "1"
    first.leave(0)
    first.leave(0)
    limits.enter("a", rate, 0, 0)
    refused(limits, "a", rate, 0, 0)


def test_a_refused_call_takes_nothing(now):
    """Whichever of the three limits refused it."""
    limits = Limits(clock_s=now)
    rate = RateLimit(requests_per_minute=2, tokens_per_minute=100, concurrent=2)
    limits.enter("a", rate, 100, 0)
    for _ in range(5):
        assert refused(limits, "a", rate, 50, 0).body()["error"]["metadata"]["limiter"] == "tokens_per_minute"
    now.s += 30
    limits.enter("a", rate, 50, 0)
    for _ in range(5):
        assert refused(limits, "a", rate, 0, 0).body()["error"]["metadata"]["limiter"] == "concurrent"


LIMITERS = ("requests_per_minute", "tokens_per_minute", "concurrent")


@pytest.mark.parametrize("limiter", LIMITERS)
@pytest.mark.parametrize("whose", ["key", "everyone"])
def test_whoever_refuses_no_other_limit_is_used(now, limiter, whose):
    """All or none over requests, tokens and calls at once, of the key and of all callers."""
    limits, wide = Limits(clock_s=now), RateLimit(1000, 100_000, 100)
    narrow = structs.replace(wide, **{limiter: 10})
    rate, everyone = (narrow, wide) if whose == "key" else (wide, narrow)

    def state():
        everybody = [*limits._used.values(), limits._by_everyone]
        return [(each.requests._level, each.tokens._level, each.running) for each in everybody]

    for _ in range(10):
        limits.enter("a", rate, 1, 0, everyone)
    before = state()
    for _ in range(5):
        assert refused(limits, "a", rate, 1, 0, everyone).body()["error"]["metadata"]["limiter"] == limiter
    assert state() == before
    assert [running for *_, running in before] == [10, 10]


def test_the_tighter_of_two_limits_is_reported(now):
    """By what remains, for requests and for tokens apart."""
    limits, rate = Limits(clock_s=now), RateLimit(requests_per_minute=10, tokens_per_minute=5000)
    headers = limits.enter("a", rate, 100, 0, RateLimit(requests_per_minute=100, tokens_per_minute=1000)).headers
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("10", "9")
    assert (headers["x-ratelimit-limit-tokens"], headers["x-ratelimit-remaining-tokens"]) == ("1000", "900")


def test_a_call_that_is_refused_later_gives_its_request_back(now):
    """By the router or a budget: it asked nobody, so it counts nowhere."""
    limits, rate = Limits(clock_s=now), RateLimit(requests_per_minute=1, tokens_per_minute=100, concurrent=1)
    for _ in range(3):
        limits.enter("a", rate, 50, 50, rate).leave(None)
    limits.enter("a", rate, 50, 50, rate).leave(0)
    assert refused(limits, "a", rate, 0, 0, rate).body()["error"]["metadata"]["limiter"] == "requests_per_minute"


SCOPED = st.lists(
    st.tuples(st.sampled_from("ab"), st.floats(0, 30), st.integers(0, 300), st.integers(0, 900), st.booleans()),
    min_size=1,
    max_size=80,
)


@given(st.integers(1, 30), st.integers(1, 40), st.integers(1, 3000), st.integers(1, 6), SCOPED)
def test_all_callers_together_stay_within_their_limits(of_key, of_all, tokens, at_once, steps):
    """In any stretch of time, whatever each key may do; and what has left leaves nothing behind."""
    now = Now()
    limits, rate = Limits(clock_s=now), RateLimit(requests_per_minute=of_key, concurrent=at_once)
    everyone = RateLimit(requests_per_minute=of_all, tokens_per_minute=tokens, concurrent=at_once)
    start, admitted = now.s, 0
    running: list[Place] = []
    for name, wait_s, prompt, used, leaves in steps:
        now.s += wait_s
        if leaves and running:
            running.pop().leave(used)
        try:
            running.append(limits.enter(name, rate, prompt, 0, everyone))
        except RateLimited:
            continue
        admitted += 1
        assert len(running) <= at_once
        assert admitted <= of_all + (now.s - start) / 60 * of_all + 1e-6
    for place in running:
        place.leave(0)
    assert [each.running for each in (*limits._used.values(), limits._by_everyone)] == [0] * (len(limits._used) + 1)


def test_each_worker_holds_its_share(now):
    """And admits at least one call, however small its share."""
    one_of_four, rate = Limits(4, now), RateLimit(requests_per_minute=8, concurrent=2)
    place = one_of_four.enter("a", rate, 0, 0)
    assert place.headers["x-ratelimit-limit-requests"] == "8"
    assert place.headers["x-ratelimit-remaining-requests"] == "4"
    refused(one_of_four, "a", rate, 0, 0)
    place.leave(0)
    one_of_four.enter("a", rate, 0, 0).leave(0)
    refused(one_of_four, "a", rate, 0, 0)
    now.s += 30
    one_of_four.enter("a", rate, 0, 0)
    slow = RateLimit(requests_per_minute=1)
    one_of_four.enter("b", slow, 0, 0)
    now.s += 239
    refused(one_of_four, "b", slow, 0, 0)
    now.s += 1.1
    one_of_four.enter("b", slow, 0, 0)


def test_a_limit_that_is_changed_counts_from_now_on(now):
    """A reload neither forgives usage nor keeps more than the new limit."""
    limits = Limits(clock_s=now)
    limits.enter("a", RateLimit(requests_per_minute=100), 0, 0)
    for _ in range(2):
        limits.enter("a", RateLimit(requests_per_minute=2), 0, 0)
    refused(limits, "a", RateLimit(requests_per_minute=2), 0, 0)
    assert refused(limits, "a", RateLimit(requests_per_minute=600), 0, 0).headers["retry-after"] == "1"


STEPS = st.lists(
    st.tuples(st.floats(0, 90), st.integers(0, 400), st.integers(0, 400), st.integers(0, 1200)), min_size=1, max_size=60
)


@given(st.integers(1, 600), st.integers(1, 6000), st.integers(1, 8), STEPS)
def test_no_more_than_the_limit_is_admitted_in_any_stretch_of_time(requests, tokens, workers, steps):
    """Requests: a share and what its minutes bring. Tokens: the same, and what the last admitted call overran."""
    now = Now()
    limits, rate = Limits(workers, now), RateLimit(requests_per_minute=requests, tokens_per_minute=tokens)
    start, admitted, used, worst = now.s, 0, 0, 0
    for wait_s, prompt, output, real in steps:
        now.s += wait_s
        try:
            place = limits.enter("a", rate, prompt, output)
        except RateLimited:
            continue
        place.leave(real)
        admitted, used, worst = admitted + 1, used + real, max(worst, real)
        minutes = (now.s - start) / 60
        assert admitted <= max(1, requests / workers) + minutes * requests / workers + 1e-6
        assert used - worst <= max(1, tokens / workers) + minutes * tokens / workers + 1e-6


@given(st.integers(1, 100_000), st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e4, 1e6)), max_size=40))
def test_a_bucket_is_never_fuller_than_a_minute(per_minute, steps):
    """Whatever is given back, and however the clock jumps."""
    bucket, at_s = Bucket(), 0.0
    for wait_s, amount in steps:
        at_s += wait_s
        assert bucket.level(per_minute, at_s) <= max(1, per_minute)
        bucket.take(amount)
        assert bucket.level(per_minute, at_s - 5) <= max(1, per_minute)


# --- wrong keys -------------------------------------------------------------------------------------------------------


def failures_until_429(failures, address, most=10_000):
    for count in range(most):
        try:
            failures.note(address)
        except ProxyError as error:
            assert (error.status, error.code) == (429, "rate_limit_exceeded")
            assert error.headers["x-should-retry"] == "false"
            assert int(error.headers["retry-after"]) >= 1
            return count
    return most


def test_one_address_has_so_many_tries(now):
    """Others still have theirs; the minute gives new ones."""
    failures = FailedLogins(now)
    assert failures_until_429(failures, "192.0.2.1") == FAILURES_PER_MINUTE
    assert failures_until_429(failures, "192.0.2.2", 10) == 10
    now.s += 30
    assert failures_until_429(failures, "192.0.2.1") == FAILURES_PER_MINUTE // 2


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("", "", True),
        ("not an address", "another", False),
    ],
)
def test_an_address_is_its_network(now, one, other, same):
    """The owner of one IPv6 address has 2**64 of them."""
    failures = FailedLogins(now)
    failures_until_429(failures, one)
    assert (failures_until_429(failures, other, 10) == 0) is same


def test_all_addresses_together_have_so_many_tries(now):
    """An attack from many places is one attack, and does not fill the memory."""
    failures = FailedLogins(now)
    total = 0
    for n in range(20_000):
        try:
            failures.note(f"10.{n // 65536}.{n // 256 % 256}.{n % 256}")
            total += 1
        except ProxyError:
            continue
    assert total == ALL_FAILURES_PER_MINUTE
    assert len(failures._by_network) <= 4096
