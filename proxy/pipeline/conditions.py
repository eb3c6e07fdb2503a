"""Translates: applies the client's conditions `max_cost_usd` and `strict` to a Decision.

It decides as `FallbackOrder` and `AttemptLoop` do before the first attempt, for explanations and traces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import structs

from proxy.pipeline.bounds import UNBOUNDED
from proxy.providers.base.building import build
from proxy.routing.decision import Decision
from proxy.routing.deployment import Deployment
from proxy.routing.plan import ask_bound
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import BadRequest, ProxyError


def changed(name: str, lost: Sequence[str]) -> BadRequest:
    """The error of a `strict` request for parameters that this deployment drops or adapts."""
    message = f"{name} cannot take {', '.join(lost)} unchanged (routing.strict)."
    return BadRequest(message, param=lost[0], code="unsupported_parameter")


def marked(decision: Decision, request: AnyRequest) -> Decision:
    """The decision of a call, with a reason for each candidate that could cost too much. The route stays as it is."""
    return _marked(decision, _costly(decision, request))


def within(decision: Decision, request: AnyRequest) -> Decision:
    """The decision to explain: with the reasons of both conditions. Candidates that have one are not in the route.

    Raises CostLimit or BadRequest where a call would.
    """
    route, costly, lossy = decision.route, _costly(decision, request), _lossy(decision, request)
    refusals = costly | lossy
    if not refusals:
        return decision
    first = route.candidates[0].name
    left = tuple(each for each in route.candidates if each.name not in refusals)
    if not left or (first in lossy and first not in costly):  # the client must resolve this loss
        raise refusals[first]
    return _marked(structs.replace(decision, route=structs.replace(route, candidates=left)), refusals)


def _costly(decision: Decision, request: AnyRequest) -> dict[str, ProxyError]:
    if request.hints.max_cost_usd is None:
        return {}
    bounds = UNBOUNDED.narrowed(request, {})
    found = {each.name: bounds.refusal(each.name, ask_bound(request, each), ()) for each in decision.route.candidates}
    return {name: refusal for name, refusal in found.items() if refusal is not None}


def _lossy(decision: Decision, request: AnyRequest) -> dict[str, ProxyError]:
    if not request.hints.strict:
        return {}
    found = {each.name: _loss(each, request) for each in decision.route.candidates}
    return {name: refusal for name, refusal in found.items() if refusal is not None}


def _loss(deployment: Deployment, request: AnyRequest) -> BadRequest | None:
    try:
        built = build(deployment.provider, request, deployment.model)
    except BadRequest as error:
        return error
    except RecursionError:  # nested too deeply: a call reports that
        return None
    lost = [*built.dropped, *built.adapted]
    if built.unchecked_json and request.stream:
        lost.append("response_format")
    return changed(deployment.name, list(dict.fromkeys(lost))) if lost else None


def _marked(decision: Decision, refusals: Mapping[str, ProxyError]) -> Decision:
    if not refusals:
        return decision
    candidates = tuple(
        structs.replace(each, rejected=refusals[each.deployment.name].message)
        if each.rejected is None and each.deployment.name in refusals
        else each
        for each in decision.candidates
    )
    return structs.replace(decision, candidates=candidates)
