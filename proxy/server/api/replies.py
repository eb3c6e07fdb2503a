"""Performs I/O: the headers of answers, and the sending of a stream's frames.

The gate `HEADERS_SENT` is here: after it an error is the last frame.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, nullcontext
from functools import cache
from typing import Any, Protocol, cast

import structlog
from litestar.types import Send
from sse_starlette import EventSourceResponse

from proxy.pipeline.call import Call
from proxy.pipeline.format import CutShort, StreamWriter
from proxy.pipeline.running import ClientLeft
from proxy.schema.errors import ProxyError
from proxy.server.api.answers import NO_STORE, raw_headers
from proxy.server.http1.exchange import ABORT

HEADERS_AFTER_S = 10.0  # a stream's headers are sent with its first byte, or after this long, before clients time out
PING_S = 15


class Frames(Protocol):
    """The source of a stream's frames."""

    async def wait(self, timeout_s: float) -> bool: ...
    async def read(self) -> bytes: ...


@cache
def _usual() -> EventSourceResponse:
    """What all streams have in common."""
    response = EventSourceResponse(cast("AsyncGenerator[bytes, None]", ()))
    response._send_lock = cast(Any, nullcontext())  # nobody else sends, and anyio's lock costs as much as a send
    # The connection is left to the server: sse-starlette sends keep-alive to every client.
    response.raw_headers = [pair for pair in response.raw_headers if pair[0] != b"connection"]
    return response


class FrameStream(EventSourceResponse):
    """An event stream of complete frames, without sse-starlette's watchers: the frames include the pings, the call's
    owner notices a client that disconnects, and the server drains streams when it stops.
    """

    def __init__(self, frames: AsyncGenerator[bytes, None], headers: Mapping[str, str]) -> None:
        usual = _usual()
        self.__dict__.update(usual.__dict__)  # the constructor costs three times as much, and makes the same each time
        self.body_iterator = frames
        full = {**NO_STORE, **headers}
        self.raw_headers = [*(pair for pair in usual.raw_headers if pair[0].decode() not in full), *raw_headers(full)]

    async def send(self, send: Any) -> None:
        async with aclosing(cast("AsyncGenerator[bytes, None]", self.body_iterator)):
            await self._stream_response(send)

    async def _send_with_timeout(self, send: Any, message: Any) -> None:
        """Without a timeout: the base class opens a cancel scope for each send, which costs more than the send."""
        await send(message)


async def send_stream(send: Send, frames: AsyncGenerator[bytes, None], headers: Mapping[str, str]) -> None:
    """An event stream. The headers are sent with the first frame."""
    await FrameStream(frames, headers).send(cast(Any, send))


async def frames_of(
    first: bytes, output: Frames, call: Call, writer: StreamWriter, log: structlog.typing.FilteringBoundLogger
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
        log.exception("internal_error", request_id=call.id)
        yield writer.error(internal_error())


async def cut_short(frames: AsyncGenerator[bytes, None], writer: CutShort, send: Send) -> AsyncGenerator[bytes, None]:
    """The same frames; if the stream failed, our own server aborts the connection after the last one."""
    async with aclosing(frames):
        async for frame in frames:
            yield frame
    if writer.has_failed:
        await send(cast(Any, {"type": ABORT}))


def internal_error() -> ProxyError:
    """500 without details, which are in the log."""
    return ProxyError("Internal error. The server's log has the details.", status=500, code="internal_error")


def identity_of(version: str, call: Call) -> dict[str, str]:
    """The headers that are known before anything answers; `version`: of the configuration."""
    known = {"x-request-id": call.id, "x-proxy-config": version}
    if (decision := call.decision) is not None:
        if decision.rule is not None:
            known["x-proxy-rule"] = decision.rule
        if decision.strategy is not None:
            known["x-proxy-strategy"] = decision.strategy
    if call.request.site is not None:
        known["x-proxy-site"] = call.request.site
    if call.seated is not None:
        known["x-proxy-strategy"] = call.seated.strategy
    if call.downgraded_from is not None:
        known["x-proxy-downgraded"] = call.downgraded_from
    return known


def facts_of(version: str, call: Call) -> dict[str, str]:
    """The headers whose values are known at the first byte of an answer."""
    if not call.attempts:  # an ensemble reports progress before any model is asked
        return identity_of(version, call) | call.limit_headers
    attempt = call.answering
    known = {
        **identity_of(version, call),
        "x-proxy-model": attempt.deployment.name,
        "x-proxy-provider": attempt.deployment.provider_name,
        "x-proxy-attempts": str(len(call.attempts)),
        **call.limit_headers,
    }
    if attempt.native is not None:
        known |= attempt.native.headers
    if attempt.dropped:
        known["x-proxy-dropped-params"] = ",".join(attempt.dropped)
    if adapted := [*call.adapted, *attempt.adapted]:
        known["x-proxy-adapted-params"] = ",".join(dict.fromkeys(adapted))
    return known
