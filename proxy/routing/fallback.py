"""Translates: who is asked next for one request, after what failed.

Pure: neither waits nor asks. What a deployment does with its turn is `DeploymentAsk`'s.
"""

from __future__ import annotations

from proxy.routing import capabilities as content
from proxy.routing.names import Deployment, Route
from proxy.schema.chat import AnyRequest
from proxy.schema.errors import BadRequest, UpstreamError

MAX_ATTEMPTS = 4  # of one ask, one after the other
_CLIENT_FAULTS = (400, 413, 422)  # another model would say the same
_FILTERED = ("content_filter", "content_policy_violation")


class FallbackOrder:
    """Who is asked next for one request. Raises BadRequest where none of the candidates takes what it holds."""

    def __init__(self, route: Route, request: AnyRequest) -> None:
        self._route = route
        self._content_needs = content.needs(request)
        self._queue = self._able(route.candidates)
        self._failure: UpstreamError | None = None
        self.tries_left = MAX_ATTEMPTS
        if not self._queue and (refusal := content.refusal(self._content_needs, route.candidates[0])) is not None:
            raise refusal

    @property
    def deployment(self) -> Deployment:
        return self._queue[0]

    def fall_back(self, error: UpstreamError | BadRequest, tried: int) -> None:
        """On to the next candidate; raises the last failure when there is none.

        What cannot be sent is the caller's mistake where it is found first; of a later candidate it only says that this
        one does not stand in.
        """
        if isinstance(error, UpstreamError):
            self._failure = error
            self.tries_left -= max(tried, 1)  # none where its asks were answered, but not with what was asked for
            self._queue = self._instead(error)
        elif self._failure is None:
            raise error
        else:
            self._queue = self._queue[1:]
        failure = self._failure
        if self._queue and self.tries_left > 0:
            return
        if failure.status >= 500:  # all candidates were tried; the client's retries would multiply ours
            failure.headers["x-should-retry"] = "false"
        raise failure

    def _instead(self, error: UpstreamError) -> list[Deployment]:
        """Who is left. A request that is wrong in itself is not carried from one provider to the next."""
        route, failed = self._route, self.deployment.name
        if error.code == "context_length_exceeded" and route.context_fallback:
            return [d for d in self._able(route.context_fallback) if d.name != failed]
        if error.code in _FILTERED and route.content_fallback:
            return [d for d in self._able(route.content_fallback) if d.name != failed]
        return [] if error.status in _CLIENT_FAULTS else self._queue[1:]

    def _able(self, deployments: tuple[Deployment, ...]) -> list[Deployment]:
        """Those that take what the request holds."""
        if not self._content_needs:
            return list(deployments)
        return [d for d in deployments if content.refusal(self._content_needs, d) is None]
