"""Translates: a route that follows from its name alone into a Decision, to be explained like one of the router's."""

from __future__ import annotations

from proxy.routing.decision import Candidate, Decision
from proxy.routing.facts import Facts, Reading, facts_of
from proxy.routing.fallback import FallbackOrder
from proxy.routing.names import Deployment, Route
from proxy.schema.chat import ChatRequest
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import BadRequest
from proxy.schema.records import Tokens

NAMED = "named"  # the step: the client named what answers


def named(route: Route, request: AnyRequest, snapshot: str, key: str | None = None) -> Decision:
    """The route, without the deployments that cannot take the request. Raises BadRequest if none of them can."""
    name = route.requested
    facts = facts_of(request, name, key, {}, Reading()) if isinstance(request, ChatRequest) else Facts(requested=name)
    FallbackOrder(route, request)
    candidates = tuple(_candidate(deployment, route.requested, request, facts) for deployment in route.candidates)
    able = tuple(candidate.deployment for candidate in candidates if candidate.rejected is None)
    route = Route(route.requested, able, route.context_fallback, route.content_fallback)
    return Decision(route, facts, step=NAMED, candidates=candidates, snapshot=snapshot)


def _candidate(deployment: Deployment, requested: str, request: AnyRequest, facts: Facts) -> Candidate:
    try:
        FallbackOrder(Route(requested, (deployment,)), request)
    except BadRequest as error:
        return Candidate(deployment, rejected=error.message)
    low, high = _cost_range(deployment, facts) or (None, None)
    return Candidate(deployment, cost_low_nano=low, cost_high_nano=high)


def _cost_range(deployment: Deployment, facts: Facts) -> tuple[int, int] | None:
    """From an answer of one token to the longest that is allowed, in nano-USD; None: a price is unknown."""
    price, rates = deployment.price, deployment.rates
    if price is None or rates is None:
        return None
    most = facts.output_tokens_limit or price.max_output or 0
    prompt = facts.input_tokens_estimate
    low, high = rates.cost(Tokens(input=prompt, output=1)), rates.cost(Tokens(input=prompt, output=most))
    return None if low is None or high is None else (low.total, max(low.total, high.total))
