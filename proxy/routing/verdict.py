"""Translates: the end of an attempt -> a verdict on its deployment."""

from __future__ import annotations

from enum import Enum

from proxy.schema.records import AttemptEnd, Outcome

_ABOUT_THE_REQUEST = ("content_filter", "content_policy_violation", "context_length_exceeded")
_OUR_OWN = ("overloaded", "rate_limit_exceeded", "no_usable_key")  # limits of ours, before anything was sent
_TIMEOUTS = frozenset(
    {Outcome.TIMEOUT_CONNECT, Outcome.TIMEOUT_FIRST_TOKEN, Outcome.TIMEOUT_IDLE, Outcome.TIMEOUT_TOTAL}
)
_FAILING_4XX = (408, 498)  # the vendor's own time-out, and Groq's word for "at capacity"


class Verdict(Enum):
    """The evidence of one attempt about its deployment."""

    GOOD = "it answered"
    BAD = "it failed, so the breaker counts it"
    LIMITED = "it asked for time"
    REFUSED = "it refused the credentials, or they are out of money"
    NOTHING = "the request or the caller ended it"


def verdict_of(end: AttemptEnd) -> Verdict:
    """A faulty request says nothing about the deployment, nor does a caller that disconnects or runs out of time."""
    outcome, status, code = end.outcome, end.status, end.error_code
    if outcome is Outcome.OK:
        return Verdict.GOOD
    if outcome in _TIMEOUTS:
        return Verdict.BAD if code else Verdict.NOTHING  # without a code the call's own deadline ended it
    if outcome is Outcome.UPSTREAM_TRUNCATED:
        return Verdict.BAD
    if outcome is not Outcome.UPSTREAM_ERROR or code in _ABOUT_THE_REQUEST:
        return Verdict.NOTHING
    if status is None:  # no answer
        return Verdict.NOTHING if code in _OUR_OWN else Verdict.BAD
    if status in (401, 402, 403) or code == "insufficient_quota":
        return Verdict.REFUSED
    if status == 429:
        return Verdict.LIMITED
    return Verdict.NOTHING if 400 <= status < 500 and status not in _FAILING_4XX else Verdict.BAD
