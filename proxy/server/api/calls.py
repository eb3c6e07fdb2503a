"""Performs I/O: the routes that call models, lean ASGI. Each lends the pipeline its Format.

The gate `HEADERS_SENT` is here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, cast

import structlog
from litestar.types import HTTPScope, Receive, Scope, Send
from sse_starlette import EventSourceResponse

from proxy.pipeline.call import Call
from proxy.pipeline.format import Format, StreamWriter
from proxy.pipeline.pipeline import Pipeline
from proxy.routing.names import Route
from proxy.schema.errors import ProxyError
from proxy.server.api.answers import NO_STORE, new_id, safe_headers, send_error, send_json
from proxy.server.api.guard import Access
from proxy.server.api.request import BodyTooLarge, ClientGone, Places, client_watch, discard_rest, read_body

HEADERS_AFTER_S = 10.0  # a stream's headers leave with its first byte, or after this long so that no client gives up
PING_S = 15
LINGER_BODIES = 4  # after a 413, how much more is read and discarded, in largest bodies


class ModelCalls:
    """The routes that call models. `pipeline` lends each request the one that is current: a reload swaps it."""

    def __init__(
        self,
        pipeline: Callable[[], AbstractContextManager[Pipeline]],
        access: Access,
        max_body_bytes: int,
        places: Places,
        log: structlog.typing.FilteringBoundLogger,
        headers_after_s: float = HEADERS_AFTER_S,
    ) -> None:
        self._places = places
        self._pipeline = pipeline
        self._access = access
        self._max_body_bytes = max_body_bytes
        self._log = log
        self._headers_after_s = headers_after_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send, format: Format) -> None:
        call_id = new_id()
        identity = {"x-request-id": call_id}
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            with self._pipeline() as current:  # not the one of the call yet: a reload may come while the body is read
                identity["x-proxy-config"] = current.config_version
            if (method := cast(HTTPScope, scope)["method"]) != "POST":
                message = f"{method} is not allowed here; use POST."
                raise ProxyError(message, status=405, code="method_not_allowed", headers={"allow": "POST"})
            caller = await self._access.caller(scope, headers)
            with self._places:
                body = await read_body(receive, headers, self._max_body_bytes)
                with self._pipeline() as pipeline:
                    identity["x-proxy-config"] = pipeline.config_version
                    call, route = await pipeline.admit(call_id, caller, body, format, headers)
                    if call.request.stream:
                        await self._stream(pipeline, call, route, format.writer(call), (scope, receive, send))
                    else:
                        await self._whole(pipeline, call, route, format, receive, send)
        except BodyTooLarge as error:
            linger = partial(discard_rest, receive, LINGER_BODIES * self._max_body_bytes)
            await send_error(send, error, format.error(error), identity, linger)
        except ProxyError as error:
            await send_error(send, error, format.error(error), identity)
        except ClientGone:
            return
        except Exception:
            self._log.exception("internal_error", request_id=call_id)
            failure = internal_error()
            await send_error(send, failure, format.error(failure), identity)

    async def _whole(
        self, pipeline: Pipeline, call: Call, route: Route, format: Format, receive: Receive, send: Send
    ) -> None:
        try:
            async with client_watch(receive, call.note_gone):
                body = await pipeline.complete(call, route, format)
        except asyncio.CancelledError:
            if call.client_gone:
                return
            raise
        overhead = {"x-proxy-overhead-ms": f"{call.time.overhead_ms():.2f}"}
        await send_json(send, 200, body, _facts(pipeline, call) | _money(call) | overhead)

    async def _stream(
        self, pipeline: Pipeline, call: Call, route: Route, writer: StreamWriter, asgi: tuple[Scope, Receive, Send]
    ) -> None:
        """Waits for the first frames, then hands over to sse-starlette. Errors before that have their own status."""
        frames = pipeline.stream(call, route, writer)
        first = asyncio.ensure_future(anext(frames))
        try:
            async with client_watch(asgi[1], call.note_gone):
                await asyncio.wait({first}, timeout=self._headers_after_s)
            if first.done():
                first.result()
            known = _facts(pipeline, call) if first.done() else _identity(pipeline, call)
            await self._send_stream(call, self._frames(first, frames, call, writer), known, writer.keep_alive, asgi)
        except asyncio.CancelledError:
            if not call.client_gone:
                raise
        finally:
            await _end(first, frames)

    async def _send_stream(
        self,
        call: Call,
        frames: AsyncGenerator[bytes, None],
        known: dict[str, str],
        keep_alive: bytes,
        asgi: tuple[Scope, Receive, Send],
    ) -> None:
        response = EventSourceResponse(
            frames,
            headers=safe_headers({**NO_STORE, **known}),
            ping=PING_S,
            ping_message_factory=cast(Any, lambda: keep_alive),
            client_close_handler_callable=partial(_note_gone, call),
        )
        del response.headers["connection"]  # the server's to say: this says keep-alive, also to who asked to close
        await response(*cast("tuple[Any, Any, Any]", asgi))

    async def _frames(
        self, first: asyncio.Future[bytes], frames: AsyncGenerator[bytes, None], call: Call, writer: StreamWriter
    ) -> AsyncGenerator[bytes, None]:
        """`HEADERS_SENT`: from here on an error is the stream's last frame, without `[DONE]`."""
        try:
            yield await first
            async for frame in frames:
                yield frame
        except ProxyError as error:
            yield writer.error(error)
        except Exception:
            self._log.exception("internal_error", request_id=call.id)
            yield writer.error(internal_error())


async def _end(first: asyncio.Future[bytes], frames: AsyncGenerator[bytes, None]) -> None:
    """Closes a stream wherever it stands; a client may leave before anybody has asked for its first frame."""
    if not first.done():
        first.cancel()
        await asyncio.wait({first})
    if not first.cancelled():
        first.exception()  # seen, so that asyncio does not report it
    await frames.aclose()


def internal_error() -> ProxyError:
    """500 without detail: the log has it."""
    return ProxyError("Internal error. The server's log has the details.", status=500, code="internal_error")


async def _note_gone(call: Call, _message: object) -> None:
    call.note_gone()


def _identity(pipeline: Pipeline, call: Call) -> dict[str, str]:
    return {"x-request-id": call.id, "x-proxy-config": pipeline.config_version}


def _facts(pipeline: Pipeline, call: Call) -> dict[str, str]:
    """What is known of an answer at its first byte."""
    attempt = call.answering
    facts = {
        **_identity(pipeline, call),
        "x-proxy-model": attempt.deployment.name,
        "x-proxy-provider": attempt.deployment.provider_name,
        "x-proxy-attempts": str(len(call.attempts)),
        **call.limit_headers,
    }
    if attempt.dropped:
        facts["x-proxy-dropped-params"] = ",".join(attempt.dropped)
    if adapted := [*call.adapted, *attempt.adapted]:
        facts["x-proxy-adapted-params"] = ",".join(dict.fromkeys(adapted))
    return facts


def _money(call: Call) -> dict[str, str]:
    cost = call.cost_usd()
    return {} if cost is None else {"x-proxy-cost-usd": f"{cost:.9f}"}
