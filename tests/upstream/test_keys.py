"""Which key the next request uses, by a clock that the test moves."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from proxy.providers.base.contract import ProviderLimits
from proxy.schema.errors import KeysUnavailable, UpstreamError
from proxy.schema.records import Endpoint, Secret
from proxy.upstream.keys import (
    LIMITED_REST_S,
    MAX_REST_S,
    REFUSED_REST_S,
    Key,
    Keys,
    KeyState,
    KeyStates,
    Lease,
    share,
)


class Setting:
    """The keys of one provider, and a clock."""

    def __init__(self, variables: str = "AB", **limits: int) -> None:
        self.now = 1000.25
        self.warned: list[dict[str, Any]] = []
        self.states = KeyStates()
        self.limits = ProviderLimits(**limits)
        self.keys = self.new(variables)

    def new(self, variables: str) -> Keys:
        """The keys of another configuration."""
        ends = {name: Endpoint("https://api.example/v1", Secret(f"secret-of-{name}")) for name in variables}
        keys = [Key(name, each, self.states.of("p", each)) for name, each in ends.items()]
        return Keys("p", keys, self.limits, lambda event, **fields: self.warned.append(fields), lambda: self.now)

    def take(self, prompt: int = 0, output: int = 0) -> str:
        return name_of(self.keys.take(prompt, output))

    def fail(self, variable: str, status: int, code: str | None = None, after: float | None = None) -> UpstreamError:
        """The vendor refuses a request that has this key."""
        error = UpstreamError("no", status=status, code=code or "x", upstream_status=status)
        error.retry_after_s = after
        error.headers = {} if after is None else {"retry-after": str(after)}
        key = next(key for key in self.keys.keys if key.variable == variable)
        self.keys.note_failure(Lease(key, None, 0, 0), error, status)
        return error


def name_of(lease: Lease) -> str:
    return lease.key.variable or "-"


# --- least used first -------------------------------------------------------------------------------------------------


def test_the_least_used_key_is_next() -> None:
    """Each in its turn, in the order of the file; a key that rested does not get everything afterwards."""
    setting = Setting("ABC")
    assert "".join(setting.take() for _ in range(7)) == "ABCABCA"
    setting.now += 70
    setting.fail("A", 429, after=30)
    assert "".join(setting.take() for _ in range(4)) == "BCBC"
    setting.now += 90
    assert "".join(sorted(setting.take() for _ in range(6))) == "AABBCC"


def test_tokens_decide_where_their_limit_is_nearer() -> None:
    """Two large requests weigh more than three small ones."""
    setting = Setting("AB", requests_per_minute=100, tokens_per_minute=1000)
    assert setting.take(500) == "A"
    assert [setting.take(10) for _ in range(3)] == ["B", "B", "B"]


# --- limits -----------------------------------------------------------------------------------------------------------


def test_a_key_that_has_used_its_minute_is_skipped() -> None:
    """The error says when each may be used again; it is no failure of the vendor."""
    setting = Setting("AB", requests_per_minute=2)
    assert [setting.take() for _ in range(4)] == ["A", "B", "A", "B"]
    setting.now += 20
    with pytest.raises(KeysUnavailable) as caught:
        setting.take()
    error = caught.value
    assert (error.status, error.code, error.type) == (429, "rate_limit_exceeded", "rate_limit_error")
    assert error.message == (
        "p has no key that may be used now: A has used its 2 requests per minute (again in 41 s);"
        " B has used its 2 requests per minute (again in 41 s)."
    )
    assert error.headers == {"retry-after": "41"}
    assert error.retry_after_s == pytest.approx(40.75)
    assert (error.nothing_sent, error.resendable, error.retryable) == (True, False, True)
    setting.now += 40.75
    assert setting.take() == "A"


def test_within_any_minute_no_key_sends_more_than_its_limit() -> None:
    """At random times; and what is allowed is nearly reached."""
    dice = random.Random(7)
    setting = Setting("AB", requests_per_minute=20)
    sent: dict[str, list[float]] = {"A": [], "B": []}
    for _ in range(5000):
        setting.now += dice.expovariate(2)
        try:
            sent[setting.take()].append(setting.now)
        except KeysUnavailable as error:
            assert error.retry_after_s is not None
            assert 0 < error.retry_after_s <= 61
    for times in sent.values():
        most = max(sum(start <= at < start + 60 for at in times[i : i + 40]) for i, start in enumerate(times))
        assert most == 20
        assert len(times) > 0.9 * 20 * (times[-1] - times[0]) / 60


def test_tokens_are_reserved_and_corrected() -> None:
    """What an answer did not use is free at once; what it used beyond that counts."""
    setting = Setting("A", tokens_per_minute=1000)
    lease = setting.keys.take(100, 800)
    with pytest.raises(KeysUnavailable, match="too few left of its 1000 tokens per minute"):
        setting.take(100, 100)
    lease.settle(200)
    assert setting.take(100, 600) == "A"
    lease.settle(350)  # the usage came late
    with pytest.raises(KeysUnavailable):
        setting.take(1)


def test_a_request_that_never_left_gives_everything_back() -> None:
    """The request and its tokens, once."""
    setting = Setting("A", requests_per_minute=1, tokens_per_minute=100)
    lease = setting.keys.take(50, 50)
    lease.give_back()
    lease.give_back()
    lease.settle(70)
    state = lease.key.state
    assert (state.requests, state.tokens) == (0, 0)
    assert setting.take(100) == "A"


def test_a_late_correction_changes_nothing() -> None:
    """Its minute is over: the counts never go below zero."""
    setting = Setting("A", tokens_per_minute=100)
    first, second = setting.keys.take(50), setting.keys.take(50)
    setting.now += 62
    assert setting.take(100) == "A"
    first.give_back()
    second.settle(5000)
    state = first.key.state
    assert (state.requests, state.tokens) == (1, 100)


def test_a_request_larger_than_a_minute_needs_an_unused_one() -> None:
    """The estimate may be too high; the vendor decides."""
    setting = Setting("AB", tokens_per_minute=100)
    assert setting.take(90) == "A"
    assert setting.take(5000) == "B"
    with pytest.raises(KeysUnavailable) as caught:
        setting.take(5000)
    assert caught.value.retry_after_s == pytest.approx(60.75)


def test_a_minute_is_the_sum_of_its_seconds() -> None:
    """Whatever is reserved, corrected and given back, early or late: as in a plain list of all requests."""
    dice = random.Random(11)
    setting = Setting("A", tokens_per_minute=10**9)
    state = setting.keys.keys[0].state
    plain: list[list[int]] = []  # the second, requests, tokens
    leases: list[tuple[Lease, list[int]]] = []
    for _ in range(5000):
        setting.now += dice.choice((0, 0, 0.3, 2, 9))
        prompt, output = dice.randrange(100), dice.randrange(100)
        row = [math.floor(setting.now), 1, prompt + output]
        plain.append(row)
        leases.append((setting.keys.take(prompt, output), row))
        lease, row = leases.pop(dice.randrange(len(leases)))
        if dice.random() < 0.3:
            lease.give_back()
            row[1:] = [0, 0]
        else:
            used = dice.randrange(300)
            lease.settle(used)
            row[2] = used
        plain = [row for row in plain if row[0] + 61 > setting.now]
        assert (state.requests, state.tokens) == (sum(row[1] for row in plain), sum(row[2] for row in plain))


def test_a_state_stays_small() -> None:
    """However many requests a minute has."""
    state = KeyState()
    for tick in range(20_000):
        state.advance(tick / 100)
        state.add(tick / 100, 1, 1)
    assert state.requests == state.tokens
    assert state.requests <= 6100
    assert len(state._seconds) <= 62


def test_a_provider_without_a_key_has_limits_too() -> None:
    """The message speaks of the server instead of its key."""
    keys = Keys("own", [Key(None, None, KeyState())], ProviderLimits(1), print, lambda: 5.0)
    keys.take()
    with pytest.raises(KeysUnavailable) as caught:
        keys.take()
    assert caught.value.message == ("own may not be called now: it has used its 1 requests per minute (again in 61 s).")


def test_each_worker_has_its_share() -> None:
    """Rounded down, so that together they keep within the limit; at least one."""
    assert share(ProviderLimits(40, 1001), 4) == ProviderLimits(10, 250)
    assert share(ProviderLimits(2), 4) == ProviderLimits(1)
    assert share(ProviderLimits(), 4) == ProviderLimits()


# --- rests ------------------------------------------------------------------------------------------------------------

RESTS = [
    (429, None, 7.5, 7.5),
    (429, None, None, LIMITED_REST_S),
    (429, None, 86_400.0, MAX_REST_S),
    (429, "insufficient_quota", None, REFUSED_REST_S),
    (401, "invalid_api_key", None, REFUSED_REST_S),
    (402, None, None, REFUSED_REST_S),
    (403, None, None, REFUSED_REST_S),
]


@pytest.mark.parametrize(("status", "code", "after", "rest_s"), RESTS)
def test_a_refused_key_rests_alone(status: int, code: str | None, after: float | None, rest_s: float) -> None:
    """The other one serves, at once: the vendor's time is the key's alone. The log names the variable."""
    setting = Setting("AB")
    error = setting.fail("A", status, code, after)
    assert (error.other_key, error.retry_after_s, error.headers, error.resendable) == (True, None, {}, True)
    assert setting.warned == [{"provider": "p", "key": "A", "code": code or "x", "rest_s": rest_s}]
    assert setting.keys.resting() == {"A": code or "x"}
    assert {setting.take() for _ in range(5)} == {"B"}
    setting.now += rest_s - 0.01
    assert setting.take() == "B"
    setting.now += 0.01
    assert setting.take() == "A"
    assert setting.keys.resting() == {}


@pytest.mark.parametrize(
    ("status", "code"),
    [
        *((status, None) for status in (400, 404, 408, 413, 500, 503, 504)),
        *((403, code) for code in ("content_filter", "model_not_found")),
    ],
)
def test_other_failures_leave_the_key_alone(status: int, code: str | None) -> None:
    """They say nothing about it."""
    setting = Setting("AB")
    error = setting.fail("A", status, code)
    assert (error.other_key, setting.warned) == (False, [])
    assert setting.take() == "A"


def test_an_error_inside_an_answer_is_not_sent_again() -> None:
    """The key rests, but the vendor may have billed the request."""
    setting = Setting("AB")
    error = UpstreamError("no", status=429, code="rate_limit_exceeded", upstream_status=429)
    setting.keys.note_failure(setting.keys.take(), error, 200)
    assert not error.other_key
    assert list(setting.keys.resting()) == ["A"]


def test_the_last_key_keeps_the_vendors_answer() -> None:
    """Nothing else is free, so the caller learns what the vendor said and when to come back."""
    setting = Setting("AB")
    setting.fail("A", 429, after=30)
    error = setting.fail("B", 429, after=12)
    assert (error.other_key, error.retry_after_s, error.headers) == (False, 12, {"retry-after": "12"})
    with pytest.raises(KeysUnavailable) as caught:
        setting.take()
    assert (caught.value.status, caught.value.retry_after_s) == (429, 12)


def test_a_key_without_room_is_no_other_key() -> None:
    """It could not be used at once."""
    setting = Setting("AB", requests_per_minute=1)
    assert (setting.take(), setting.take()) == ("A", "B")
    assert not setting.fail("A", 429, after=3).other_key


def test_keys_that_were_all_refused_are_no_rate_limit() -> None:
    """503: waiting would not help. No message holds a key."""
    setting = Setting("AB")
    setting.fail("A", 401, "invalid_api_key")
    setting.fail("B", 429, "insufficient_quota")
    with pytest.raises(KeysUnavailable) as caught:
        setting.take()
    error = caught.value
    assert (error.status, error.code, error.retry_after_s) == (503, "no_usable_key", REFUSED_REST_S)
    assert error.message == (
        "p has no key that may be used now: A rests after invalid_api_key (again in 600 s);"
        " B rests after insufficient_quota (again in 600 s)."
    )
    assert "secret" not in str(error.body())


def test_an_only_key_does_not_rest() -> None:
    """The vendor's own answer says more."""
    setting = Setting("A")
    assert not setting.fail("A", 401).other_key
    assert not setting.fail("A", 429, after=30).other_key
    assert (setting.take(), setting.warned) == ("A", [])


def test_a_shorter_rest_does_not_end_a_longer_one() -> None:
    """Requests that were in flight together end one after the other; one line in the log is enough."""
    setting = Setting("AB")
    setting.fail("A", 401)
    setting.fail("A", 429, after=1)
    setting.fail("A", 401)
    setting.now += 2
    assert setting.take() == "B"
    assert len(setting.warned) == 1


def test_a_list_of_models_says_little_about_a_key() -> None:
    """It counts for no limit. Some keys may call models, but not list them: 403."""
    setting = Setting("AB", requests_per_minute=1)
    assert [name_of(setting.keys.borrow()) for _ in range(3)] == ["A", "B", "A"]
    assert (setting.take(), setting.take()) == ("A", "B")
    lease = setting.keys.borrow()
    for status in (403, 429):
        setting.keys.note_failure(lease, UpstreamError("no", status=status), status, is_call=False)
    assert setting.keys.resting() == {}
    setting.keys.note_failure(lease, UpstreamError("no", status=401), 401, is_call=False)
    assert list(setting.keys.resting()) == [name_of(lease)]
    assert name_of(setting.keys.borrow()) != name_of(lease)


# --- reload -----------------------------------------------------------------------------------------------------------


def test_a_reload_keeps_the_minute_and_the_rest_of_a_limited_key() -> None:
    """A refused key gets another try: somebody may have mended it."""
    setting = Setting("ABC", requests_per_minute=1)
    running = setting.keys.take()
    setting.fail("B", 401)
    setting.fail("C", 429, after=30)
    setting.keys = setting.new("DCBA")
    setting.states.forgive()
    assert (setting.take(), setting.take()) == ("D", "B")
    with pytest.raises(KeysUnavailable, match="A has used its 1 requests per minute"):
        setting.take()
    running.give_back()  # on the earlier configuration
    assert setting.take() == "A"


def test_a_key_at_another_address_is_another_key() -> None:
    """The limits of one server are not those of the next."""
    states = KeyStates()
    one, two = Endpoint("https://one.example", Secret("s")), Endpoint("https://two.example", Secret("s"))
    assert states.of("p", one) is states.of("p", Endpoint("https://one.example", Secret("s")))
    assert states.of("p", one) is not states.of("p", two)
    assert states.of("q", one) is not states.of("p", one)
