"""Translates: a failure into the next deployment to ask. Pure: `AttemptLoop` does the asking and waiting."""

from __future__ import annotations

from proxy.routing import capabilities as content
from proxy.routing.deployment import Deployment, Route
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import BadRequest, UpstreamError

MAX_ATTEMPTS = 4  # sequential attempts of one ask
_CLIENT_FAULTS = (400, 413, 422)  # another model would refuse as well
_FILTERED = ("content_filter", "content_policy_violation")


class FallbackOrder:
    """The fallback order of one request. Raises BadRequest if no candidate supports its content."""

    def __init__(self, route: Route, request: AnyRequest) -> None:
        self._route = route
        self._content_needs = content.needs(request)
        self._queue = self._able(route.candidates)
        self._failure: UpstreamError | None = None
        self.tries_left = MAX_ATTEMPTS
        if not self._queue and (refusal := content.unsupported(self._content_needs, route.candidates[0])) is not None:
            raise refusal

    @property
    def deployment(self) -> Deployment:
        return self._queue[0]

    def fall_back(self, error: UpstreamError | BadRequest, tried: int) -> None:
        """Moves on to the next candidate; raises the last failure if there is none.

        A BadRequest from the first candidate is the caller's mistake; from a later one it only means that this
        candidate cannot take over.
        """
        if isinstance(error, UpstreamError):
            self._failure = error
            self.tries_left -= max(tried, 1)  # zero if its asks were answered, but with invalid JSON
            self._queue = self._instead(error)
        elif self._failure is None:
            raise error
        else:
            self._queue = self._queue[1:]
        failure = self._failure
        if self._queue and self.tries_left > 0:
            return
        if failure.status >= 500:  # all candidates failed; client retries would multiply ours
            failure.headers["x-should-retry"] = "false"
        raise failure

    def _instead(self, error: UpstreamError) -> list[Deployment]:
        """The remaining candidates after `error`. A faulty request is not sent to further providers."""
        route, failed = self._route, self.deployment.name
        if error.code == "context_length_exceeded" and route.context_fallback:
            return [d for d in self._able(route.context_fallback) if d.name != failed]
        if error.code in _FILTERED and route.content_fallback:
            return [d for d in self._able(route.content_fallback) if d.name != failed]
        return [] if error.status in _CLIENT_FAULTS else self._queue[1:]

    def _able(self, deployments: tuple[Deployment, ...]) -> list[Deployment]:
        """The deployments that support the request's content."""
        if not self._content_needs:
            return list(deployments)
        return [d for d in deployments if content.unsupported(self._content_needs, d) is None]
