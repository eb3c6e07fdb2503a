"""Performs I/O: one request of a connection and its answer, as ASGI's `receive` and `send`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

import structlog
from litestar.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from proxy.schema.errors import ProxyError
from proxy.schema.json import encode
from proxy.server.api.dialects import in_dialect
from proxy.server.http1.connections import Connections
from proxy.server.http1.peer import Peer

ABORT = "http.response.abort"  # our own ASGI message: close the connection without the end of the answer
UNREAD_MAX = 64 * 1024  # of a body that the application has not asked for yet
_JOINED_BYTES = 64 * 1024  # a longer body is not copied
_HELD_BYTES = 4 * 1024  # so little waits for what is written next in the same turn of the loop
_SLICE_BYTES = 1024 * 1024  # of a body sent in one turn of the loop; asyncio copies what the socket does not accept
_NO_BODY = (204, 304)
_LAST_CHUNK = b"0\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def _chunk(body: bytes | memoryview) -> bytes:
    return b"".join((b"%x\r\n" % len(body), body, b"\r\n"))


class Wire(Protocol):
    """An exchange's interface to its connection."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    connections: Connections

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]: ...
    @property
    def is_writable(self) -> bool: ...
    def write(self, data: bytes | memoryview) -> None: ...
    def close(self) -> None: ...
    def resume_reading(self) -> None: ...
    def pause_reading(self) -> None: ...
    def answered(self, exchange: Exchange) -> None: ...
    async def drained(self) -> None: ...


class Exchange:
    """One request and its answer."""

    __slots__ = (
        "_chunked", "_event_stream", "_held", "_is_head", "_is_read", "_left", "_news", "_pieces", "_unread", "_wire",
        "complete", "expects_continue", "keep_alive", "peer", "returned", "scope", "size", "started",
        "starts_early", "task", "whole",
    )  # fmt: skip

    def __init__(self, wire: Wire, scope: Any, *, keep_alive: bool = False, expects_continue: bool = False) -> None:
        self.scope = scope
        self.peer = Peer(self.answer, self.push)
        self.keep_alive = keep_alive
        self.expects_continue = expects_continue
        self.starts_early = expects_continue  # the application may refuse the body, or must ask for it
        self.task: asyncio.Task[None] | None = None
        self.whole = False  # the request's last byte has arrived
        self.started = False  # the answer's first byte has been sent
        self.complete = False  # the answer's last byte has been sent
        self.returned = False  # the application has returned
        self.size = 0  # bytes of the body so far
        self._wire = wire
        self._is_head = scope["method"] == "HEAD"
        self._chunked = False
        self._event_stream = False
        self._held = b""  # not yet written
        self._left: int | None = None  # bytes of the answer's body that are missing from its declared length
        self._pieces: list[bytes] = []
        self._unread = 0
        self._is_read = False  # the application has the whole body
        self._news: asyncio.Event | None = None  # created for a waiter

    # --- called by the connection ---

    def feed(self, piece: bytes) -> bool:
        """Adds a piece of the body. False: it is dropped, because nothing will read it."""
        if self.complete or self.returned:
            return False
        self.size += len(piece)
        self._pieces.append(piece)
        self._unread += len(piece)
        if self._unread > UNREAD_MAX:
            self._wire.pause_reading()
        self._notify()
        return True

    def end(self) -> None:
        """Records that the request is whole."""
        self.whole = True
        self._notify()

    @property
    def is_ready(self) -> bool:
        """True once the application may start: a small body is awaited first, so that half of one costs no task."""
        return self.whole or self.starts_early or self._unread > UNREAD_MAX

    def leave(self) -> None:
        """Records that the client is gone."""
        self.peer.leave()
        self._notify()

    def _notify(self) -> None:
        if self._news is not None:
            self._news.set()

    # --- the application ---

    async def run(self, app: ASGIApp) -> None:
        """Calls the application, and ends the answer that it leaves incomplete."""
        self._wire.connections.arrived(self._wire)
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            await self._cut(ProxyError("The server is stopping.", status=503, code="overloaded"))
        except Exception:
            structlog.get_logger("http1").exception("application_failed", path=self.scope["path"])
            await self._cut(ProxyError("Internal error.", status=500, code="internal_error"))
        else:
            if not self.complete and not self.peer.gone:
                structlog.get_logger("http1").error("application_gave_no_answer", path=self.scope["path"])
                await self._cut(ProxyError("Internal error.", status=500, code="internal_error"))
        self.returned = True
        self._pieces.clear()
        if not self.complete:  # no reader is left for the rest
            self._flush()
            self._wire.close()

    async def _cut(self, error: ProxyError) -> None:
        """Ends an unfinished answer with an error, if its format allows one."""
        if self.complete or self._wire.transport.is_closing():
            return
        self.keep_alive = False
        shown = in_dialect(self.scope["path"], error)
        body = encode(shown.body())
        if not self.started:
            self.answer_at_once(error.status, body)
        elif self._event_stream and self._left is None:
            is_openais = shown is error  # clients of other formats take any end of a stream for the end of an answer
            frame = b"data: " if is_openais else b"event: error\ndata: "
            self._write_body(frame + body + b"\n\n", more=not is_openais)

    async def receive(self) -> Any:
        """ASGI: the next piece of the body, then `http.disconnect` when the client disconnects or the answer
        is complete.
        """
        if self.expects_continue and not self.started:
            self._wire.write(_CONTINUE)
        self.expects_continue = False
        while not self.complete:
            if self._pieces or (self.whole and not self._is_read):
                return self._unread_body()
            if self.peer.gone:
                break
            self._wire.resume_reading()
            if self._news is None:
                self._news = asyncio.Event()
            self._news.clear()
            await self._news.wait()
        return {"type": "http.disconnect"}

    def _unread_body(self) -> Any:
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._unread = 0
        self._is_read = self.whole
        self._wire.resume_reading()
        return {"type": "http.request", "body": body, "more_body": not self.whole}

    async def send(self, message: Any) -> None:
        """ASGI: the head, then the body. Waits while the client does not read."""
        await self._wire.drained()
        if self._wire.transport.is_closing():
            await asyncio.sleep(0)  # a sender that never waits must let the loop report the disconnect
            return
        kind = message["type"]
        if not self.started and kind == "http.response.start":
            self._write_head(message["status"], message.get("headers", ()))
        elif self.started and not self.complete and kind == "http.response.body":
            more, body = message.get("more_body", False), message.get("body", b"")
            if len(body) > _SLICE_BYTES:
                body = await self._write_slices(memoryview(body))
            self._write_body(body, more=more)  # dropped by a connection that is closing
            if more:  # before the application produces the next piece, not after
                await self._wire.drained()
        elif kind == ABORT:
            self._flush()
            self.leave()
            self._wire.close()
        else:
            raise RuntimeError(f"unexpected ASGI message {kind!r}")

    async def _write_slices(self, body: memoryview) -> memoryview:
        """Writes a large body except for the last slice, which it returns; if the client is gone, returns all
        the rest.
        """
        while len(body) > _SLICE_BYTES and not self._wire.transport.is_closing():
            self._write_body(body[:_SLICE_BYTES], more=True)
            body = body[_SLICE_BYTES:]
            await self._wire.drained()
        return body

    def answer(self, lines: bytes, body: bytes) -> bool:
        """`Peer.answer`. ASGI messages would cost a tenth of a short call."""
        wire = self._wire
        if self.started or self._is_head or len(body) > _SLICE_BYTES or not wire.is_writable:
            return False
        usual = b"".join([name + b": " + value + b"\r\n" for name, value in wire.default_headers])
        end = b"content-length: %d\r\n\r\n" if self.keep_alive else b"content-length: %d\r\nconnection: close\r\n\r\n"
        self.started = True
        head = b"".join((STATUS_LINE[200], usual, lines, end % len(body)))
        if len(body) <= _JOINED_BYTES:
            wire.write(head + body)
        else:
            wire.write(head)
            wire.write(body)
        self._finish()
        return True

    def push(self, piece: bytes) -> bool:
        """`Peer.push`. Only what can leave now: the rest waits in `send`, and with it the writer."""
        wire = self._wire
        if self._is_head or self.complete or not self.started or self._left is not None or not wire.is_writable:
            return False
        wire.write(self._with_held(_chunk(piece) if self._chunked else piece))
        return True

    def answer_error(self, error: ProxyError, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """A whole error without the application."""
        self.answer_at_once(error.status, encode(in_dialect(self.scope["path"], error).body()), headers)

    def answer_at_once(self, status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """A whole JSON answer without the application."""
        usual = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)))
        self._write_head(status, (*usual, *headers))
        self._write_body(body, more=False)

    def _write_head(self, status: int, headers: Any) -> None:
        pairs = [*self._wire.default_headers, *headers]  # ASGI's names are in lower case
        lines = list(map(b": ".join, pairs))
        known = dict(pairs)
        length = int(known[b"content-length"]) if b"content-length" in known else None
        self._event_stream = known.get(b"content-type", b"").startswith(b"text/event-stream")
        says_close = b"connection" in known
        if says_close and b"close" in known[b"connection"].lower():
            self.keep_alive = False
        self._left, self._chunked = length, False
        if length is None and not self._is_head and status not in _NO_BODY:
            if self.scope["http_version"] == "1.1":
                self._chunked = True
                lines.append(b"transfer-encoding: chunked")
            else:
                self.keep_alive = False  # HTTP/1.0 has no chunks: the end of the connection is the end of the answer
        if not self.keep_alive and not says_close:
            lines.append(b"connection: close")
        head = b"\r\n".join((*lines, b""))
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or b"\0" in head:
            raise RuntimeError("a header holds a line end")
        self.started = True
        self._hold(b"".join((STATUS_LINE[status], head, b"\r\n")))

    def _hold(self, data: bytes) -> None:
        """Writes at the end of this turn of the loop, or with what is written before: each write is a system call."""
        if not self._held:
            self._wire.loop.call_soon(self._flush)
        self._held += data
        if len(self._held) > _HELD_BYTES:
            self._flush()

    def _with_held(self, data: bytes | memoryview) -> bytes | memoryview:
        """What is to be written, with what waited for it. Large data is not copied."""
        if self._held and len(data) > _JOINED_BYTES:
            self._flush()
        if not self._held:
            return data
        held, self._held = self._held, b""
        return held + data

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._wire.write(held)

    def _write_body(self, body: bytes | memoryview, *, more: bool) -> None:
        if self._is_head:
            self._left = 0
            self._flush()
        elif self._chunked:
            chunk = _chunk(body) if body else b""
            if not more:
                self._wire.write(self._with_held(chunk + _LAST_CHUNK))
            elif len(chunk) <= _HELD_BYTES:
                self._hold(chunk)
            else:
                self._wire.write(self._with_held(chunk))
        else:
            if self._left is not None:
                self._left -= len(body)
                if self._left < 0:
                    raise RuntimeError("the answer is longer than its content-length")
            self._wire.write(self._with_held(body))
        if more:
            return
        if self._left:
            raise RuntimeError("the answer is shorter than its content-length")
        self._finish()

    def _finish(self) -> None:
        self.complete = True
        self.peer.close()
        self._notify()
        self._wire.answered(self)
