"""Translates: a request and a price into an estimated cost. Integers only: pico-USD a token, nano-USD a request.

An estimate, for ranking and explanations. The upper bound of a call's cost is `plan.Plan.bound_nano`.
"""

from __future__ import annotations

from msgspec import Struct

from proxy.metering.prices import Rate
from proxy.routing.deployment import Deployment
from proxy.routing.facts import Facts
from proxy.routing.health import State

# Tokens of a typical answer by task. Only the order of magnitude matters: it weighs input prices against output prices.
_USUAL_OUTPUT = {
    "classification": 20,
    "extraction": 250,
    "summarization": 300,
    "vision": 300,
    "chat": 350,
    "long_context": 500,
    "web_search": 500,
    "code": 900,
    "reasoning": 1500,
}
LONG = 8  # a long answer, as a multiple of a typical one
PICO_PER_NANO = 1_000


class Estimate(Struct, frozen=True):
    """The cost of one request in nano-USD. `expected` ranks; `low` and `high` are the range shown.

    low: a prompt of 3/4 of the estimate, its warm part at the cached rate, an answer of one token, no search.
    high: a prompt of 3/2 of the estimate at the highest rate, the longest answer that the limit allows (eight typical
    ones if there is no limit), and every allowed search.
    """

    low: int
    expected: int
    high: int


def estimate(deployment: Deployment, facts: Facts, state: State) -> tuple[int, int] | None:
    """The range in nano-USD; None: a price is unknown, or the searches of this model have no limit."""
    found = estimated(deployment, facts, warm_tokens(deployment.name, facts, state), expected_output(facts))
    return None if found is None else (found.low, found.high)


def warm_tokens(name: str, facts: Facts, state: State) -> int:
    """The tokens of this prompt that the deployment has in its cache."""
    where, tokens = state.warm.get(facts.session, ("", 0)) if facts.session else ("", 0)
    return min(tokens, facts.input_tokens_estimate) if where == name else 0


def expected_output(facts: Facts) -> int:
    """The tokens of a typical answer to this task, within the request's limit."""
    usual = _USUAL_OUTPUT.get(facts.task, _USUAL_OUTPUT["chat"])
    return usual if facts.output_tokens_limit is None else min(usual, facts.output_tokens_limit)


def estimated(deployment: Deployment, facts: Facts, warm: int, output: int) -> Estimate | None:
    """The estimate for `warm` cached tokens and an answer of `output` tokens; None: no bound is known."""
    rates = deployment.rates
    if rates is None or (facts.needs_web_search and not rates.searches_known):
        return None
    prompt = facts.input_tokens_estimate
    short, longer = lengths(prompt)
    searches = facts.needs_web_search or deployment.searches or rates.max_searches is not None
    high = rates.upper_bound(longer, _longest(deployment, facts, output), may_search=searches)
    if high is None:
        return None
    usual = least = rates.base
    if rates.tiers:
        usual, least = rates.above(prompt), rates.above(short)
    if warm:
        expected, low = _input(usual, prompt, warm), _input(least, short, min(warm, short))
    else:
        expected, low = (usual.input or 0) * prompt, (least.input or 0) * short
    fee = rates.per_request_nano
    expected_nano = (expected + (usual.output or 0) * output) // PICO_PER_NANO + fee
    expected_nano += rates.per_search_nano if searches else 0
    low_nano = (low + (least.output or 0 if output else 0)) // PICO_PER_NANO + fee
    return Estimate(min(low_nano, expected_nano), expected_nano, max(high, expected_nano))


def _input(rate: Rate, prompt: int, warm: int) -> int:
    """Pico-USD of a prompt of which `warm` tokens are read from the cache."""
    each = rate.input or 0
    return each * prompt if not warm or rate.cache_read is None else each * (prompt - warm) + rate.cache_read * warm


def lengths(prompt: int) -> tuple[int, int]:
    """The minimum and maximum tokens of a prompt with this estimate."""
    return prompt * 3 // 4, prompt * 3 // 2


def _longest(deployment: Deployment, facts: Facts, output: int) -> int:
    longest = output * LONG if facts.output_tokens_limit is None else facts.output_tokens_limit
    most = deployment.max_output
    return longest if most is None else min(longest, most)
