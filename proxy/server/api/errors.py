"""Performs I/O: sends the framework's own errors in OpenAI's shape: 404, 405, 400, 413 and exceptions that a handler
let through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.response import Template
from litestar.types import ExceptionHandlersMap

from proxy.schema.errors import ProxyError
from proxy.schema.json import encode
from proxy.server.api.answers import NO_STORE, new_id
from proxy.server.api.dialects import in_dialect
from proxy.server.api.front import front_page
from proxy.server.api.replies import internal_error

MissingPage = Callable[[Request[Any, Any, Any]], Response[Any] | Template | None]
_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "request_too_large",
    415: "unsupported_media_type",
}


def exception_handlers(log: structlog.typing.FilteringBoundLogger, missing_page: MissingPage) -> ExceptionHandlersMap:
    """Litestar's map from exception to answer. `missing_page`: for a browser at the address of no page; None: it is
    none of the dashboard's.
    """

    def known(request: Request[Any, Any, Any], error: ProxyError) -> Response[bytes]:
        return respond(request.scope["path"], error)

    def framework(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
        status = error.status_code
        if status == 404 and (page := front_page(request) or missing_page(request)) is not None:
            return page
        if status >= 500:
            return unforeseen(request, error)
        headers = {"allow": allow} if (allow := (error.headers or {}).get("allow")) else {}
        instead = " or ".join(sorted({name.strip() for name in (allow or "").split(",")} - {"", "OPTIONS"}))
        message = {
            404: f"There is nothing at {request.scope['path'][:200]!r}; the API is at /v1/chat/completions.",
            405: f"{request.method} is not allowed here{f'; use {instead}' if instead else ''}.",
        }.get(status, str(error.detail)[:300])
        code = _CODES.get(status, "invalid_value")
        return respond(request.scope["path"], ProxyError(message, status=status, code=code, headers=headers))

    def unforeseen(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        request_id = new_id()
        log.error("internal_error", request_id=request_id, path=request.scope["path"], exc_info=error)
        return respond(request.scope["path"], internal_error(), request_id)

    return {ProxyError: known, HTTPException: framework, Exception: unforeseen}


def respond(path: str, error: ProxyError, request_id: str | None = None) -> Response[bytes]:
    """An error as a Litestar response."""
    request_id = request_id or new_id()
    error = in_dialect(path, error, request_id)
    return Response(
        encode(error.body()),
        status_code=error.status,
        media_type="application/json",
        headers={**NO_STORE, **error.headers, "x-request-id": request_id},
    )
