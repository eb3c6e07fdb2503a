"""What old and careful clients send: HEAD where GET is served, HTTP/1.0, an upgrade that is not taken; raw bytes."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from proxy.server.api.openapi import operations
from tests.server.api.raw import CHAT, Answer, chat, request, send
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"


def routes(server: Server) -> list[str]:
    """The paths that GET is served at, with their parameters in braces."""
    return sorted({path for path, method, _ in operations(server._application.litestar.routes) if method == "GET"})


MOVING = {"/metrics", "/health"}  # their answers count, so that two of them differ


async def both(server: Server, path: str, **headers: str) -> tuple[Answer, Answer]:
    get, head = [
        await send(server.port, request(method=method, path=path, headers=headers)) for method in ("GET", "HEAD")
    ]
    return get, head


def fields(answer: Answer, path: str) -> list[str]:
    """The head without what no two answers share."""
    lines = answer.head.decode("latin-1").lower().split("\r\n")
    own = ("x-request-id:", "date:", *(["content-length:"] if path in MOVING else []))
    return [line for line in lines if not line.startswith(own)]


async def test_head_is_served_where_get_is(server: Server, upstream: FakeUpstream) -> None:
    """On every route and where there is none: the same status and headers, without a body."""
    examples = {"model_id": "fake/ok", "version": "1"}
    paths = [re.sub(r"\{(\w+)\}", lambda found: examples.get(found[1], "none"), path) for path in routes(server)]
    assert {"/livez", "/health", "/metrics", "/v1/models", "/v1/requests/none", "/v1/models/fake/ok"} <= set(paths)
    odd = ("/nowhere", "/v1/models/no/such", "/v1/requests?limit=x", "/v1/usage?format=csv", "/%ff")
    aliases = ("/openai/v1/models", "/v1/v1/models", "/openai/deployments/fake/ok/nothing")
    for path in (*paths, *odd, *aliases):
        get, head = await both(server, path)
        assert (fields(head, path), head.body) == (fields(get, path), b""), path
        assert get.body, path
        assert head.headers("content-length"), path


@pytest.mark.parametrize("headers", [{"accept": "text/html"}, {"host": "evil.example"}, {"origin": "https://a.b"}])
async def test_head_gets_pages_and_refusals_without_their_bodies(
    server: Server, upstream: FakeUpstream, headers: dict[str, str]
) -> None:
    """What stands before every route and behind none answers it too."""
    for path in ("/", "/v1", "/v1/models", "/v1/usage"):
        get, head = await both(server, path, **headers)
        assert (fields(head, path), head.body) == (fields(get, path), b""), path


async def test_head_where_only_post_is_served_is_a_405(server: Server, upstream: FakeUpstream) -> None:
    """On every such route, with what is allowed."""
    found = list(operations(server._application.litestar.routes))
    read = {path for path, method, _ in found if method == "GET"}
    paths = {path for path, method, _ in found if method == "POST" and "{" not in path} - read
    assert {CHAT, "/v1/completions", "/v1/embeddings", "/admin/reload"} <= paths
    for path in sorted(paths):
        get, head = await both(server, path)
        assert (head.status, get.status, head.body) == (405, 405, b""), path
        assert "POST" in head.headers("allow")[0], path


async def test_head_without_a_key_is_refused_as_get_is(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Nothing leaks by it."""
    keys = {"PROXY_API_KEY": "a-key-of-the-data-plane"}
    async with serving(write_files(tmp_path, upstream.url), keys) as guarded:
        for path in routes(guarded):
            get, head = await both(guarded, path.replace("{", "").replace("}", ""))
            assert (head.status, head.body) == (get.status, b""), path
            assert fields(head, path) == fields(get, path), path


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
