"""Translates: deployments, facts and health -> the order in which the deployments are asked.

Capability filter, health, strategy, sticky conversation, exploration. Pure: equal inputs give the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil

from msgspec import Struct

from proxy.routing.capabilities import lacks, needed
from proxy.routing.costs import LONG, PICO_PER_NANO, estimated, expected_output, lengths, warm_tokens
from proxy.routing.decision import Candidate
from proxy.routing.deployment import Deployment
from proxy.routing.facts import Facts
from proxy.routing.health import DeploymentHealth, State, least_bad
from proxy.routing.settings import RouterConfig
from proxy.routing.sticky import keep_warm, warm_at
from proxy.routing.strategies import STRATEGIES

_EXPLORED_COST = 2  # an explored deployment may cost at most this many times as much as the best one
_SPREAD = 8191  # keeps the draw of exploration independent of the draw of `weighted` names


class Pool(Struct, frozen=True):
    """The offer of the deciding step: deployments to rank, and how.

    `fallback` follows them in its own order: it is neither ranked nor a reason for a conversation to stay.
    """

    deployments: tuple[Deployment, ...]
    strategy: str = "task_based"
    prefer: str | None = None
    fallback: tuple[Deployment, ...] = ()


def arrange(
    pool: Pool, facts: Facts, state: State, seed: float, settings: RouterConfig
) -> tuple[list[Candidate], list[Candidate]]:
    """The candidates in order, and those that cannot take the request.

    Resting deployments come after all others, sorted by `least_bad`. So poor health alone never empties the route.
    `seed` in [0, 1).
    """
    assessment = _Assessment(facts, state)
    first = assessment.well(pool.deployments)
    fallback = assessment.well(pool.fallback)
    resting, rejected = assessment.resting, assessment.rejected
    if len(resting) > 1:
        resting = by_badness(resting, state)
    ranked = _ranked(first, pool, facts, state)
    if facts.preferred_model is None:
        if warm_at(ranked, facts, state) is not None:
            ranked = keep_warm(ranked, facts, state, settings.sticky)
        elif settings.exploration:
            ranked = explored(ranked, seed, settings.exploration)
    return [*ranked, *fallback, *resting], rejected


def explored(ranked: list[Candidate], seed: float, share: float) -> list[Candidate]:
    """With probability `share` another candidate first, so that it is measured. Costs are bounded: at most twice the
    expected cost of the best one, and no unknown price.
    """
    drawn = seed * _SPREAD % 1
    if drawn >= share or not ranked or ranked[0].cost_nano is None:
        return ranked
    most = ranked[0].cost_nano * _EXPLORED_COST
    others = [
        place for place, each in enumerate(ranked) if place and each.cost_nano is not None and each.cost_nano <= most
    ]
    if not others:
        return ranked
    place = others[min(int(drawn / share * len(others)), len(others) - 1)]
    return [ranked[place], *ranked[:place], *ranked[place + 1 :]]


class _Assessment:
    """Assesses each deployment for one request, once."""

    def __init__(self, facts: Facts, state: State) -> None:
        self._facts = facts
        self._state = state
        self._seen: set[str] = set()
        self.resting: list[Candidate] = []
        self.rejected: list[Candidate] = []
        self._needed = needed(facts)
        self._output = expected_output(facts)
        self._is_warm = facts.session in state.warm

    def well(self, deployments: Iterable[Deployment]) -> list[Candidate]:
        """Deployments that can take the request and do not rest."""
        facts, state, seen, capabilities, output = self._facts, self._state, self._seen, self._needed, self._output
        prompt, limit = facts.input_tokens_estimate, facts.output_tokens_limit
        (short, longer), least = lengths(prompt), 1 if output else 0
        size, longest = prompt + (limit or 0), output * LONG if limit is None else limit
        is_special, health_of = self._is_warm or facts.needs_web_search, state.deployments.get
        found = []
        for deployment in deployments:
            if (name := deployment.name) in seen:
                continue
            seen.add(name)
            rejected, rests, must_wait = None, "", False
            if capabilities or ((context := deployment.context) is not None and size > context):
                rejected = lacks(capabilities, facts, deployment)
            if (health := health_of(name)) is not None:
                rests, must_wait = resting_of(health, state.now)
            if is_special or (flat := deployment.flat) is None or longer > flat[0]:
                candidate = self._special(deployment, rejected, rests, must_wait)
            else:
                _, each_input, each_output, most_input, most_output, fee = flat
                expected = (each_input * prompt + each_output * output) // PICO_PER_NANO + fee
                low = (each_input * short + each_output * least) // PICO_PER_NANO + fee
                written = longest if (most := deployment.max_output) is None or longest < most else most
                high = most_input * longer + most_output * written + fee
                if high < expected:
                    high = expected
                candidate = Candidate(deployment, rejected, low, high, 0, expected, rests, must_wait)
            if rejected is None and not rests:
                found.append(candidate)
            else:
                (self.resting if rejected is None else self.rejected).append(candidate)
        return found

    def _special(self, deployment: Deployment, rejected: str | None, rests: str, must_wait: bool) -> Candidate:
        facts, state = self._facts, self._state
        warm = warm_tokens(deployment.name, facts, state) if self._is_warm else 0
        cost = estimated(deployment, facts, warm, self._output)
        if cost is None:
            return Candidate(deployment, rejected, None, None, warm, None, rests, must_wait)
        return Candidate(deployment, rejected, cost.low, cost.high, warm, cost.expected, rests, must_wait)


def by_badness(resting: Iterable[Candidate], state: State) -> list[Candidate]:
    """Resting candidates, the best one to ask first if no other is well."""

    def badness(candidate: Candidate) -> tuple[bool, float]:
        health = state.of(candidate.deployment.name)
        return least_bad(health.named_until if candidate.must_wait else None, health.failed_at)

    return sorted(resting, key=badness)


def resting_of(health: DeploymentHealth, now: float) -> tuple[str, bool]:
    """Why the deployment rests ("": it does not), and whether its vendor named the time. A breaker whose time is up
    may be tried again.
    """
    is_open = health.breaker == "open"
    if health.rests_until <= now and not (is_open and not health.rests_until):
        return "", False
    what = "its breaker is open" if is_open else "it rests"
    until = f" for {ceil(health.rests_until - now)} s" if health.rests_until else ""
    return f"{what}{until}: {health.why}" if health.why else f"{what}{until}", health.named_until > now


def _ranked(candidates: Sequence[Candidate], pool: Pool, facts: Facts, state: State) -> list[Candidate]:
    ranked = STRATEGIES[pool.strategy](candidates, facts, state)
    if pool.prefer == "reliable_tools" and facts.has_tools:
        # Stable: within one percent the strategy decides.
        ranked.sort(key=lambda candidate: round(state.of(candidate.deployment.name).tool_errors, 2))
    return ranked
