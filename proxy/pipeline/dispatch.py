"""Orchestrates: who is asked for one call. It falls back from deployment to deployment until `COMMITTED` closes, and
never after.

    COMMITTED     the first content, reasoning, tool or refusal delta: from here on no second model may answer
    HEADERS_SENT  the first byte to the client (the API layer's gate): from here on errors are frames

    Dispatcher    runs the course of a route
    FallbackOrder        who is next (routing)
    DeploymentAsk        asks one of them, with its retries
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import cast

from proxy.metering.ledger import Ledger
from proxy.pipeline.attempts import DeploymentAsk, Resources
from proxy.pipeline.call import Call
from proxy.routing.fallback import FallbackOrder
from proxy.routing.names import Route
from proxy.schema.chat import AnyRequest, AnyResponse, ChatChunk, ChatRequest
from proxy.schema.errors import BadRequest, UpstreamError
from proxy.upstream.upstream import Upstream

BACKOFF_S = 0.5  # ceiling of the first wait; full jitter, doubles


class Dispatcher:
    """Runs a route's deployments until one answers."""

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        ledger: Ledger,
        config_version: str,
        random: Callable[[], float],
        backoff_s: float = BACKOFF_S,
    ) -> None:
        self.config_version = config_version
        self._resources = Resources(upstreams, ledger, config_version, random, backoff_s)

    async def complete(self, call: Call, route: Route, request: AnyRequest | None = None) -> AnyResponse:
        """The whole answer to `request` (None: the call's own; a call may ask for several, one after the other).

        Raises the last candidate's UpstreamError, BadRequest for what the first cannot be sent, or StorageUnavailable
        before anything was sent.
        """
        request = request or call.request
        course = FallbackOrder(route, request)
        while True:
            asking = DeploymentAsk(self._resources, call, course.deployment, course.tries_left)
            try:
                return await asking.answer(request)
            except (UpstreamError, BadRequest) as error:
                await asking.withdraw()
                course.fall_back(error, asking.tried)

    async def stream(self, call: Call, route: Route) -> AsyncGenerator[list[ChatChunk], None]:
        """The answer in batches of chunks, the first of them once `COMMITTED` is closed. Raises as `complete` does."""
        request = cast(ChatRequest, call.request)
        course = FallbackOrder(route, request)
        while True:
            asking = DeploymentAsk(self._resources, call, course.deployment, course.tries_left)
            is_committed = False
            try:
                async with aclosing(asking.answer_stream(request)) as batches:
                    async for batch in batches:
                        is_committed = True
                        yield batch
                return
            except (UpstreamError, BadRequest) as error:
                await asking.withdraw()
                if is_committed:
                    raise
                course.fall_back(error, asking.tried)
