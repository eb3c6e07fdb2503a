"""Performs I/O: the routes that call models, in plain ASGI. Each route passes its Format to the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import cast

import structlog
from litestar.types import HTTPScope, Receive, Scope, Send

from proxy.pipeline.format import CutShort, Format, PerRequest
from proxy.pipeline.pipeline import Pipeline
from proxy.pipeline.running import ClientLeft, RunningCall
from proxy.schema.errors import ProxyError
from proxy.server.api.aliases import DEPLOYMENT, OfDeployment
from proxy.server.api.answers import header_lines, new_id, send_error, send_json
from proxy.server.api.guard import Access
from proxy.server.api.replies import (
    HEADERS_AFTER_S,
    cut_short,
    facts_of,
    frames_of,
    identity_of,
    internal_error,
    send_stream,
)
from proxy.server.api.request import (
    LINGER_BODIES,
    Bodies,
    BodyTooLarge,
    ClientGone,
    LeaveWatch,
    discard_rest,
    read_body,
)
from proxy.server.api.shared import Asked, Live, SharedCalls
from proxy.server.http1.peer import EXTENSION, Peer, peer_of


class ModelCalls:
    """The routes that call models. `live` lends the current configuration, which a reload replaces."""

    def __init__(
        self,
        live: Callable[[], AbstractContextManager[Live]],
        access: Access,
        bodies: Bodies,
        shared: SharedCalls,
        log: structlog.typing.FilteringBoundLogger,
        headers_after_s: float = HEADERS_AFTER_S,
    ) -> None:
        self._places = shared.places
        self._shared = shared
        self._live = live
        self._access = access
        self._bodies = bodies
        self._log = log
        self._headers_after_s = headers_after_s

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, format: Format, *, alone: bool = False
    ) -> None:
        """`alone`: no framework layer is between this and the server, so none adds headers."""
        call_id = new_id()
        identity, path = {"x-request-id": call_id}, cast(HTTPScope, scope)["path"]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        format = format.bound(call_id, headers) if isinstance(format, PerRequest) else format
        if (model := cast("dict[str, str]", scope).get(DEPLOYMENT)) is not None:
            format, path = OfDeployment(format, model), f"{path} {model}"
        try:
            with self._live() as live:  # not the call's own yet: a reload may happen while the body is read
                identity["x-proxy-config"], sharing = live.pipeline.config_version, live.sharing
            _check_method(cast(HTTPScope, scope)["method"], path, headers)
            caller = await self._access.caller(scope, headers)
            body = await read_body(receive, headers, self._bodies.max_bytes, may_be_compressed=True)
            if "content-encoding" in headers:
                body = await self._bodies.inflated(body, headers["content-encoding"])
            if sharing.concerns(headers):
                asked = Asked(call_id, caller, path, headers, body, format)
                if (share := await self._shared.share(sharing, asked)) is not None:
                    del body
                    await self._shared.serve(share, asked, scope, receive, send, alone=alone)
                    return
                del asked  # it holds the body
            with self._places, self._live() as live:
                pipeline = live.pipeline
                identity["x-proxy-config"] = pipeline.config_version
                call, route = await pipeline.admit(call_id, caller, body, format, headers)
                del body  # it may be large, and the answer may take minutes
                running = pipeline.start(call, route, format)
                try:
                    with LeaveWatch(scope, receive, running.leave):
                        if call.request.stream:
                            await self._stream(pipeline, running, scope, send, alone=alone)
                        else:
                            await self._whole(pipeline, running, peer_of(scope) if alone else Peer(), send)
                finally:
                    running.stop()
        except BodyTooLarge as error:
            linger = partial(discard_rest, receive, LINGER_BODIES * self._bodies.max_bytes)
            await send_error(send, error, format.error(error), identity, linger)
        except ProxyError as error:
            await send_error(send, error, format.error(error), identity)
        except (ClientGone, ClientLeft):
            return
        except Exception:
            self._log.exception("internal_error", request_id=call_id)
            failure = internal_error()
            await send_error(send, failure, format.error(failure), identity)

    async def _whole(self, pipeline: Pipeline, running: RunningCall, peer: Peer, send: Send) -> None:
        body = await running.output.read()
        call = running.call
        headers = facts_of(pipeline.config_version, call)
        if (cost := call.cost_usd()) is not None:
            headers["x-proxy-cost-usd"] = f"{cost:.9f}"
        if call.charges and (left_usd := pipeline.budget_left_usd(call)) is not None:
            headers["x-proxy-budget-remaining-usd"] = f"{left_usd:.9f}"
        headers["x-proxy-overhead-ms"] = f"{call.time.overhead_ms():.2f}"
        if not peer.answer(header_lines(headers), body):
            await send_json(send, 200, body, headers)

    async def _stream(self, pipeline: Pipeline, running: RunningCall, scope: Scope, send: Send, *, alone: bool) -> None:
        """Waits for the first frames, then hands over to sse-starlette. Earlier errors have their own status."""
        call, output, writer = running.call, running.output, running.writer
        output.push = peer_of(scope).push if alone else None
        is_begun = await output.wait(self._headers_after_s)
        first = await output.read() if is_begun else writer.keep_alive  # headers are sent with the first frame
        known = facts_of(pipeline.config_version, call) if is_begun else identity_of(pipeline.config_version, call)
        frames = frames_of(first, output, call, writer, self._log)
        if isinstance(writer, CutShort) and EXTENSION in (scope.get("extensions") or {}):
            frames = cut_short(frames, writer, send)
        await send_stream(send, frames, known)


def _check_method(method: str, path: str, headers: Mapping[str, str]) -> None:
    """Raises ProxyError unless it is POST. Codex tries a WebSocket at `/v1/responses` first; after a 426 it uses POST
    at once.
    """
    if method == "POST":
        return
    if path.endswith("/responses") and headers.get("upgrade", "").lower() == "websocket":
        raise ProxyError("WebSockets are not supported; use POST.", status=426, code="method_not_allowed")
    message = f"{method} is not allowed; use POST."
    raise ProxyError(message, status=405, code="method_not_allowed", headers={"allow": "POST"})
