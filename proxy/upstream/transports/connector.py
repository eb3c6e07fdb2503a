"""Performs I/O: makes connections with aiohttp's connector: look-ups, TLS, and tunnels through an HTTP proxy."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from proxy.upstream.transports.answer_reader import AnswerReader
from proxy.upstream.transports.base import SOCKET_BUFFER_BYTES, Resolve
from proxy.upstream.transports.failures import ProxyRefused
from proxy.upstream.transports.http_proxy import ProxyAddress


class Reading(Protocol):
    """The part of a connection's protocol that the tunnel needs."""

    reader: AnswerReader

    def news(self) -> asyncio.Future[None]: ...
    def hang_up(self) -> None: ...


class Connector(aiohttp.TCPConnector):
    """`new_protocol` makes the protocol of each connection."""

    def __init__(
        self, context: ssl.SSLContext, resolve: Resolve | None, new_protocol: Callable[..., ResponseHandler]
    ) -> None:
        super().__init__(
            limit=0,
            ttl_dns_cache=60,
            ssl=context,
            resolver=None if resolve is None else _Resolver(resolve),
            socket_factory=_new_socket,
        )
        self._factory = cast(Any, partial(new_protocol, loop=self._loop))  # aiohttp offers no other way (3.14)


class ProxiedConnector(Connector):
    """Every connection goes through one HTTP proxy: to https origins by a tunnel, to others directly.

    aiohttp's own way of doing so reads the proxy's answer with its parser, which our protocol replaces.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        resolve: Resolve | None,
        new_protocol: Callable[..., ResponseHandler],
        proxy: ProxyAddress,
    ) -> None:
        super().__init__(context, resolve, new_protocol)
        self._proxy = proxy
        self._to_proxy = aiohttp.ClientRequest("GET", URL(proxy.url), loop=self._loop)

    async def _create_direct_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: Any,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's
        **_: Any,
    ) -> Any:
        transport, protocol = await super()._create_direct_connection(self._to_proxy, traces, timeout)
        if not req.is_ssl():
            return transport, protocol
        reading = cast(Reading, protocol)
        try:
            await self._open_tunnel(transport, reading, req.url)
        except BaseException:
            reading.hang_up()
            raise
        return await self._start_tls_connection(transport, req=req, timeout=timeout)

    async def _open_tunnel(self, transport: asyncio.Transport, protocol: Reading, url: URL) -> None:
        reader = protocol.reader
        reader.expect()
        authority = f"{url.host_subcomponent}:{url.port}"
        lines = [f"CONNECT {authority} HTTP/1.1", f"host: {authority}"]
        lines += [f"{name}: {value}" for name, value in self._proxy.headers.items()]
        transport.write("\r\n".join((*lines, "", "")).encode())
        while not reader.status and reader.failure is None:
            await protocol.news()
        if not 200 <= reader.status < 300:
            raise ProxyRefused(reader.status)


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


def _new_socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
    made.setblocking(False)
    return made
