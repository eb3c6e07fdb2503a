"""Translates: a Decision -> the same, as `routing.max_cost_usd` leaves it, for explaining and tracing.

It decides as `FallbackOrder` does before anything was asked.
"""

from __future__ import annotations

from msgspec import structs

from proxy.pipeline.bounds import UNBOUNDED
from proxy.routing.decision import Decision
from proxy.routing.plan import ask_bound
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import CostLimit


def marked(decision: Decision, request: AnyRequest) -> Decision:
    """With a reason at the candidates that could cost more than the request allows. The route stays as it is."""
    return _marked(decision, _refusals(decision, request))


def within_cost(decision: Decision, request: AnyRequest) -> Decision:
    """The same, and the route without these candidates. Raises CostLimit where a call would: nobody is left to ask."""
    refusals = _refusals(decision, request)
    if not refusals:
        return decision
    route = decision.route
    left = tuple(each for each in route.candidates if each.name not in refusals)
    if not left:
        raise refusals[route.candidates[0].name]
    return _marked(structs.replace(decision, route=structs.replace(route, candidates=left)), refusals)


def _refusals(decision: Decision, request: AnyRequest) -> dict[str, CostLimit]:
    if request.hints.max_cost_usd is None:
        return {}
    bounds = UNBOUNDED.narrowed(request, {})
    found = {each.name: bounds.refusal(each.name, ask_bound(request, each), ()) for each in decision.route.candidates}
    return {name: refusal for name, refusal in found.items() if refusal is not None}


def _marked(decision: Decision, refusals: dict[str, CostLimit]) -> Decision:
    if not refusals:
        return decision
    candidates = tuple(
        structs.replace(each, rejected=refusals[each.deployment.name].message)
        if each.rejected is None and each.deployment.name in refusals
        else each
        for each in decision.candidates
    )
    return structs.replace(decision, candidates=candidates)
