"""Performs I/O: the routes that call models, in plain ASGI. Each route passes its Format to the pipeline.

The gate `HEADERS_SENT` is here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractContextManager, aclosing
from functools import partial
from typing import Any, Protocol, cast

import structlog
from litestar.types import HTTPScope, Receive, Scope, Send
from sse_starlette import EventSourceResponse

from proxy.pipeline.call import Call
from proxy.pipeline.format import Format, StreamWriter
from proxy.pipeline.output import Output
from proxy.pipeline.pipeline import Pipeline
from proxy.pipeline.running import ClientLeft, RunningCall
from proxy.schema.errors import ProxyError
from proxy.server.api.answers import NO_STORE, header_lines, new_id, safe_headers, send_error, send_json
from proxy.server.api.guard import Access
from proxy.server.api.request import BodyTooLarge, ClientGone, LeaveWatch, Places, discard_rest, read_body
from proxy.server.http1.peer import Peer, peer_of

HEADERS_AFTER_S = 10.0  # a stream's headers are sent with its first byte, or after this long, before clients time out
PING_S = 15
LINGER_BODIES = 4  # after a 413, how much more is read and discarded, in units of the largest body


class FrameStream(EventSourceResponse):
    """An event stream of complete frames, without sse-starlette's watchers: the frames include the pings, the call's
    owner notices a client that leaves, and the server drains streams when it stops.
    """

    def __init__(self, frames: AsyncGenerator[bytes, None], headers: Mapping[str, str]) -> None:
        super().__init__(frames, headers=headers)
        del self.headers["connection"]  # left to the server: sse-starlette says keep-alive to every client

    async def send(self, send: Any) -> None:
        async with aclosing(cast("AsyncGenerator[bytes, None]", self.body_iterator)):
            await self._stream_response(send)


class Live(Protocol):
    """What a call needs of the running configuration."""

    @property
    def pipeline(self) -> Pipeline: ...


class ModelCalls:
    """The routes that call models. `live` lends the current configuration, which a reload replaces."""

    def __init__(
        self,
        live: Callable[[], AbstractContextManager[Live]],
        access: Access,
        max_body_bytes: int,
        places: Places,
        log: structlog.typing.FilteringBoundLogger,
        headers_after_s: float = HEADERS_AFTER_S,
    ) -> None:
        self._places = places
        self._live = live
        self._access = access
        self._max_body_bytes = max_body_bytes
        self._log = log
        self._headers_after_s = headers_after_s

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, format: Format, *, alone: bool = False
    ) -> None:
        """`alone`: no layer of the framework stands between this and the server, none that adds headers."""
        call_id = new_id()
        identity = {"x-request-id": call_id}
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            with self._live() as live:  # not the call's own yet: a reload may happen while the body is read
                identity["x-proxy-config"] = live.pipeline.config_version
            if (method := cast(HTTPScope, scope)["method"]) != "POST":
                message = f"{method} is not allowed; use POST."
                raise ProxyError(message, status=405, code="method_not_allowed", headers={"allow": "POST"})
            caller = await self._access.caller(scope, headers)
            body = await read_body(receive, headers, self._max_body_bytes)
            with self._places, self._live() as live:
                pipeline = live.pipeline
                identity["x-proxy-config"] = pipeline.config_version
                call, route = await pipeline.admit(call_id, caller, body, format, headers)
                del body  # it may be large, and the answer may take minutes
                running = pipeline.start(call, route, format)
                try:
                    with LeaveWatch(scope, receive, running.leave):
                        if call.request.stream:
                            await self._stream(pipeline, running, send)
                        else:
                            await self._whole(pipeline, running, peer_of(scope) if alone else Peer(), send)
                finally:
                    running.stop()
        except BodyTooLarge as error:
            linger = partial(discard_rest, receive, LINGER_BODIES * self._max_body_bytes)
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
        headers = _facts(pipeline, call)
        if (cost := call.cost_usd()) is not None:
            headers["x-proxy-cost-usd"] = f"{cost:.9f}"
        if call.charges and (left_usd := pipeline.budget_left_usd(call)) is not None:
            headers["x-proxy-budget-remaining-usd"] = f"{left_usd:.9f}"
        headers["x-proxy-overhead-ms"] = f"{call.time.overhead_ms():.2f}"
        if not peer.answer(header_lines(headers), body):
            await send_json(send, 200, body, headers)

    async def _stream(self, pipeline: Pipeline, running: RunningCall, send: Send) -> None:
        """Waits for the first frames, then hands over to sse-starlette. Earlier errors have their own status."""
        call, output, writer = running.call, running.output, running.writer
        is_begun = await output.wait(self._headers_after_s)
        first = await output.read() if is_begun else b""
        known = _facts(pipeline, call) if is_begun else _identity(pipeline, call)
        frames = self._frames(first, output, call, writer)
        await FrameStream(frames, safe_headers({**NO_STORE, **known})).send(cast(Any, send))

    async def _frames(
        self, first: bytes, output: Output, call: Call, writer: StreamWriter
    ) -> AsyncGenerator[bytes, None]:
        """After `HEADERS_SENT`: an error is the stream's last frame, without `[DONE]`."""
        try:
            if first:
                yield first
            while True:
                if not await output.wait(PING_S):
                    yield writer.keep_alive
                elif frames := await output.read():
                    yield frames
                else:
                    return
        except ClientLeft:
            return
        except ProxyError as error:
            yield writer.error(error)
        except Exception:
            self._log.exception("internal_error", request_id=call.id)
            yield writer.error(internal_error())


def internal_error() -> ProxyError:
    """500 without details, which are in the log."""
    return ProxyError("Internal error. The server's log has the details.", status=500, code="internal_error")


def _identity(pipeline: Pipeline, call: Call) -> dict[str, str]:
    known = {"x-request-id": call.id, "x-proxy-config": pipeline.config_version}
    if (decision := call.decision) is not None:
        if decision.rule is not None:
            known["x-proxy-rule"] = decision.rule
        if decision.strategy is not None:
            known["x-proxy-strategy"] = decision.strategy
    if call.downgraded_from is not None:
        known["x-proxy-downgraded"] = call.downgraded_from
    return known


def _facts(pipeline: Pipeline, call: Call) -> dict[str, str]:
    """The headers whose values are known at the first byte of an answer."""
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
