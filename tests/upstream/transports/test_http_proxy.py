"""Calls through an HTTP proxy, on real sockets: tunnels to https origins, absolute requests to others."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.upstream.transports.aiohttp import AiohttpTransport
from proxy.upstream.transports.base import ConnectFailed, HeaderBlock, Outgoing, Transport
from proxy.upstream.transports.httpx import HttpxTransport
from tests.certificates import authority, server
from tests.upstream import refusing
from tests.upstream.transports.middle import http_proxy, listening, origin

KINDS = pytest.mark.parametrize("kind", [AiohttpTransport, HttpxTransport], ids=["aiohttp", "httpx"])
FIXED = HeaderBlock({"accept-encoding": "identity", "authorization": "Bearer key-of-the-provider"})
PATIENT_S = 20.0


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=authority("Known").certificate.decode())
    return context


def shown(folder: Path) -> ssl.SSLContext:
    """Of an origin that is `models.example`."""
    return server("models.example", "Known").server_context(folder)


async def ask(transport: Transport, url: str, notes: list[str] | None = None) -> bytes:
    sent = (lambda: None) if notes is None else (lambda: notes.append("sent"))
    answer = await transport.send(Outgoing("POST", url, FIXED, {"x-own": "1"}, b'{"a":1}'), PATIENT_S, sent)
    body = b""
    while piece := await answer.read():
        body += piece
    answer.close()
    return body


async def no_names(host: str, port: int) -> list[str]:
    """The proxy looks names up, not we."""
    raise AssertionError(f"{host} was looked up")


@KINDS
async def test_an_https_origin_is_reached_by_a_tunnel(kind: Callable[..., Transport], tmp_path: Path) -> None:
    """The proxy learns host and port, and sees neither key nor body. A connection is kept for the next request."""
    with origin(shown(tmp_path)) as (port, heads), http_proxy() as middle:
        transport, notes = kind(trusting(), no_names, middle.host("me:s%40cret@")), list[str]()
        url = f"https://models.example:{port}/v1/chat/completions?a=b"
        assert [await ask(transport, url, notes) for _ in range(2)] == [b"1", b"2"]
        await transport.close()
    assert notes == ["sent", "sent"]
    (head,) = middle.heads
    assert head.startswith(f"CONNECT models.example:{port} HTTP/1.1\r\n")
    token = base64.b64encode(b"me:s@cret").decode()
    assert f"proxy-authorization: basic {token}".lower() in head.lower()
    assert "key-of-the-provider" not in head
    assert middle.through[0][:2] == b"\x16\x03"
    assert [each.split(" HTTP/1.1")[0] for each in heads] == ["POST /v1/chat/completions?a=b"] * 2
    assert "proxy-authorization" not in "".join(heads).lower()


@KINDS
async def test_an_http_origin_is_asked_for_in_absolute_form(kind: Callable[..., Transport]) -> None:
    """As proxies expect it (RFC 9112, 3.2.2)."""
    with origin() as (port, heads), http_proxy() as middle:
        transport = kind(None, no_names, middle.host("me:secret@"))
        assert await ask(transport, f"http://models.example:{port}/v1/x?a=b") == b"1"
        await transport.close()
    (head,) = middle.heads
    assert head.startswith(f"POST http://models.example:{port}/v1/x?a=b HTTP/1.1\r\n")
    assert "proxy-authorization: basic" in head.lower()
    assert "Bearer key-of-the-provider" in heads[0]


@KINDS
@pytest.mark.parametrize(
    ("status", "said"),
    [
        (407, "(407)"),
        (403, "(403)"),
        (502, "(502)"),
        (405, "opens no tunnels"),
        (0, "HTTP proxy closed the connection"),
    ],
)
async def test_a_tunnel_that_is_refused_is_connect_failed(
    kind: Callable[..., Transport], status: int, said: str
) -> None:
    """Nothing was sent, and the reason names the proxy and no secret."""
    with http_proxy(refuses=status) as middle:
        transport, notes = kind(None, no_names, middle.host("me:secret@")), list[str]()
        with pytest.raises(ConnectFailed) as failed:
            await ask(transport, "https://models.example/v1", notes)
        await transport.close()
    assert said in str(failed.value)
    assert "secret" not in str(failed.value)
    assert notes == []


@KINDS
async def test_a_proxy_that_is_down_is_named(kind: Callable[..., Transport]) -> None:
    """Not the provider behind it; a wrong certificate is the provider's all the same."""
    with refusing() as url:
        for origin_url in ("https://models.example/v1", "http://models.example/v1"):
            transport = kind(None, no_names, url.removesuffix("/v1"))
            with pytest.raises(ConnectFailed, match="its HTTP proxy refused the connection"):
                await ask(transport, origin_url)
            await transport.close()


@KINDS
async def test_a_certificate_behind_the_tunnel_is_checked(kind: Callable[..., Transport], tmp_path: Path) -> None:
    """The name is the origin's."""
    with origin(shown(tmp_path)) as (port, heads), http_proxy() as middle:
        transport = kind(trusting(), no_names, middle.url)
        with pytest.raises(ConnectFailed, match="its certificate is for another host name"):
            await ask(transport, f"https://else.example:{port}/v1")
        await transport.close()
    assert heads == []


@KINDS
async def test_a_cancelled_request_leaves_no_tunnel(kind: Callable[..., Transport]) -> None:
    """While the proxy has not answered yet."""
    reached, closed = threading.Event(), threading.Event()

    def handle(sock: socket.socket) -> None:
        sock.recv(65536)
        reached.set()
        assert sock.recv(1) == b""
        closed.set()

    with listening(handle) as port:
        transport = kind(None, no_names, f"http://127.0.0.1:{port}")
        task = asyncio.create_task(ask(transport, "https://models.example/v1"))
        assert await asyncio.to_thread(reached.wait, PATIENT_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await asyncio.to_thread(closed.wait, PATIENT_S)
        assert transport.active == 0
        await transport.close()
