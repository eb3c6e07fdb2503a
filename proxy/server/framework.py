"""Orchestrates: Litestar as configured for this server: our errors, no logging, and no OpenAPI document of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from litestar import Litestar, Router
from litestar.config.cors import CORSConfig
from litestar.handlers import ASGIRouteHandler
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.plugins.jinja import JinjaTemplateEngine
from litestar.template.config import TemplateConfig
from structlog.typing import FilteringBoundLogger

from proxy.config.server import ServerConfig
from proxy.server.api.errors import exception_handlers
from proxy.server.web.rendering import missing_page

Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]


def litestar(
    routes: Sequence[ASGIRouteHandler | Router],
    lifespan: Lifespan,
    server: ServerConfig,
    log: FilteringBoundLogger,
    templates: TemplateConfig[JinjaTemplateEngine],
) -> Litestar:
    """The application."""
    return _Litestar(
        routes,
        lifespan=[lifespan],
        exception_handlers=exception_handlers(log, missing_page),
        cors_config=CORSConfig(allow_origins=server.cors_origins) if server.cors_origins else None,
        openapi_config=None,
        logging_config=None,
        request_max_body_size=int(server.max_body_mb * 1024 * 1024),
        template_config=templates,
    )


class Routes(Router):
    """Routes with guards of their own, for one application. Litestar would make a deep copy of them with all metadata
    of their handlers, which takes a third of the time to build the application.
    """

    def __deepcopy__(self, memo: dict[int, object]) -> Routes:
        return self


class _Litestar(Litestar):
    """Litestar without its plug-ins for Pydantic and attrs. No route needs them; they cost 8 MB and 0.2 s at start."""

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return [*plugins, MsgspecDIPlugin()]
