"""Performs I/O: the default transport, on aiohttp's connector (look-ups, connections, TLS) and its parser in C.

Requests do not go through aiohttp's session. Its request and response objects, its cookie jar and the task that writes
each body cost more than the rest of an exchange, and it throws away what a broken connection had delivered.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError
from yarl import URL

from proxy.upstream.transports.base import (
    LINGER_S,
    MAX_LINGERING,
    MAX_PIECE_BYTES,
    READ_BUFFER_BYTES,
    SLICE_BYTES,
    SOCKET_BUFFER_BYTES,
    STALE_S,
    ConnectFailed,
    ConnectionLost,
    ConnectTimedOut,
    Outgoing,
    Resolve,
    encoded,
)
from proxy.upstream.transports.idle import IdleConnections, hang_up

_MAX_HEADER_BYTES = 96 * 1024  # of one line; httpx's limit is 100 kB for all of them, aiohttp's own 8 kB are too few
_MAX_INTERIM = 32  # 1xx answers before the real one
_MAX_ROUTES = 1024  # URLs whose request line is kept; some name a model, and clients choose those
_JOINED_BYTES = 64 * 1024  # a head and a body up to this leave in one write; a longer body is not copied
_FAILURES = (aiohttp.ClientError, aiohttp.EofStream, HttpProcessingError, OSError, RuntimeError)


class _Protocol(ResponseHandler):
    """One connection. It counts its requests, and the bytes that came since the last one was sent or done."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.requests = 0
        self.received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        cast(asyncio.Transport, transport).set_protocol(_SmallReads(self))

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        super().data_received(data)


class _SmallReads(asyncio.BufferedProtocol):
    """Reads little at a time for the protocol behind it. uvloop hands out up to 256 kB at once, and aiohttp keeps what
    its parser has not taken until a slow client has read as far.
    """

    _buffer = memoryview(bytearray(READ_BUFFER_BYTES))  # shared by all connections: used up within each call

    def __init__(self, protocol: _Protocol) -> None:
        self._protocol = protocol
        self.connection_lost = protocol.connection_lost  # type: ignore[method-assign]
        self.eof_received = protocol.eof_received  # type: ignore[method-assign]
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._protocol.data_received(bytes(self._buffer[:nbytes]))


class _Connector(aiohttp.TCPConnector):
    def __init__(self, context: ssl.SSLContext, resolve: Resolve | None) -> None:
        super().__init__(
            limit=0,
            ttl_dns_cache=60,
            ssl=context,
            resolver=None if resolve is None else _Resolver(resolve),
            socket_factory=_new_socket,
        )
        self._factory = cast(Any, partial(_Protocol, loop=self._loop))  # aiohttp has no other way to say it (3.14)


class _Resolver(AbstractResolver):
    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        addresses = await self._resolve(host, port)
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in addresses
        ]

    async def close(self) -> None:
        return


class _Route:
    """One URL: where aiohttp's connector connects to, and the first bytes of a request."""

    def __init__(self, url: str) -> None:
        """Raises ValueError."""
        parsed = URL(url)
        if parsed.scheme not in ("http", "https") or not parsed.raw_host:
            raise ValueError("not an http or https URL")
        self.request = aiohttp.ClientRequest("GET", parsed, loop=asyncio.get_running_loop())
        self.origin = self.request.connection_key
        self.target = f" {parsed.raw_path_qs} HTTP/1.1\r\n".encode() + encoded({"host": self.request.headers["host"]})


class AiohttpAnswer:
    def __init__(
        self,
        transport: AiohttpTransport,
        origin: object,
        connection: Connection,
        message: Any,
        content: aiohttp.StreamReader,
    ) -> None:
        self.status: int = message.code
        self.headers: dict[str, str] = {}
        for name, value in message.headers.items():
            self.headers.setdefault(name.lower(), value)
        self._transport = transport
        self._origin = origin
        self._connection: Connection | None = connection
        self._content = content
        self._failure: BaseException | None = None

    def read_nowait(self) -> bytes | None:
        content = self._content
        if self._failure is not None or content.exception() is not None:
            return None  # `read` raises it
        piece = content.read_nowait(MAX_PIECE_BYTES)
        return piece if piece or content.at_eof() else None

    async def read(self) -> bytes:
        content = self._content
        if self._failure is None:
            self._failure = content.exception()
            if self._failure is None:
                try:
                    return await content.read(MAX_PIECE_BYTES)
                except _FAILURES as error:
                    self._failure = error
            # aiohttp hands out nothing after a failure; what had arrived before it is still in the buffer.
            content.set_exception(cast(Any, None))
        piece = content.read_nowait(MAX_PIECE_BYTES)
        if not piece:
            raise ConnectionLost(type(self._failure).__name__) from self._failure
        return piece

    def close(self, *, complete: bool = False) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self._transport.active -= 1
        if self._content.is_eof() and self._failure is None:
            self._transport.keep(self._origin, connection)
        elif complete and self._failure is None:
            self._transport.linger(self._origin, connection, self._content)
        else:
            hang_up(connection)


class AiohttpTransport:
    """One pool of connections; `context` says whom TLS trusts, `resolve` replaces the system's look-up of names."""

    def __init__(self, context: ssl.SSLContext | None = None, resolve: Resolve | None = None) -> None:
        self.active = 0
        self._connector = _Connector(context or ssl.create_default_context(), resolve)
        self._loop = asyncio.get_running_loop()
        self._routes: dict[str, _Route] = {}
        self._idle = IdleConnections(self._loop)
        self._lingering: dict[Connection, asyncio.TimerHandle] = {}

    async def send(self, request: Outgoing, connect_timeout_s: float, on_sent: Callable[[], None]) -> AiohttpAnswer:
        try:
            route = self._route(request.url)
            length = f"content-length: {len(request.body)}\r\n\r\n" if request.body else "\r\n"
            head = b"".join(
                (request.method.encode(), route.target, request.fixed.lines, encoded(request.headers), length.encode())
            )
        except ValueError as error:
            raise ConnectFailed(type(error).__name__) from error
        self.active += 1
        try:
            connection = self._kept(route.origin) or await self._connect(route, connect_timeout_s)
            while True:  # a kept connection that turns out to be stale is replaced once
                protocol = cast(_Protocol, connection.protocol)
                may_be_stale = protocol.requests > 0
                begun = self._loop.time()
                try:
                    message, content = await _converse(protocol, (head, request.body), on_sent)
                except _FAILURES as error:
                    hang_up(connection)
                    if may_be_stale and protocol.received == 0 and self._loop.time() - begun < STALE_S:
                        connection = await self._connect(route, connect_timeout_s)
                        continue
                    raise ConnectionLost(type(error).__name__) from error
                except BaseException:
                    hang_up(connection)
                    raise
                return AiohttpAnswer(self, route.origin, connection, message, content)
        except BaseException:
            self.active -= 1
            raise

    def _kept(self, origin: object) -> Connection | None:
        """An idle connection. Bytes that nobody asked for must not become the next request's answer."""
        while (connection := self._idle.take(origin)) is not None:
            if not cast(_Protocol, connection.protocol).received:
                return connection
            hang_up(connection)
        return None

    async def _connect(self, route: _Route, timeout_s: float) -> Connection:
        """A new connection."""
        try:
            timeout = aiohttp.ClientTimeout(total=None, connect=timeout_s)
            return await self._connector.connect(route.request, [], timeout)
        except TimeoutError as error:
            raise ConnectTimedOut(type(error).__name__) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ConnectFailed(type(error).__name__) from error

    def _route(self, url: str) -> _Route:
        route = self._routes.get(url)
        if route is None:
            if len(self._routes) >= _MAX_ROUTES:
                self._routes.clear()
            route = self._routes[url] = _Route(url)
        return route

    def keep(self, origin: object, connection: Connection) -> None:
        """For the next request, unless the server said otherwise, or a part of the last one has still not left."""
        protocol = cast(_Protocol, connection.protocol)
        transport = protocol.transport
        if transport is None or protocol.should_close or transport.get_write_buffer_size():
            hang_up(connection)
            return
        protocol.received = 0
        self._idle.put(origin, connection)

    def linger(self, origin: object, connection: Connection, content: aiohttp.StreamReader) -> None:
        """Keeps the connection if the end of its answer comes within LINGER_S."""
        if len(self._lingering) >= MAX_LINGERING:
            hang_up(connection)
            return
        self._lingering[connection] = self._loop.call_later(LINGER_S, self._end_linger, connection, hang_up)
        content.on_eof(partial(self._end_linger, connection, partial(self.keep, origin)))

    def _end_linger(self, connection: Connection, then: Callable[[Connection], None]) -> None:
        timer = self._lingering.pop(connection, None)
        if timer is not None:
            timer.cancel()
            then(connection)

    async def close(self) -> None:
        for connection in list(self._lingering):
            self._end_linger(connection, hang_up)
        self._idle.close()
        await self._connector.close()


async def _converse(
    protocol: _Protocol, data: tuple[bytes, bytes], on_sent: Callable[[], None]
) -> tuple[Any, aiohttp.StreamReader]:
    """Sends a request's head and body, and returns the head of its answer and a reader of its body."""
    protocol.set_response_params(
        read_until_eof=True,
        auto_decompress=False,
        read_bufsize=READ_BUFFER_BYTES,
        max_line_size=_MAX_HEADER_BYTES,
        max_field_size=_MAX_HEADER_BYTES,
    )
    protocol.requests += 1
    protocol.received = 0
    transport = protocol.transport
    if transport is None:
        raise aiohttp.ServerDisconnectedError
    on_sent()
    head, body = data
    if len(body) <= _JOINED_BYTES:
        transport.write(head + body)
    else:
        transport.write(head)
        await _write_slices(transport, memoryview(body))
    for _ in range(_MAX_INTERIM):
        message, content = await protocol.read()
        if message.code >= 200 or message.code == 101:
            return message, content
    raise aiohttp.ClientPayloadError("too many interim answers")


async def _write_slices(transport: asyncio.WriteTransport, body: memoryview) -> None:
    """Writes a large body."""
    for at in range(0, len(body), SLICE_BYTES):
        if at:
            await asyncio.sleep(0)
        if transport.is_closing():
            return
        transport.write(body[at : at + SLICE_BYTES])


def _new_socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
    made.setblocking(False)
    return made
