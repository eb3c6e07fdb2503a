"""Translates: a route and a request -> Plan: the deployments in order, and an upper bound of the cost.

Pure, and computed before any request is built: the budget decides by the bound, and the request depends on that.
"""

from __future__ import annotations

from msgspec import Struct

from proxy.metering import tokens
from proxy.routing.deployment import Deployment, Route
from proxy.schema.endpoints import AnyRequest


class Plan(Struct, frozen=True):
    """`bound_nano` is the most that the call may cost if nothing is paid twice, in nano-USD; None: unknown.

    Concurrent attempts add up; among sequential ones only the most expensive counts. A failed attempt that is billed
    anyway is added when the next one is committed.
    """

    route: Route
    bound_nano: int | None


def plan(route: Route, request: AnyRequest) -> Plan:
    """The plan of a call that any deployment of the route may answer."""
    every = (*route.candidates, *route.context_fallback, *route.content_fallback)
    input_bound = tokens.input_bound(request)
    bounds = [_bound(request, deployment, input_bound * _seats(request, deployment)) for deployment in every]
    known = [bound for bound in bounds if bound is not None]
    return Plan(route, max(known) if len(known) == len(bounds) else None)


def attempt_bound(request: AnyRequest, deployment: Deployment) -> int | None:
    """An upper bound of one attempt's cost in nano-USD; None if its price or its output limit is unknown."""
    return _bound(request, deployment, tokens.input_bound(request))


def ask_bound(request: AnyRequest, deployment: Deployment) -> int | None:
    """The same for one ask: all the concurrent requests that its choices need."""
    return _bound(request, deployment, tokens.input_bound(request) * _seats(request, deployment))


def _bound(request: AnyRequest, deployment: Deployment, input_bound: int) -> int | None:
    price, rates = deployment.price, deployment.rates
    if price is None or rates is None:
        return None
    limit = request.output_limit(price.max_output or price.context)
    if limit is None and price.output:
        return None
    return rates.upper_bound(input_bound, limit or 0)


def _seats(request: AnyRequest, deployment: Deployment) -> int:
    """The number of concurrent requests needed for all choices."""
    if request.n == 1:
        return 1
    most = deployment.provider.max_choices(deployment.model)
    return 1 if most is None else -(-request.n // most)
