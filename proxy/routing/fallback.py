"""Translates: failures and the standing of the deployments into the next deployment to ask.

Pure over its arguments: `AttemptLoop` asks and waits, `HealthBoard` knows which deployments are well.
"""

from __future__ import annotations

import math
from typing import Protocol

from proxy.routing.capabilities import unsupported
from proxy.routing.content import content_needs
from proxy.routing.deployment import Deployment, Route
from proxy.routing.plan import ask_bound
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import AllDown, Availability, BadRequest, CostLimit, UpstreamError
from proxy.schema.records import Outcome

_CLIENT_FAULTS = (400, 413, 422)  # another model would refuse it too
_FILTERED = ("content_filter", "content_policy_violation")


def able_for(request: AnyRequest, deployments: tuple[Deployment, ...]) -> list[Deployment]:
    """The deployments that support the content of the request. Raises BadRequest if none of them does."""
    needs = content_needs(request)
    if not needs:
        return list(deployments)
    able = [each for each in deployments if unsupported(needs, each) is None]
    if not able and deployments and (refusal := unsupported(needs, deployments[0])) is not None:
        raise refusal
    return able


class Health(Protocol):
    """A fallback order's view of the `HealthBoard`."""

    def may_try(self, name: str) -> bool: ...

    def rest_of(self, name: str) -> tuple[float, str, bool]: ...

    def badness(self, name: str) -> tuple[bool, float]: ...


class Bounds(Protocol):
    """The client's limits for all attempts of the call together. `limits_cost` False: `refusal` is always None."""

    @property
    def limits_cost(self) -> bool: ...

    @property
    def is_late(self) -> bool: ...

    def refusal(self, name: str, bound_nano: int | None) -> CostLimit | None: ...


class FallbackOrder:
    """The fallback order of one ask. Raises BadRequest if no candidate supports its content.

    A candidate that rests or whose breaker is open is skipped. If no candidate is well and none was asked yet, the
    one that failed longest ago is asked anyway, unless its vendor named a time to wait.
    """

    def __init__(self, route: Route, request: AnyRequest, health: Health, bounds: Bounds, tries: int) -> None:
        self.tries_left = tries
        self._tries = tries
        self._route = route
        self._request = request
        self._health = health
        self._bounds = bounds
        self._queue = able_for(request, route.candidates)
        self._failures: dict[str, UpstreamError | CostLimit] = {}
        self._last: UpstreamError | None = None

    def next(self) -> Deployment:
        """The deployment to ask now. Raises AllDown, the last failure of a lone candidate, or CostLimit."""
        if self._last is None:
            queue = self._queue
            if queue and not self._bounds.limits_cost and self._health.may_try(queue[0].name):  # almost always
                return queue[0]
            found = self.peek() or self._least_bad()
        else:
            found = None if self.tries_left <= 0 or self._bounds.is_late else self.peek()
        if found is None:
            raise self._total()
        return found

    @property
    def tries_here(self) -> int:
        """How many attempts the next candidate may make: one is kept for each later candidate, if there are enough."""
        return max(1, self.tries_left - (len(self._queue) - 1))

    def peek(self, besides: str | None = None) -> Deployment | None:
        """The first candidate that is well and within the cost limit."""
        for deployment in self._queue:
            name = deployment.name
            if name != besides and self._health.may_try(name) and self._is_affordable(deployment):
                return deployment
        return None

    def note_failure(self, deployment: Deployment, error: UpstreamError | BadRequest | CostLimit, tried: int) -> None:
        """A deployment failed after `tried` attempts. Raises the error if no other may take over.

        A BadRequest from the first candidate is the caller's mistake; from a later one it only means that this
        candidate cannot take over. If one is too expensive, a later one may not be.
        """
        name = deployment.name
        if isinstance(error, UpstreamError):
            self._last = self._failures[name] = error
            self.tries_left -= max(tried, 1)  # zero if its asks were answered, but with invalid JSON
            self._queue = self._instead(error)
            if not self._queue and error.status in _CLIENT_FAULTS:
                raise error
        elif isinstance(error, BadRequest) and self._last is None and deployment is self._queue[0]:
            raise error
        else:
            if isinstance(error, CostLimit):
                self._failures[name] = error
            self._queue = [each for each in self._queue if each.name != name]

    def _instead(self, error: UpstreamError) -> list[Deployment]:
        """The remaining candidates after `error`. A faulty request is not sent to further providers."""
        route, rest = self._route, self._queue
        if error.code == "context_length_exceeded" and route.context_fallback:
            rest = self._able(route.context_fallback)
        elif error.code in _FILTERED and route.content_fallback:
            rest = self._able(route.content_fallback)
        elif error.status in _CLIENT_FAULTS:
            return []
        return [each for each in rest if not isinstance(self._failures.get(each.name), UpstreamError)]

    def _least_bad(self) -> Deployment | None:
        """The first by `health.least_bad`. None: all vendors named a time to wait."""
        badness = self._health.badness
        able = [each for each in self._queue if not badness(each.name)[0] and self._is_affordable(each)]
        return min(able, key=lambda each: badness(each.name), default=None)

    def _is_affordable(self, deployment: Deployment) -> bool:
        if not self._bounds.limits_cost:
            return True
        refusal = self._bounds.refusal(deployment.name, ask_bound(self._request, deployment))
        if refusal is not None:
            self._failures[deployment.name] = refusal
        return refusal is None

    def _total(self) -> UpstreamError | CostLimit:
        """The error of an ask that has no candidate left."""
        later = [each for each in self._queue if self._is_affordable(each)]  # records why the others never can
        failures = list(self._failures.values())
        if failures and not later and all(isinstance(failure, CostLimit) for failure in failures):
            return failures[0]
        known = {each.name: each for each in (*self._able(self._route.candidates), *self._queue)}
        names = list(dict.fromkeys((*known, *self._failures)))
        availability = tuple(self._availability(name) for name in names)
        if len(names) > 1:
            return AllDown(self._route.requested, availability, self._last.outcome if self._last else _NOBODY)
        error = self._last or _resting(availability[0])
        error.note_all_failed(availability, self._tries - self.tries_left)
        return error

    def _availability(self, name: str) -> Availability:
        failure = self._failures.get(name)
        rest_s, why, _ = self._health.rest_of(name)
        if isinstance(failure, UpstreamError):
            wait_s = max(rest_s, failure.retry_after_s or 0.0)
            return Availability(name, failure.code or "upstream_error", failure.retryable, _shown(wait_s, failure))
        if failure is not None:
            return Availability(name, failure.code or "", False)
        code = why if rest_s > 0 else "not_tried"
        return Availability(name, code or "upstream_unavailable", True, round(rest_s, 1))

    def _able(self, deployments: tuple[Deployment, ...]) -> list[Deployment]:
        """The deployments that support the request's content."""
        needs = content_needs(self._request)
        return [each for each in deployments if unsupported(needs, each) is None]


_NOBODY = Outcome.UPSTREAM_ERROR  # of a call that asked no deployment


def _shown(wait_s: float, failure: UpstreamError) -> float | None:
    return round(wait_s, 1) if failure.retryable or wait_s > 0 else None


def _resting(one: Availability) -> UpstreamError:
    """The error of a lone candidate whose vendor asked for time: nothing is sent to it before."""
    is_limit = one.code == "rate_limit_exceeded"
    wait_s = one.retry_after_s or 0.0
    error = UpstreamError(
        f"{one.model} asked not to be called for another {wait_s:g} s.",
        status=429 if is_limit else 503,
        code=one.code,
        retryable=True,
        upstream_status=429 if is_limit else None,  # the vendor's own status
    )
    error.retry_after_s = wait_s
    error.headers["retry-after"] = str(math.ceil(wait_s))
    return error
