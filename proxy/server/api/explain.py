"""Performs I/O: `POST /v1/route/explain`: how a call with this body would be routed. Nothing is called or spent."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from litestar import Request, Response, post
from litestar.handlers import HTTPRouteHandler

from proxy.routing.explain import explained
from proxy.schema.json import encode
from proxy.schema.records import Caller
from proxy.server.api.answers import NO_STORE, new_id
from proxy.server.api.request import Bodies, ClientGone
from proxy.server.api.shared import Live
from proxy.server.formats.chat import CHAT


class Explain:
    """The route. `live` lends the current configuration."""

    def __init__(self, live: Callable[[], AbstractContextManager[Live]], bodies: Bodies) -> None:
        self._live = live
        self._bodies = bodies

    def routes(self) -> list[HTTPRouteHandler]:
        """The Litestar handlers, each with and without `/v1`."""

        @post(["/v1/route/explain", "/route/explain"], role="key")
        async def explain(request: Request[Caller, Any, Any]) -> Response[bytes]:
            headers = dict(request.headers)
            try:
                body = await self._bodies.read(request.receive, headers)
            except ClientGone:
                return Response(b"", status_code=499)
            with self._live() as live:
                decision, budget = await live.pipeline.decide(request.user, body, CHAT, headers)
                known = {"x-request-id": new_id(), "x-proxy-config": live.pipeline.config_version}
            return Response(
                encode(explained(decision, budget, names_all=request.user.admin)),
                status_code=200,
                media_type="application/json",
                headers={**NO_STORE, **known},
            )

        return [explain]
