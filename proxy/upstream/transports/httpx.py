"""Performs I/O: the second transport, httpx, for those who need its TLS behaviour; the same contract as aiohttp's.

All httpx code runs in tasks of its own: if cancelled during its clean-up it leaks the connection, and a cancelled read
cannot be resumed (both seen with httpcore 1.0.9, November 2026).
"""

from __future__ import annotations

# ruff: noqa: ASYNC109 - methods that override those of httpcore take a `timeout`.
import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import suppress
from contextvars import ContextVar
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpcore
import httpx

from proxy.upstream.transports.base import (
    LINGER_S,
    MAX_LINGERING,
    MAX_PIECE_BYTES,
    SLICE_BYTES,
    SOCKET_BUFFER_BYTES,
    STALE_S,
    ConnectFailed,
    ConnectionLost,
    ConnectTimedOut,
    HeaderBlock,
    Outgoing,
    Resolve,
)
from proxy.upstream.transports.failures import ProxyRefused, why_lost, why_not_connected
from proxy.upstream.transports.http_proxy import ProxyAddress

_FAILURES = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError)
_NEXT_ADDRESS_S = 1.0  # without a connection to one address of a name, the next one is tried
_SOCKET_OPTIONS = [
    (socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
]


class _Sending:
    """The network's view of one request until its answer's headers arrive."""

    def __init__(self, on_sent: Callable[[], None]) -> None:
        self.connected = False  # a connection was made for it
        self.sent = False
        self.received = 0
        self._on_sent = on_sent

    def note_write(self) -> None:
        if not self.sent:
            self.sent = True
            self._on_sent()


_sending: ContextVar[_Sending | None] = ContextVar("sending", default=None)  # in the task that runs `client.send`


class _Stream(httpcore.AsyncNetworkStream):
    """A connection that reports its traffic to the request it carries. TLS must be up by the loop time `connect_by`."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, connect_by: float | None = None) -> None:
        self._stream = stream
        self._connect_by = connect_by

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._stream.read(max_bytes, timeout)
        if (sending := _sending.get()) is not None:
            sending.received += len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if buffer and (sending := _sending.get()) is not None and not buffer.startswith(b"CONNECT "):  # to a proxy
            sending.note_write()
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        if self._connect_by is not None:
            timeout = max(self._connect_by - asyncio.get_running_loop().time(), 0.001)
        return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Network(httpcore.AsyncNetworkBackend):
    """httpcore's network, with a replaceable name look-up."""

    def __init__(self, resolve: Resolve | None) -> None:
        self._network = httpcore.AnyIOBackend()
        self._resolve = resolve

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        if (sending := _sending.get()) is not None:
            sending.connected = True
        by = None if timeout is None else asyncio.get_running_loop().time() + timeout
        try:
            async with asyncio.timeout_at(by):
                if self._resolve is None or _is_address(host):
                    addresses = [host]
                else:
                    addresses = await self._resolve(host, port)
                return _Stream(await self._connected(addresses, port, local_address, socket_options), by)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout from error
        except OSError as error:
            raise httpcore.ConnectError from error

    async def _connected(
        self, addresses: list[str], port: int, local_address: str | None, socket_options: Iterable[Any] | None
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first address that accepts one. Only the last may use up the time."""
        options = list(socket_options or ())
        for address in addresses[:-1]:
            with suppress(OSError, httpcore.ConnectError):
                async with asyncio.timeout(_NEXT_ADDRESS_S):
                    return await self._network.connect_tcp(address, port, None, local_address, options)
        return await self._network.connect_tcp(addresses[-1], port, None, local_address, options)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class _InFlight:
    """The requests of one transport that are in flight, and the tasks that serve or end them."""

    def __init__(self) -> None:
        self.requests: set[object] = set()
        self.lingering = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def ended(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)


class HttpxAnswer:
    def __init__(self, response: httpx.Response, in_flight: _InFlight) -> None:
        self.status = response.status_code
        self.headers: dict[str, str] = {}
        for name, value in response.headers.multi_items():
            self.headers.setdefault(name, value)
        self._response = response
        self._pieces: AsyncIterator[bytes] = response.aiter_raw()
        self._held = b""
        self._in_flight = in_flight
        self._reading: asyncio.Task[bytes] | None = None
        in_flight.requests.add(self)

    def read_nowait(self) -> bytes | None:
        return None  # httpx does not buffer arrived data

    async def read(self) -> bytes:
        if not self._held:
            if self._reading is None:
                self._reading = self._in_flight.start(self._next())
            try:
                self._held = await asyncio.shield(self._reading)
            except _FAILURES as error:
                raise ConnectionLost(type(error).__name__) from error
            self._reading = None
        piece, self._held = self._held[:MAX_PIECE_BYTES], self._held[MAX_PIECE_BYTES:]
        return piece

    def close(self, *, complete: bool = False) -> None:
        if self not in self._in_flight.requests:
            return
        self._in_flight.requests.discard(self)
        if complete and not self._response.is_closed and self._in_flight.lingering < MAX_LINGERING:
            self._in_flight.start(self._linger())
        else:
            self._in_flight.start(self._end())

    async def _next(self) -> bytes:
        return await anext(self._pieces, b"")

    async def _linger(self) -> None:
        """Reads on to the end of the answer, for at most LINGER_S."""
        self._in_flight.lingering += 1
        try:
            with suppress(TimeoutError, ConnectionLost):
                async with asyncio.timeout(LINGER_S):
                    while await self.read():
                        continue
        finally:
            self._in_flight.lingering -= 1
            await self._end()

    async def _end(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        with suppress(*_FAILURES):
            await self._response.aclose()


class HttpxTransport:
    """One pool of connections; `context` defines whom TLS trusts, `resolve` replaces the system's name look-up.

    `proxy`: the URL of an HTTP proxy that all of them go through.
    """

    def __init__(
        self, context: ssl.SSLContext | None = None, resolve: Resolve | None = None, proxy: str | None = None
    ) -> None:
        self._context = context or ssl.create_default_context()
        self._proxy = None if proxy is None else ProxyAddress(proxy)
        self._resolve = resolve
        self._client = self._new_client(kept=100)
        self._unpooled: httpx.AsyncClient | None = None  # for requests that a stale connection did not deliver
        self._in_flight = _InFlight()

    def _new_client(self, *, kept: int) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=kept, keepalive_expiry=30)
        transport = httpx.AsyncHTTPTransport(verify=self._context, trust_env=False, limits=limits)
        # httpx has no argument for the network under its pool (0.28).
        options: dict[str, Any] = {
            "ssl_context": self._context,
            "max_connections": None,
            "max_keepalive_connections": kept,
            "keepalive_expiry": 30,
            "socket_options": _SOCKET_OPTIONS,
            "network_backend": _Network(self._resolve),
        }
        if self._proxy is None:
            transport._pool = httpcore.AsyncConnectionPool(**options)
        else:
            headers = [*self._proxy.headers.items()]
            transport._pool = httpcore.AsyncHTTPProxy(self._proxy.url, proxy_headers=headers, **options)
        return httpx.AsyncClient(
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )

    @property
    def active(self) -> int:
        return len(self._in_flight.requests)

    async def send(self, request: Outgoing, connect_timeout_s: float, on_sent: Callable[[], None]) -> HttpxAnswer:
        marker = object()
        self._in_flight.requests.add(marker)
        sending = _Sending(on_sent)
        begun = asyncio.get_running_loop().time()
        try:
            built = self._built(request, connect_timeout_s)
            try:
                response = await self._sent(self._client, built, sending)
            except _FAILURES:
                is_late = asyncio.get_running_loop().time() - begun >= STALE_S
                if sending.connected or sending.received or is_late or not sending.sent:
                    raise
                self._unpooled = self._unpooled or self._new_client(kept=0)
                response = await self._sent(self._unpooled, self._built(request, connect_timeout_s), _Sending(on_sent))
        except httpx.ConnectTimeout as error:
            raise ConnectTimedOut(type(error).__name__) from error
        except (httpx.ConnectError, httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError) as error:
            raise self._failed(error, request.url) from error
        except httpx.ProxyError as error:
            status = re.match(r"\d{3}\b", str(error))
            raise self._failed(ProxyRefused(int(status[0]) if status else 0), request.url) from error
        except _FAILURES as error:
            if self._proxy is not None and not sending.sent:
                raise self._failed(ProxyRefused(0), request.url) from error
            raise ConnectionLost(why_lost(error)) from error
        finally:
            self._in_flight.requests.discard(marker)
        return HttpxAnswer(response, self._in_flight)

    def _failed(self, error: Exception, url: str) -> ConnectFailed:
        return ConnectFailed(why_not_connected(error, url, by_proxy=self._proxy is not None))

    def _built(self, request: Outgoing, connect_timeout_s: float) -> httpx.Request:
        """Raises ValueError."""
        body = request.body
        length = {"content-length": str(len(body))} if body else {}
        return self._client.build_request(
            request.method,
            request.url,
            headers=[*request.fixed.pairs, *HeaderBlock({**request.headers, **length}).pairs],
            content=body if len(body) <= SLICE_BYTES else _slices(body),
            timeout=httpx.Timeout(None, connect=connect_timeout_s),
        )

    async def _sent(self, client: httpx.AsyncClient, request: httpx.Request, sending: _Sending) -> httpx.Response:
        task: asyncio.Task[httpx.Response] = self._in_flight.start(_send(client, request, sending))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            self._in_flight.start(_discard(task))
            raise

    async def close(self) -> None:
        await self._in_flight.ended()
        await self._client.aclose()
        if self._unpooled is not None:
            await self._unpooled.aclose()


async def _send(client: httpx.AsyncClient, request: httpx.Request, sending: _Sending) -> httpx.Response:
    _sending.set(sending)
    return await client.send(request, stream=True)


async def _slices(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), SLICE_BYTES):
        yield body[at : at + SLICE_BYTES]
        await asyncio.sleep(0)


async def _discard(task: asyncio.Task[httpx.Response]) -> None:
    """Closes an answer that arrived while its request was cancelled."""
    with suppress(asyncio.CancelledError, *_FAILURES):
        await (await task).aclose()
