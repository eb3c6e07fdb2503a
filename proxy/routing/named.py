"""Translates: a route that follows from its name alone into a Decision, to be explained like one of the router's."""

from __future__ import annotations

from msgspec.structs import replace

from proxy.routing.costs import estimate
from proxy.routing.decision import NOT_ALLOWED, Candidate, Decision
from proxy.routing.deployment import Deployment, Route
from proxy.routing.facts import Facts, Reading, facts_of
from proxy.routing.fallback import able_for
from proxy.routing.health import NO_STATE
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import BadRequest

NAMED = "named"  # the step: the client named what answers


def named(
    route: Route, request: AnyRequest, snapshot: str, key: str | None = None, barred: tuple[Deployment, ...] = ()
) -> Decision:
    """The route, without the deployments that cannot take the request. Raises BadRequest if none of them can.

    `barred`: the deployments that the caller's key may not use.
    """
    name = route.requested
    facts = Facts(requested=name)
    if request.task_type is None:
        facts = facts_of(request, name, key, {}, Reading())
        facts = replace(facts, task_evidence=(), difficulty_evidence=())  # nobody looked for them
    able_for(request, route.candidates)
    candidates = tuple(_candidate(deployment, request, facts) for deployment in route.candidates)
    candidates += tuple(Candidate(deployment, NOT_ALLOWED) for deployment in barred)
    able = tuple(candidate.deployment for candidate in candidates if candidate.rejected is None)
    route = Route(route.requested, able, route.context_fallback, route.content_fallback)
    return Decision(route, facts, step=NAMED, candidates=candidates, snapshot=snapshot)


def _candidate(deployment: Deployment, request: AnyRequest, facts: Facts) -> Candidate:
    try:
        able_for(request, (deployment,))
    except BadRequest as error:
        return Candidate(deployment, rejected=error.message)
    low, high = estimate(deployment, facts, NO_STATE) or (None, None)
    return Candidate(deployment, cost_low_nano=low, cost_high_nano=high)
