"""Translates: a route that follows from its name alone into a Decision, to be explained like the router's."""

from __future__ import annotations

from msgspec.structs import replace

from proxy.routing.costs import estimate
from proxy.routing.decision import NOT_ALLOWED, Candidate, Decision
from proxy.routing.deployment import Deployment, Route
from proxy.routing.facts import Facts, Reading, facts_of
from proxy.routing.fallback import able_for
from proxy.routing.health import NO_STATE, State
from proxy.routing.order import by_badness, resting_of
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import BadRequest

NAMED = "named"  # the step: the client named what answers


def named(
    route: Route,
    request: AnyRequest,
    snapshot: str,
    key: str | None = None,
    state: State = NO_STATE,
    barred: tuple[Deployment, ...] = (),
) -> Decision:
    """The route, without the deployments that cannot take the request, and in the order in which a call asks them.

    `barred`: the deployments that the caller's key may not use. Raises BadRequest if none can take the request.
    """
    facts = Facts(requested=route.requested)
    if request.task_type is None:
        facts = facts_of(request, route.requested, key, {}, Reading())
        facts = replace(facts, task_evidence=(), difficulty_evidence=())  # no evidence was collected
    able_for(request, route.candidates)
    found = [_candidate(deployment, request, facts, state) for deployment in route.candidates]
    resting = by_badness((each for each in found if each.rests), state)
    ordered = [*(each for each in found if not each.rests), *resting]
    able = tuple(each.deployment for each in ordered if each.rejected is None)
    route = Route(route.requested, able, route.context_fallback, route.content_fallback, route.ensemble)
    candidates = (*ordered, *(Candidate(deployment, NOT_ALLOWED) for deployment in barred))
    return Decision(route, facts, step=NAMED, candidates=candidates, snapshot=snapshot)


def _candidate(deployment: Deployment, request: AnyRequest, facts: Facts, state: State) -> Candidate:
    try:
        able_for(request, (deployment,))
    except BadRequest as error:
        return Candidate(deployment, rejected=error.message)
    low, high = estimate(deployment, facts, NO_STATE) or (None, None)
    rests, must_wait = resting_of(state.of(deployment.name), state.now)
    return Candidate(deployment, None, low, high, rests=rests, must_wait=must_wait)
