"""Performs I/O: the routes of operators. Their role is admin; on a keyless loopback server every caller has it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from litestar import Request, Response, post
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct

from proxy.config import ConfigError
from proxy.schema.errors import BadRequest, Conflict
from proxy.schema.json import decode_object, encode
from proxy.schema.records import Caller
from proxy.server.api.answers import NO_STORE, new_id
from proxy.server.formats.body import view_of
from proxy.server.swap import Reloaded

MAX_CALLS = 10_000


class PlanBody(Struct, frozen=True):
    """`routing_rules`, `pricing`: the texts of the files; without `pricing` the current prices apply."""

    routing_rules: str
    pricing: str | None = None
    calls: int = 1000


class Admin:
    """The routes. `reload` reads the configuration's files again and never raises for errors in them. `plan` tries
    other files on past calls: it takes their texts (None: the current prices) and the number of calls. It raises
    ConfigError.
    """

    def __init__(
        self,
        reload: Callable[[], Awaitable[Reloaded]],
        plan: Callable[[str, str | None, int], Awaitable[dict[str, Any]]],
    ) -> None:
        self._reload = reload
        self._plan = plan

    def routes(self) -> list[HTTPRouteHandler]:
        """The Litestar handlers."""

        @post("/admin/reload", role="admin")
        async def reload() -> Response[bytes]:
            """Reads both configuration files again."""
            done = await self._reload()
            error = None
            if done.error is not None:
                message = f"The files have errors, so the previous configuration keeps running.\n{done.error}"
                error = Conflict(message).body()["error"]
            body = {"version": done.version, "changed": done.changed, "error": error, "at_restart": done.at_restart}
            headers = {**NO_STORE, "x-request-id": new_id()}
            return Response(
                encode(body), status_code=409 if error else 200, media_type="application/json", headers=headers
            )

        @post("/admin/config/plan", role="admin")
        async def plan(request: Request[Caller, Any, Any]) -> Response[bytes]:
            """What another configuration would change for the last calls."""
            asked = view_of(decode_object(await request.body()), PlanBody)
            if not 1 <= asked.calls <= MAX_CALLS:
                raise BadRequest(f"calls: expected 1 to {MAX_CALLS}.", param="calls")
            try:
                told = await self._plan(asked.routing_rules, asked.pricing, asked.calls)
            except ConfigError as error:
                raise BadRequest(f"The files do not load.\n{error}", param="routing_rules") from None
            headers = {**NO_STORE, "x-request-id": new_id()}
            return Response(encode(told), status_code=200, media_type="application/json", headers=headers)

        return [reload, plan]
