"""Performs I/O: the default transport, aiohttp. Design section 14 has its price: 85 µs a call."""

from __future__ import annotations

import ssl

import aiohttp

from proxy.upstream.transports.base import ConnectFailed, ConnectionLost, ConnectTimedOut

_MAX_HEADER_BYTES = 96 * 1024  # of one line; httpx's limit is 100 kB for all of them, aiohttp's own 8 kB are too few
_READ_BUFFER = 64 * 1024  # past twice this the socket is not read: a slow client slows the provider (back-pressure)


class AiohttpAnswer:
    def __init__(self, response: aiohttp.ClientResponse, in_flight: set[object]) -> None:
        self.status = response.status
        self.headers: dict[str, str] = {}
        for name, value in response.headers.items():
            self.headers.setdefault(name.lower(), value)
        self._response = response
        self._in_flight = in_flight

    async def read(self) -> bytes:
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionLost(type(error).__name__) from error

    async def close(self) -> None:
        self._in_flight.discard(self)
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


class AiohttpTransport:
    """One connection pool; `ca_file` adds a certificate authority for its origins."""

    def __init__(self, ca_file: str | None = None) -> None:
        context = ssl.create_default_context()
        if ca_file:
            context.load_verify_locations(ca_file)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30, ttl_dns_cache=60, ssl=context)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            raise_for_status=False,
            read_bufsize=_READ_BUFFER,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
            skip_auto_headers=("user-agent",),
        )
        self._in_flight: set[object] = set()

    @property
    def active(self) -> int:
        return len(self._in_flight)

    async def send(
        self, method: str, url: str, headers: dict[str, str], body: bytes, connect_timeout_s: float
    ) -> AiohttpAnswer:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s)
        marker = object()
        self._in_flight.add(marker)
        try:
            response = await self._session.request(
                method, url, headers=headers, data=body or None, allow_redirects=False, timeout=timeout
            )
        except aiohttp.ConnectionTimeoutError as error:
            raise ConnectTimedOut(type(error).__name__) from error
        except aiohttp.ClientConnectorError as error:
            raise ConnectFailed(type(error).__name__) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ConnectionLost(type(error).__name__) from error
        finally:
            self._in_flight.discard(marker)
        answer = AiohttpAnswer(response, self._in_flight)
        self._in_flight.add(answer)
        return answer

    async def close(self) -> None:
        await self._session.close()
