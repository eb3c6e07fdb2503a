"""Performs I/O: the default transport, on aiohttp's connector: look-ups, connections, TLS.

Requests do not go through aiohttp's session. Its request and response objects, its cookie jar and the task that writes
each body cost more than the rest of an exchange, and it discards what a broken connection had delivered. Answers are
read by `answer_reader`, because aiohttp's parser makes a reader with its own buffers for each answer.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from functools import partial
from typing import cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from yarl import URL

from proxy.upstream.transports.answer_reader import AnswerReader
from proxy.upstream.transports.base import (
    LINGER_S,
    MAX_LINGERING,
    READ_BUFFER_BYTES,
    SLICE_BYTES,
    STALE_S,
    ConnectFailed,
    ConnectionLost,
    ConnectTimedOut,
    Outgoing,
    Resolve,
    encoded,
)
from proxy.upstream.transports.connector import Connector, ProxiedConnector
from proxy.upstream.transports.failures import ProxyRefused, why_lost, why_not_connected
from proxy.upstream.transports.http_proxy import ProxyAddress
from proxy.upstream.transports.idle import IdleConnections

_MAX_ROUTES = 1024  # URLs whose request line is kept; some name a model, and clients choose those
_MAX_UNREAD = 2 * READ_BUFFER_BYTES  # bytes of a body; beyond this the socket is not read
_JOINED_BYTES = 64 * 1024  # a head and a body up to this size leave in one write; a longer body is not copied


class _Protocol(ResponseHandler):
    """One connection, as aiohttp's connector wants it, with a reader of our own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.requests = 0
        self.connection: Connection | None = None  # aiohttp's handle of it
        self.reader = AnswerReader()
        self.on_end: Callable[[], None] | None = None  # called once the answer has ended
        self._news: asyncio.Future[None] | None = None
        self._is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        cast(asyncio.Transport, transport).set_protocol(_SmallReads(self))

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        if len(self.reader.body) > _MAX_UNREAD and self.transport is not None:
            self._is_paused = True
            self.transport.pause_reading()
        self._notify()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.reader.end(exc)
        self._notify()

    def hang_up(self) -> None:
        """Closes the connection without waiting for unsent data or for the other side's end of TLS."""
        if self.transport is not None:
            self.transport.abort()
        if self.connection is not None:
            self.connection.close()

    def news(self) -> asyncio.Future[None]:
        """A future that is done when something has arrived, or when nothing more will."""
        self._news = self._loop.create_future()
        return self._news

    def take(self) -> bytes:
        """The part of the body that has arrived."""
        piece = self.reader.take()
        if self._is_paused and len(self.reader.body) <= READ_BUFFER_BYTES and self.transport is not None:
            self._is_paused = False
            self.transport.resume_reading()
        return piece

    def _notify(self) -> None:
        news, self._news = self._news, None
        if news is not None and not news.done():
            news.set_result(None)
        if self.on_end is not None and self.reader.has_ended:
            self.on_end()


class _SmallReads(asyncio.BufferedProtocol):
    """Reads small pieces for the protocol behind it. uvloop hands out up to 256 kB at once, and data that a slow client
    has not read stays in memory.
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


class _Route:
    """One URL: where aiohttp's connector connects to, and the first bytes of a request.

    A `proxy` that forwards requests, because no tunnel is needed, gets the whole URL (RFC 9112, 3.2.2).
    """

    def __init__(self, url: str, proxy: ProxyAddress | None) -> None:
        """Raises ValueError."""
        parsed = URL(url)
        if parsed.scheme not in ("http", "https") or not parsed.raw_host:
            raise ValueError("not an http or https URL")
        self.request = aiohttp.ClientRequest("GET", parsed, loop=asyncio.get_running_loop())
        self.origin = self.request.connection_key
        headers, begin = {"host": self.request.headers["host"]}, ""
        if proxy is not None and parsed.scheme == "http":
            headers, begin = {**headers, **proxy.headers}, f"http://{headers['host']}"
        self.target = f" {begin}{parsed.raw_path_qs} HTTP/1.1\r\n".encode() + encoded(headers)


class AiohttpAnswer:
    def __init__(self, transport: AiohttpTransport, origin: object, protocol: _Protocol) -> None:
        self._reader = reader = protocol.reader
        self.status = reader.status
        self.headers = reader.headers
        self._transport = transport
        self._origin = origin
        self._protocol = protocol
        self._is_closed = False

    def read_nowait(self) -> bytes | None:
        if self._reader.body:
            return self._protocol.take()
        return b"" if self._reader.has_ended else None

    async def read(self) -> bytes:
        reader = self._reader
        while not reader.body:
            if reader.has_ended:
                return b""
            if reader.failure is not None:
                raise ConnectionLost(type(reader.failure).__name__) from reader.failure
            await self._protocol.news()
        return self._protocol.take()

    def close(self, *, complete: bool = False) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._transport.active -= 1
        if self._reader.has_ended:
            self._transport.keep(self._origin, self._protocol)
        elif complete and self._reader.failure is None:
            self._transport.linger(self._origin, self._protocol)
        else:
            self._protocol.hang_up()


class AiohttpTransport:
    """One pool of connections; `context` defines whom TLS trusts, `resolve` replaces the system's name look-up.

    `proxy`: the URL of an HTTP proxy that all of them go through.
    """

    def __init__(
        self, context: ssl.SSLContext | None = None, resolve: Resolve | None = None, proxy: str | None = None
    ) -> None:
        self.active = 0
        context = context or ssl.create_default_context()
        self._proxy = None if proxy is None else ProxyAddress(proxy)
        self._connector = (
            Connector(context, resolve, _Protocol)
            if self._proxy is None
            else ProxiedConnector(context, resolve, _Protocol, self._proxy)
        )
        self._loop = asyncio.get_running_loop()
        self._routes: dict[str, _Route] = {}
        self._idle: IdleConnections[_Protocol] = IdleConnections(self._loop)
        self._lingering: dict[_Protocol, asyncio.TimerHandle] = {}

    async def send(self, request: Outgoing, connect_timeout_s: float, on_sent: Callable[[], None]) -> AiohttpAnswer:
        try:
            route = self._route(request.url)
            length = f"content-length: {len(request.body)}\r\n\r\n" if request.body else "\r\n"
            head = b"".join(
                (request.method.encode(), route.target, request.fixed.lines, encoded(request.headers), length.encode())
            )
        except ValueError as error:
            raise ConnectFailed from error
        self.active += 1
        try:
            protocol = self._kept(route.origin)
            if protocol is None:
                protocol = await self._connect(route, connect_timeout_s)
            while True:  # a kept connection that turns out to be stale is replaced once
                may_be_stale = protocol.requests > 0
                begun = self._loop.time()
                try:
                    failure = await _converse(protocol, head, request.body, on_sent)
                except BaseException:
                    protocol.hang_up()
                    raise
                if failure is None:
                    return AiohttpAnswer(self, route.origin, protocol)
                protocol.hang_up()
                if not may_be_stale or protocol.reader.received or self._loop.time() - begun >= STALE_S:
                    raise ConnectionLost(why_lost(failure)) from failure
                protocol = await self._connect(route, connect_timeout_s)
        except BaseException:
            self.active -= 1
            raise

    def _kept(self, origin: object) -> _Protocol | None:
        """An idle connection. Unsolicited bytes must not become the next request's answer."""
        while (protocol := self._idle.take(origin)) is not None:
            if protocol.reader.keeps_alive:
                return protocol
            protocol.hang_up()
        return None

    async def _connect(self, route: _Route, timeout_s: float) -> _Protocol:
        """A new connection."""
        try:
            timeout = aiohttp.ClientTimeout(total=None, connect=timeout_s)
            connection = await self._connector.connect(route.request, [], timeout)
        except TimeoutError as error:
            raise ConnectTimedOut(type(error).__name__) from error
        except (aiohttp.ClientError, ProxyRefused, OSError, ValueError) as error:
            url, by_proxy = str(route.request.url), self._proxy is not None
            raise ConnectFailed(why_not_connected(error, url, by_proxy=by_proxy)) from error
        protocol = cast(_Protocol, connection.protocol)
        protocol.connection = connection
        return protocol

    def _route(self, url: str) -> _Route:
        route = self._routes.get(url)
        if route is None:
            if len(self._routes) >= _MAX_ROUTES:
                self._routes.clear()
            route = self._routes[url] = _Route(url, self._proxy)
        return route

    def keep(self, origin: object, protocol: _Protocol) -> None:
        """Keeps the connection for the next request, unless the server forbids it or the last one is partly unsent."""
        transport = protocol.transport
        if transport is None or not protocol.reader.keeps_alive or transport.get_write_buffer_size():
            protocol.hang_up()
        else:
            self._idle.put(origin, protocol)

    def linger(self, origin: object, protocol: _Protocol) -> None:
        """Keeps the connection if the end of its answer comes within LINGER_S."""
        if len(self._lingering) >= MAX_LINGERING:
            protocol.hang_up()
            return
        timer = self._loop.call_later(LINGER_S, self._end_linger, protocol, protocol.hang_up)
        self._lingering[protocol] = timer
        protocol.on_end = partial(self._end_linger, protocol, partial(self.keep, origin, protocol))

    def _end_linger(self, protocol: _Protocol, then: Callable[[], None]) -> None:
        protocol.on_end = None
        timer = self._lingering.pop(protocol, None)
        if timer is not None:
            timer.cancel()
            then()

    async def close(self) -> None:
        for protocol in list(self._lingering):
            self._end_linger(protocol, protocol.hang_up)
        self._idle.close()
        await self._connector.close()


async def _converse(protocol: _Protocol, head: bytes, body: bytes, on_sent: Callable[[], None]) -> BaseException | None:
    """Sends a request, and waits for the head of its answer. Returns why none will come."""
    reader, transport = protocol.reader, protocol.transport
    protocol.requests += 1
    reader.expect()
    if transport is None or transport.is_closing():
        return aiohttp.ServerDisconnectedError()
    on_sent()
    if len(body) <= _JOINED_BYTES:
        transport.write(head + body)
    else:
        transport.write(head)
        await _write_slices(transport, memoryview(body))
    while not reader.status and reader.failure is None:
        await protocol.news()
    return None if reader.status else reader.failure


async def _write_slices(transport: asyncio.WriteTransport, body: memoryview) -> None:
    """Writes a large body."""
    for at in range(0, len(body), SLICE_BYTES):
        if at:
            await asyncio.sleep(0)
        if transport.is_closing():
            return
        transport.write(body[at : at + SLICE_BYTES])
