"""What old and careful clients send: HEAD where GET is served, HTTP/1.0, an upgrade that is not taken; raw bytes."""

from __future__ import annotations

import asyncio
import json

import pytest

from proxy.server.api.openapi import operations
from tests.server.api.raw import CHAT, Answer, chat, request, send
from tests.serving import Server
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"


def routes(server: Server) -> list[str]:
    """The paths that GET is served at, with an example for each parameter."""
    found = operations(server._application.litestar.routes)
    return sorted({path for path, method, _ in found if method == "GET" and "{" not in path})


async def test_head_is_served_where_get_is(server: Server, upstream: FakeUpstream) -> None:
    """With the same status and kind, and without a body."""
    paths = [*routes(server), "/v1/models/fake/ok", "/v1/requests/none", "/nowhere"]
    assert {"/livez", "/readyz", "/health", "/metrics", "/v1/models", "/v1/usage", "/v1/requests"} <= set(paths)
    for path in paths:
        get, head = [await send(server.port, request(method=method, path=path)) for method in ("GET", "HEAD")]
        assert (head.status, head.body) == (get.status, b""), path
        assert head.headers("content-type") == get.headers("content-type"), path
        if path not in ("/metrics", "/health"):  # they count
            assert head.headers("content-length") == get.headers("content-length"), path
    assert (await send(server.port, request(method="HEAD", path=CHAT))).status == 405


@pytest.mark.parametrize("connection", ["", "Connection: keep-alive\r\n", "Connection: close\r\n"])
@pytest.mark.parametrize("stream", [False, True])
async def test_http_1_0_gets_what_it_can_read(
    server: Server, upstream: FakeUpstream, connection: str, stream: bool
) -> None:
    """No chunks; the end of the connection is the end of a stream."""
    body = chat(stream=stream)
    head = f"POST {CHAT} HTTP/1.0\r\nHost: localhost\r\n{connection}Content-Type: application/json\r\n"
    answer = await send(server.port, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert answer.status == 200
    assert answer.headers("transfer-encoding") == []
    assert answer.headers("connection") == ["close"]
    if stream:
        assert answer.headers("content-length") == []
        assert answer.body.endswith(b"data: [DONE]\n\n")
    else:
        assert json.loads(answer.body)["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
async def test_java_s_first_request_is_answered(
    server: Server, upstream: FakeUpstream, stream: bool, chunked: bool
) -> None:
    """Every JDK client asks for HTTP/2 in clear text by default; the body follows at once, in pieces too."""
    body = chat(stream=stream)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode() + H2C
    if chunked:
        data = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        data = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    for split in (len(data), len(head), len(data) - 9):
        assert await asyncio.wait_for(first_answer(server.port, data[:split], data[split:]), 30) == 200
    assert len(upstream.ledger) == 3


async def first_answer(port: int, *pieces: bytes) -> int:
    """The status of the answer on a connection that stays open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    answer = Answer(await reader.readuntil(b"\r\n\r\n"))
    writer.close()
    await writer.wait_closed()
    return answer.status
