"""Performs I/O: the second transport, httpx, for who needs its TLS or proxy behaviour; same contract as aiohttp's."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator

import httpx

from proxy.transports.base import ConnectFailed, ConnectionLost, ConnectTimedOut


class HttpxAnswer:
    def __init__(self, response: httpx.Response, in_flight: set[object]) -> None:
        self.status = response.status_code
        self.headers: dict[str, str] = {}
        for name, value in response.headers.multi_items():
            self.headers.setdefault(name, value)
        self._response = response
        self._pieces: AsyncIterator[bytes] = response.aiter_raw()
        self._in_flight = in_flight

    async def read(self) -> bytes:
        try:
            return await anext(self._pieces, b"")
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            raise ConnectionLost(type(error).__name__) from error

    async def close(self) -> None:
        self._in_flight.discard(self)
        await self._response.aclose()


class HttpxTransport:
    """One connection pool; `ca_file` adds a certificate authority for its origins."""

    def __init__(self, ca_file: str | None = None) -> None:
        context = ssl.create_default_context()
        if ca_file:
            context.load_verify_locations(ca_file)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=30)
        self._client = httpx.AsyncClient(verify=context, trust_env=False, follow_redirects=False, limits=limits)
        self._in_flight: set[object] = set()

    @property
    def active(self) -> int:
        return len(self._in_flight)

    async def send(
        self, method: str, url: str, headers: dict[str, str], body: bytes, connect_timeout_s: float
    ) -> HttpxAnswer:
        timeout = httpx.Timeout(None, connect=connect_timeout_s)
        marker = object()
        self._in_flight.add(marker)
        try:
            request = self._client.build_request(method, url, headers=headers, content=body, timeout=timeout)
            response = await self._client.send(request, stream=True)
        except httpx.ConnectTimeout as error:
            raise ConnectTimedOut(type(error).__name__) from error
        except httpx.ConnectError as error:
            raise ConnectFailed(type(error).__name__) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise ConnectionLost(type(error).__name__) from error
        finally:
            self._in_flight.discard(marker)
        answer = HttpxAnswer(response, self._in_flight)
        self._in_flight.add(answer)
        return answer

    async def close(self) -> None:
        await self._client.aclose()
