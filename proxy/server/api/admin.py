"""Performs I/O: the routes of operators. Their role is admin; on a keyless loopback server every caller has it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from litestar import Response, post
from litestar.handlers import HTTPRouteHandler

from proxy.schema.errors import ProxyError
from proxy.schema.json import encode
from proxy.server.api.answers import NO_STORE, new_id
from proxy.server.swap import Reloaded


class Admin:
    """The routes. `reload` reads the configuration's files again and never raises for their sake."""

    def __init__(self, reload: Callable[[], Awaitable[Reloaded]]) -> None:
        self._reload = reload

    def routes(self) -> list[HTTPRouteHandler]:
        """The Litestar handlers."""

        @post("/admin/reload", role="admin")
        async def reload() -> Response[bytes]:
            """Reads both configuration files again."""
            done = await self._reload()
            error = None
            if done.error is not None:
                message = f"The files are wrong, so the configuration before goes on running.\n{done.error}"
                error = ProxyError(message, status=409, code="conflict").body()["error"]
            body = {"version": done.version, "changed": done.changed, "error": error, "at_restart": done.at_restart}
            headers = {**NO_STORE, "x-request-id": new_id()}
            return Response(
                encode(body), status_code=409 if error else 200, media_type="application/json", headers=headers
            )

        return [reload]
