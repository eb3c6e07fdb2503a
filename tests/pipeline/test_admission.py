"""A caller's policy, from its name in the configuration and the list stored with its key."""

from __future__ import annotations

import pytest

from proxy.pipeline.admission import KeyPolicies
from proxy.pipeline.key_settings import KeyConfig, RateLimitsConfig, day_ns
from proxy.pipeline.limits import Limits, RateLimit
from proxy.routing.allowed import Allowed
from proxy.schema.chat import ChatRequest, Message
from proxy.schema.errors import ProxyError
from proxy.schema.records import Caller, StoredCaller

KEYS = {"mobile": KeyConfig(models=["cheap"], max_output_tokens=100, expires="2027-01-01")}
RATES = RateLimitsConfig(RateLimit(60, None, 5), {"mobile": RateLimit(tokens_per_minute=100), "batch": RateLimit(600)})


@pytest.fixture
def policies():
    return KeyPolicies(KEYS, RATES, Limits(clock_s=lambda: 0.0))


def request(**fields):
    limit = fields.get("max_completion_tokens") or fields.get("max_tokens")
    messages = [Message("user", "hello")]
    return ChatRequest(model="m", messages=messages, max_tokens=limit, n=fields.get("n", 1), fields=fields)


def test_a_name_has_what_stands_under_it_and_the_default_for_the_rest(policies):
    """A key inherits the default limits that it does not set itself."""
    mobile = policies.of(Caller("mobile"))
    assert mobile.rate == RateLimit(60, 100, 5)
    assert mobile.allowed == Allowed("mobile", (("cheap",),))
    assert mobile.expires_ns == day_ns("2027-01-01") == 1798761600 * 10**9
    assert policies.of(Caller("batch")).rate == RateLimit(600, None, 5)
    for other in (Caller("other"), Caller("default"), Caller("admin", admin=True)):
        assert policies.of(other).rate == RateLimit(60, None, 5)
        assert (policies.of(other).allowed, policies.of(other).expires_ns) == (None, None)


def test_callers_without_a_key_have_limits_of_their_own():
    """A laptop's agents are not held to what one key may do."""
    rates = RateLimitsConfig(RateLimit(60), keyless=RateLimit(6000), per_key={"a": RateLimit(1)})
    for caller in (Caller(), Caller(None, admin=True)):
        assert KeyPolicies({}, rates, Limits(clock_s=lambda: 0.0)).of(caller).rate == RateLimit(6000)
        assert (
            KeyPolicies({}, RateLimitsConfig(RateLimit(60)), Limits(clock_s=lambda: 0.0)).of(caller).rate == RateLimit()
        )


def test_the_limits_of_all_callers_bind_each_of_them():
    """Whatever their own are, also where they have none."""
    policies = KeyPolicies({}, RateLimitsConfig(everyone=RateLimit(requests_per_minute=2)), Limits(clock_s=lambda: 0.0))
    for name in ("a", None):
        assert policies.enter(policies.of(Caller(name)), request()) is not None
    with pytest.raises(ProxyError, match="all callers together: requests_per_minute is 2"):
        policies.enter(policies.of(Caller("b")), request())


def test_the_list_of_the_key_and_that_of_its_name_both_hold(policies):
    """Neither can allow what the other forbids."""
    assert policies.of(StoredCaller("mobile", models=("fast",))).allowed == Allowed("mobile", (("cheap",), ("fast",)))
    assert policies.of(StoredCaller("other", models=("fast",))).allowed == Allowed("other", (("fast",),))
    assert policies.of(StoredCaller("other")).allowed is None


def both(older: int, newer: int) -> dict[str, int]:
    """A server may ignore the name that it does not know."""
    return {"max_tokens": older, "max_completion_tokens": newer}


@pytest.mark.parametrize(
    ("fields", "expected", "changed"),
    [
        ({}, both(100, 100), ["max_completion_tokens"]),
        ({"max_tokens": 50}, both(50, 50), []),
        ({"max_tokens": 100}, both(100, 100), []),
        ({"max_tokens": 5000}, both(100, 100), ["max_tokens"]),
        ({"max_completion_tokens": 101}, both(100, 100), ["max_completion_tokens"]),
        (
            {"max_tokens": 5000, "max_completion_tokens": 10},
            both(100, 10),
            ["max_tokens"],
        ),
        ({"n": 3}, {"n": 3, **both(100, 100)}, ["max_completion_tokens"]),
    ],
)
def test_a_request_is_capped_and_the_change_is_named(policies, fields, expected, changed):
    """A request for more is served with the cap. The limit applies per choice, as at OpenAI."""
    before = dict(fields)
    capped, adapted = policies.of(Caller("mobile")).cap(request(**fields))
    assert (capped.fields, adapted) == (expected, changed)
    assert capped.max_tokens == min(v for k, v in expected.items() if k != "n")
    assert fields == before


def test_without_a_cap_the_request_stays_as_it_is(policies):
    """The very same object."""
    asked = request(max_tokens=10**6)
    assert policies.of(Caller("other")).cap(asked) == (asked, [])


def test_no_limits_no_place():
    """Without limits there is no bookkeeping."""
    policies = KeyPolicies({}, None, Limits(clock_s=lambda: 0.0))
    assert policies.enter(policies.of(Caller("a")), request()) is None


def test_tokens_are_reserved_for_every_choice():
    """A request without an output limit reserves 256 tokens per choice."""
    policies = KeyPolicies({}, RateLimitsConfig(RateLimit(tokens_per_minute=10_000)), Limits(clock_s=lambda: 0.0))
    place = policies.enter(policies.of(Caller("a")), request(n=2, max_tokens=1000))
    assert place is not None
    assert place.headers["x-ratelimit-remaining-tokens"] == str(10_000 - 2000 - 5)
    place = policies.enter(policies.of(Caller("a")), request())
    assert place is not None
    assert place.headers["x-ratelimit-remaining-tokens"] == str(8000 - 5 - 256 - 5)


def test_limits_outlive_the_configuration_they_were_counted_under():
    """A reload does not reset usage."""
    limits = Limits(clock_s=lambda: 0.0)
    one = KeyPolicies({}, RateLimitsConfig(RateLimit(requests_per_minute=1)), limits)
    one.enter(one.of(Caller("a")), request())
    two = KeyPolicies({}, RateLimitsConfig(RateLimit(requests_per_minute=1)), limits)
    with pytest.raises(ProxyError):
        two.enter(two.of(Caller("a")), request())
