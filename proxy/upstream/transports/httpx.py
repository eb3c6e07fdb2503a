"""Performs I/O: the second transport, httpx, for who needs its TLS or proxy behaviour; same contract as aiohttp's.

What httpx does runs in tasks of its own: cancelled in the middle of its clean-up it leaks the connection, and a read
that was cancelled cannot be taken up again (both seen with httpcore 1.0.9, November 2026).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx

from proxy.upstream.transports.base import ConnectFailed, ConnectionLost, ConnectTimedOut

_FAILURES = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError)


class _InFlight:
    """What of one transport is under way: requests, and the tasks that serve or end them."""

    def __init__(self) -> None:
        self.requests: set[object] = set()
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
        self._in_flight = in_flight
        self._reading: asyncio.Task[bytes] | None = None
        in_flight.requests.add(self)

    async def read(self) -> bytes:
        if self._reading is None:
            self._reading = self._in_flight.start(self._next())
        try:
            piece = await asyncio.shield(self._reading)
        except _FAILURES as error:
            raise ConnectionLost(type(error).__name__) from error
        self._reading = None
        return piece

    async def close(self) -> None:
        if self in self._in_flight.requests:
            self._in_flight.requests.discard(self)
            self._in_flight.start(self._end())

    async def _next(self) -> bytes:
        return await anext(self._pieces, b"")

    async def _end(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        with suppress(*_FAILURES):
            await self._response.aclose()


class HttpxTransport:
    """One connection pool; `ca_file` adds a certificate authority for its origins."""

    def __init__(self, ca_file: str | None = None) -> None:
        context = ssl.create_default_context()
        if ca_file:
            context.load_verify_locations(ca_file)
        self._client = httpx.AsyncClient(
            verify=context,
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=30),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )
        self._in_flight = _InFlight()

    @property
    def active(self) -> int:
        return len(self._in_flight.requests)

    async def send(
        self, method: str, url: str, headers: dict[str, str], body: bytes, connect_timeout_s: float
    ) -> HttpxAnswer:
        timeout = httpx.Timeout(None, connect=connect_timeout_s)
        marker = object()
        self._in_flight.requests.add(marker)
        try:
            request = self._client.build_request(method, url, headers=headers, content=body, timeout=timeout)
            response = await self._sent(request)
        except httpx.ConnectTimeout as error:
            raise ConnectTimedOut(type(error).__name__) from error
        except httpx.ConnectError as error:
            raise ConnectFailed(type(error).__name__) from error
        except _FAILURES as error:
            raise ConnectionLost(type(error).__name__) from error
        finally:
            self._in_flight.requests.discard(marker)
        return HttpxAnswer(response, self._in_flight)

    async def _sent(self, request: httpx.Request) -> httpx.Response:
        sending: asyncio.Task[httpx.Response] = self._in_flight.start(self._client.send(request, stream=True))
        try:
            return await asyncio.shield(sending)
        except asyncio.CancelledError:
            sending.cancel()
            self._in_flight.start(_discard(sending))
            raise

    async def close(self) -> None:
        await self._in_flight.ended()
        await self._client.aclose()


async def _discard(sending: asyncio.Task[httpx.Response]) -> None:
    """Closes an answer that arrived while its request was cancelled."""
    with suppress(asyncio.CancelledError, *_FAILURES):
        await (await sending).aclose()
