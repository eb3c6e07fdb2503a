"""Translates: candidates -> the one that should finish this answer first, as measured here.

Until a deployment is measured, `speed` in pricing.yaml is used, else the speed of an ordinary model. So a slow
deployment loses to an untried one, which is then measured.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy.routing.costs import expected_output
from proxy.routing.decision import Candidate
from proxy.routing.facts import Facts
from proxy.routing.health import State
from proxy.routing.strategies.base import Key, by_key

FIRST_TOKEN_MS = 1000.0  # of an ordinary model
TOKENS_PER_S = 50.0
_LEAST_SUCCESS = 0.01


def rank(candidates: Sequence[Candidate], facts: Facts, state: State) -> list[Candidate]:
    """By the time to complete a typical answer; if equal, the cheaper one."""
    tokens = expected_output(facts)

    def key(candidate: Candidate) -> Key:
        cost = float("inf") if candidate.cost_nano is None else candidate.cost_nano
        return _expected_ms(candidate, tokens, state), cost

    return by_key(candidates, facts.session, key)


def _expected_ms(candidate: Candidate, tokens: int, state: State) -> float:
    """Time to the first token plus generation, divided by the success rate."""
    deployment = candidate.deployment
    health = state.of(deployment.name)
    price = deployment.price
    speed = health.tokens_per_s or (None if price is None else price.speed) or TOKENS_PER_S
    first_token_ms = FIRST_TOKEN_MS if health.first_token_ms is None else health.first_token_ms
    return (first_token_ms + 1000 * tokens / speed) / max(1 - health.error_rate, _LEAST_SUCCESS)
