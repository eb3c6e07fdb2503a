"""I/O: just enough of HTTP/1.1's server side, on a bare asyncio protocol, so that it can misbehave byte by byte.

Reading never pauses while an answer is on its way: that is how a peer that hangs up is noticed at once, in every phase.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from typing import cast
from urllib.parse import parse_qsl

from msgspec import Struct

from tests.upstream.ledger import Ledger, Seen

REASONS = {200: "OK", 302: "Found", 307: "Temporary Redirect", 308: "Permanent Redirect", 400: "Bad Request"}


class MalformedRequest(Exception):
    """The peer does not speak HTTP/1.1."""


class Request(Struct):
    """One whole request; header names are lower case, repeated ones joined by ", "."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""


class RequestParser:
    """Bytes in, requests out: keep-alive, pipelining, Content-Length and chunked bodies."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._request: Request | None = None
        self._body = bytearray()
        self._missing: int | None = None

    def feed(self, data: bytes) -> None:
        self._buffer += data

    @property
    def waits_for_continue(self) -> bool:
        """True once, when a client holds its body back until it sees `100 Continue`."""
        if self._request is None or self._buffer or self._body:
            return False
        return self._request.headers.pop("expect", "").lower() == "100-continue"

    def next(self) -> Request | None:
        """The next whole request, or None. Raises MalformedRequest."""
        if self._request is None and not self._read_head():
            return None
        request = self._request
        if request is None or not (self._read_sized() if self._missing is not None else self._read_chunked()):
            return None
        request.body = bytes(self._body)
        self._body.clear()
        self._request = None
        return request

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                raise MalformedRequest(line)
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        try:
            method, target, _version = first.split(" ")
            chunked = headers.get("transfer-encoding", "").lower() == "chunked"
            self._missing = None if chunked else int(headers.get("content-length", "0"))
        except ValueError as error:
            raise MalformedRequest(first) from error
        path, _, query = target.partition("?")
        self._request = Request(method, path, dict(parse_qsl(query)) if query else {}, headers)
        return True

    def _read_sized(self) -> bool:
        missing = self._missing or 0
        if len(self._buffer) < missing:
            return False
        self._body += self._buffer[:missing]
        del self._buffer[:missing]
        return True

    def _read_chunked(self) -> bool:
        while (end := self._buffer.find(b"\r\n")) >= 0:
            try:
                size = int(self._buffer[:end].split(b";")[0], 16)
            except ValueError as error:
                raise MalformedRequest("chunk size") from error
            if len(self._buffer) < end + 2 + size + 2:
                return False
            self._body += self._buffer[end + 2 : end + 2 + size]
            del self._buffer[: end + 2 + size + 2]
            if size == 0:
                return True
        return False


def head(status: int, headers: list[tuple[str, str]]) -> bytes:
    """The bytes of a status line and its headers, blank line included."""
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


class Connection(asyncio.Protocol):
    """One accepted connection: reads requests, answers them one at a time, tells the ledger when the peer is gone."""

    def __init__(
        self,
        serve: Callable[[Connection, Request], Awaitable[None]],
        ledger: Ledger,
        connections: set[Connection],
        failures: list[Exception],
        number: int,
    ) -> None:
        self.number = number
        self.seen: Seen | None = None
        self.closing = False
        self.answered = 0
        self._serve = serve
        self._ledger = ledger
        self._connections = connections
        self._failures = failures
        self._parser = RequestParser()
        self._writable: asyncio.Future[None] | None = None
        self._unaccounted: tuple[int, Callable[[], None] | None] | None = None
        self._task: asyncio.Task[None] | None = None

    # --- what asyncio calls -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from it
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # No buffer of our own: `bytes_sent` is what the kernel took, and a slow reader is felt at once.
        self._transport.set_write_buffer_limits(high=0)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed(data)
        self._advance()

    def eof_received(self) -> None:
        self._peer_gone()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._peer_gone()
        self._ledger.touch()

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()
        self._ledger.touch()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)
        self._account()

    # --- what an answer calls -----------------------------------------------------------------------------------------

    async def send(self, data: bytes, taken: Callable[[], None] | None = None) -> None:
        """Write, and return when the kernel has taken every byte.

        `taken` is called at that very moment: a peer that hangs up on the last byte, before this task runs again, was
        told everything, and the ledger must say so.
        """
        self._unaccounted = (len(data), taken)
        self._transport.write(data)
        if self.seen is not None and self.seen.t_first_byte is None:
            self.seen.t_first_byte = time.monotonic()
        if self._writable is None:
            self._account()
        else:
            await self._writable

    def _account(self) -> None:
        if self._unaccounted is None:
            return
        (size, taken), self._unaccounted = self._unaccounted, None
        if self.seen is not None:
            self.seen.bytes_sent += size
        if taken is not None:
            taken()
        self._ledger.touch()

    @property
    def held_back(self) -> bool:
        """Whether the peer reads slower than we write."""
        return self._writable is not None

    def close(self) -> None:
        """End with a FIN."""
        self.closing = True
        self._transport.close()

    def reset(self) -> None:
        """End with a RST."""
        self.closing = True
        linger = struct.pack("ii", 1, 0)
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._transport.abort()

    async def shut(self) -> None:
        """End now, whatever is under way, and wait for it."""
        self.closing = True
        self._transport.abort()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    # --- one request after the other ----------------------------------------------------------------------------------

    def _advance(self) -> None:
        if self._task is not None or self.closing:
            return
        try:
            request = self._parser.next()
        except MalformedRequest:
            self._transport.write(head(400, [("content-length", "0"), ("connection", "close")]))
            self.close()
            return
        if request is None:
            if self._parser.waits_for_continue:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        self._task = asyncio.get_running_loop().create_task(self._answer(request))

    async def _answer(self, request: Request) -> None:
        try:
            await self._serve(self, request)
        except Exception as failure:  # a bug of the fake itself: logged here, raised by its owner when it closes
            self._failures.append(failure)
            loop = asyncio.get_running_loop()
            loop.call_exception_handler({"message": "the fake upstream failed", "exception": failure})
            self.reset()
        finally:
            self.seen = None
            self._unaccounted = None
            self.answered += 1
            self._task = None
        if request.headers.get("connection", "").lower() == "close":
            self.close()
        self._advance()

    def _peer_gone(self) -> None:
        if self._task is None or self.closing:
            return
        if self.seen is not None and self.seen.t_peer_close is None:
            self.seen.t_peer_close = time.monotonic()
        self.closing = True
        self._task.cancel()
