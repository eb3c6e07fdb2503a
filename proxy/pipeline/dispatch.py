"""Orchestrates: fallback. Each ask moves from deployment to deployment until its gate closes, never after.

COMMITTED     the first content, reasoning, tool or refusal delta: no other model may answer after it
HEADERS_SENT  the first byte to the client (the API layer's gate): errors are frames after it

Dispatcher     asks the deployments of a route until one answers
CallAsk        asks models by name on behalf of one call; ensembles use it
FallbackOrder  picks the next deployment (routing)
AttemptLoop    asks one deployment, with retries
"""

from __future__ import annotations

from proxy.pipeline.attempts import AttemptLoop, Resources
from proxy.pipeline.call import Call
from proxy.pipeline.gate import CommitGate
from proxy.routing.allowed import Allowed
from proxy.routing.ask import CALL, Answer, Origin, Sink
from proxy.routing.deployment import Route
from proxy.routing.fallback import FallbackOrder
from proxy.routing.router import Router
from proxy.schema.chat import ChatRequest
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import BadRequest, UpstreamError


class Dispatcher:
    """Asks the deployments of routes."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources

    async def complete(self, call: Call, route: Route, request: AnyRequest, origin: Origin = CALL) -> Answer:
        """The whole answer to `request`.

        Raises the last candidate's UpstreamError, BadRequest for a request the first candidate cannot take, or
        StorageUnavailable before anything was sent.
        """
        order = FallbackOrder(route, request)
        while True:
            loop = AttemptLoop(self.resources, call, order.deployment, order.tries_left, CommitGate())
            try:
                return await loop.answer(request, origin)
            except (UpstreamError, BadRequest) as error:
                order.fall_back(error, loop.tried)

    async def stream(
        self, call: Call, route: Route, sink: Sink, gate: CommitGate, request: ChatRequest, origin: Origin = CALL
    ) -> Answer:
        """The answer, streamed into `sink`; `gate` closes with its first batch. Raises as `complete` does."""
        order = FallbackOrder(route, request)
        while True:
            loop = AttemptLoop(self.resources, call, order.deployment, order.tries_left, gate)
            try:
                return await loop.answer_stream(request, sink, origin)
            except (UpstreamError, BadRequest) as error:
                if gate.is_closed:
                    raise
                order.fall_back(error, loop.tried)


class CallAsk:
    """The `Ask` of one call, limited to the models that its caller may use."""

    def __init__(self, dispatcher: Dispatcher, router: Router, call: Call, allowed: Allowed | None) -> None:
        self._dispatcher = dispatcher
        self._router = router
        self._call = call
        self._allowed = allowed

    async def ask(self, name: str, request: AnyRequest, origin: Origin = CALL) -> Answer:
        route = await self._router.route(name, self._allowed)
        return await self._dispatcher.complete(self._call, route, request, origin)

    async def stream(self, name: str, request: ChatRequest, sink: Sink, origin: Origin = CALL) -> Answer:
        route = await self._router.route(name, self._allowed)
        return await self._dispatcher.stream(self._call, route, sink, CommitGate(), request, origin)
