"""Every refusal has OpenAI's shape, comes fast, leaves its row, and leaves the server serving."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from openai import AsyncOpenAI

from tests.server.api.raw import CHAT, HELLO, Answer, chat, get, post, request, send
from tests.server.api.rows import calls, row_of
from tests.serving import ROUTING, Server, serving, spawned, write_files
from tests.slowness import own_time, slowness
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

MB = 1024 * 1024
FAST_S = 0.05


def with_field(text: str) -> bytes:
    """A good request with one more member, as text."""
    return chat()[:-1] + f', "x": {text}}}'.encode()


# What came, its code, the field it names, and the model that its row has (None: no row, none can be read).
BAD_BODIES: dict[str, tuple[bytes, str, str | None, str | None]] = {
    "empty": (b"", "invalid_json", None, None),
    "cut off": (chat()[:-5], "invalid_json", None, None),
    "two documents": (chat() + chat(), "invalid_json", None, None),
    "an array": (b"[" + chat() + b"]", "invalid_json", None, None),
    "a string": (b'"auto"', "invalid_json", None, None),
    "single quotes": (chat().replace(b'"', b"'"), "invalid_json", None, None),
    "invalid UTF-8": (chat().replace(b"one", b"\xff\xfe"), "invalid_json", None, None),
    "UTF-16": (chat().decode().encode("utf-16"), "invalid_json", None, None),
    "lone surrogate": (with_field(r'"\ud800"'), "invalid_json", None, None),
    "raw NUL": (with_field('"\0"'), "invalid_json", None, None),
    "NaN": (with_field("NaN"), "invalid_json", None, None),
    "Infinity": (with_field("-Infinity"), "invalid_json", None, None),
    "1e999": (with_field("1e999"), "invalid_json", None, None),
    "2 MB integer": (with_field("1" * 2 * MB), "invalid_json", None, None),
    "1,000 arrays deep": (with_field("[" * 1_000 + "]" * 1_000), "invalid_json", None, None),
    "2,000 objects deep": (with_field('{"a":' * 2_000 + "1" + "}" * 2_000), "invalid_json", None, None),
    "100,000 arrays deep": (with_field("[" * 100_000 + "]" * 100_000), "invalid_json", None, None),
    "100,000 arrays never closed": (b"[" * 100_000, "invalid_json", None, None),
    "the model twice": (b'{"model": "cheap", ' + chat()[1:], "invalid_json", None, None),
    "the model twice, escaped": (b'{"m\\u006fdel": "cheap", ' + chat()[1:], "invalid_json", None, None),
    "a key twice, deep inside": (with_field('[{"a": 1, "a": 2}]'), "invalid_json", None, None),
    "the model in another case": (chat(Model="dear"), "invalid_value", "Model", "fake/ok"),
    "no model": (json.dumps({"messages": HELLO}).encode(), "invalid_value", "model", None),
    "a model that is no string": (json.dumps({"model": 5, "messages": HELLO}).encode(), "invalid_value", "model", None),
    "a blank model": (chat(" "), "invalid_value", "model", " "),
    "a model name without end": (chat("m" * MB), "invalid_value", "model", "m" * 256),
    "a model name of two lines": (chat("fake/ok\r\nx: y"), "invalid_value", "model", "fake/ok\r\nx: y"),
    "no messages": (b'{"model": "auto"}', "invalid_value", "messages", "auto"),
    "empty messages": (chat(messages=[]), "invalid_value", "messages", "fake/ok"),
    "messages that are no list": (chat(messages="hi"), "invalid_value", "messages", "fake/ok"),
    "a message without role": (chat(messages=[{"content": "x"}]), "invalid_value", "messages.0.role", "fake/ok"),
    "content that is a number": (
        chat(messages=[*HELLO, {"role": "user", "content": 5}]),
        "invalid_value",
        "messages.1.content",
        "fake/ok",
    ),
    "a tool result of no call": (
        chat(messages=[{"role": "tool", "content": "x"}]),
        "invalid_value",
        "messages.0.tool_call_id",
        "fake/ok",
    ),
    "a temperature in words": (chat(temperature="hot"), "invalid_value", "temperature", "fake/ok"),
    "no choices": (chat(n=0), "invalid_value", "n", "fake/ok"),
    "too many choices": (chat(n=129), "invalid_value", "n", "fake/ok"),
    "max_tokens of 0": (chat(max_tokens=0), "invalid_value", "max_tokens", "fake/ok"),
    "max_tokens beyond 31 bits": (chat(max_tokens=2**31), "invalid_value", "max_tokens", "fake/ok"),
    "max_tokens beyond 64 bits": (chat(max_tokens=2**70), "invalid_value", "max_tokens", "fake/ok"),
    "stream_options of a whole answer": (
        chat(stream_options={"include_usage": True}),
        "invalid_value",
        "stream_options",
        "fake/ok",
    ),
    "routing hints": (chat(routing={"task": "poem"}), "invalid_value", "routing.task", "fake/ok"),
}


@pytest.mark.parametrize("name", BAD_BODIES)
@pytest.mark.sampled(4)
async def test_a_bad_body_is_a_fast_400_that_names_the_field(
    server: Server, upstream: FakeUpstream, database: Path, name: str
) -> None:
    """It leaves a row `rejected` where it names a model, reaches no upstream, and the next request is served."""
    body, code, param, model = BAD_BODIES[name]
    best_s, before = float("inf"), slowness()
    for _ in range(5):
        began = own_time()
        answer = await post(server.port, body)
        best_s = min(best_s, own_time() - began)
    error = answer.error()
    assert (answer.status, error["type"], error["code"], error["param"]) == (400, "invalid_request_error", code, param)
    assert len(error["message"]) < 1000
    assert best_s < FAST_S * max(before, slowness())
    assert upstream.ledger == []
    good = await post(server.port, chat())
    assert good.status == 200
    await row_of(database, good)  # rows are written in order
    rows = [row for row in calls(database) if row["id"] == answer.headers("x-request-id")[0]]
    wanted = [] if model is None else [(model, "rejected", 400, code, 0, 0)]
    told = [
        (row["requested_model"], row["outcome"], row["status"], row["error_code"], row["attempts"], row["cost_nano"])
        for row in rows
    ]
    assert told == wanted


@pytest.mark.parametrize("shape", ["arrays", "objects"])
@pytest.mark.parametrize("stream", [False, True])
async def test_no_depth_of_nesting_is_an_internal_error(server: Server, shape: str, stream: bool) -> None:
    """What can be read can also be forwarded, up to the limit, where the encoder stands deeper in the stack."""
    opening, closing = ("[", "]") if shape == "arrays" else ('{"a":', "}")
    statuses = []
    for depth in range(500, 520, 5):
        middle = "" if shape == "arrays" else "1"
        body = chat(stream=stream)[:-1] + f', "x": {opening * depth}{middle}{closing * depth}}}'.encode()
        statuses.append((await post(server.port, body)).status)
    assert set(statuses) == {200, 400}
    assert statuses == sorted(statuses)


# --- the framework's own ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/"])
async def test_a_browser_at_the_root_gets_a_page_that_says_what_this_is(server: Server, path: str) -> None:
    """Programs get the 404 in JSON, and so do browsers elsewhere. The page loads nothing and runs nothing."""
    html = "text/html,application/xhtml+xml,*/*;q=0.8"
    answer = await get(server.port, path, accept=html)
    assert (answer.status, answer.headers("content-type")) == (200, ["text/html; charset=utf-8"])
    assert b"base_url" in answer.body and b"<script" not in answer.body
    assert answer.headers("content-security-policy")[0].startswith("default-src 'none'")
    assert (await get(server.port, path, accept="*/*")).status == 404
    assert (await get(server.port, "/v1/nothing", accept=html)).status == 404
    assert (await get(server.port, path, accept=html, host="evil.example")).status == 403
    assert (await post(server.port, b"{}", path=path, accept=html)).status in (404, 405)


async def test_a_browser_at_no_page_of_the_dashboard_gets_a_page(server: Server) -> None:
    """With the way back; programs get the JSON."""
    html = "text/html,application/xhtml+xml,*/*;q=0.8"
    for path in ("/dashboard/nothing-here", "/dashboard/requests/a/b"):
        answer = await get(server.port, path, accept=html)
        assert (answer.status, answer.headers("content-type")) == (404, ["text/html; charset=utf-8"])
        assert b"There is no such page." in answer.body and b'href="/dashboard"' in answer.body
        assert answer.headers("content-security-policy")[0].startswith("default-src 'none'")
        assert (await get(server.port, path)).error()["code"] == "not_found"


@pytest.mark.parametrize("path", ["/", "/v1", "/nothing", "/v1/chat", "/v1/complete", "/admin", "/schema", "/%ff%00"])
async def test_an_unknown_path_is_a_404_that_says_where_the_api_is(server: Server, path: str) -> None:
    """A wrong base URL is found out at once."""
    answer = await get(server.port, path)
    assert (answer.status, answer.error()["code"]) == (404, "not_found")
    assert "/v1/chat/completions" in answer.error()["message"]


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/health", "/metrics", "/v1/models", "/v1/models/fake/ok", "/usage"]
)
async def test_head_is_get_without_a_body(server: Server, path: str) -> None:
    """Monitors ask so; the headers are those of GET."""
    head, whole = [await send(server.port, request(method=method, path=path)) for method in ("HEAD", "GET")]
    assert (head.status, whole.status, head.body) == (200, 200, b"")
    assert head.headers("content-type") == whole.headers("content-type")
    if path != "/health" and path != "/metrics":  # those change
        assert head.headers("content-length") == [str(len(whole.body))]
    assert (await send(server.port, request(method="HEAD", path="/v1/nothing"))).status == 404


@pytest.mark.parametrize("path", ["/livez", "/metrics", "/v1/models", "/v1/usage", "/admin/reload"])
async def test_options_says_what_is_allowed(server: Server, path: str) -> None:
    """Without a key, since it tells no more."""
    answer = await send(server.port, request(method="OPTIONS", path=path))
    assert (answer.status, answer.body) == (204, b"")
    expected = {"OPTIONS", "POST" if path == "/admin/reload" else "GET"}
    assert {name.strip() for name in ",".join(answer.headers("allow")).split(",")} == expected


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("OPTIONS", "/v1/chat/completions", {"POST"}),
        ("HEAD", "/v1/chat/completions", {"POST"}),
        ("GET", "/v1/chat/completions", {"POST"}),
        ("PUT", "/chat/completions", {"POST"}),
        ("DELETE", "/v1/chat/completions", {"POST"}),
        ("POST", "/v1/models", {"GET", "OPTIONS"}),
        ("DELETE", "/v1/models/fake/ok", {"GET", "OPTIONS"}),
        ("PATCH", "/v1/usage", {"GET", "OPTIONS"}),
        ("POST", "/livez", {"GET", "OPTIONS"}),
    ],
)
async def test_a_wrong_method_is_a_405_that_says_which_are_allowed(
    server: Server, method: str, path: str, allow: set[str]
) -> None:
    """With the header `allow`, as HTTP demands."""
    answer = await send(server.port, request(method=method, path=path))
    assert answer.status == 405
    if method != "HEAD":
        (used,) = allow - {"OPTIONS"}
        assert answer.error()["code"] == "method_not_allowed"
        assert answer.error()["message"].endswith(f"; use {used}.")
    assert {name.strip() for name in ",".join(answer.headers("allow")).split(",")} == allow


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"])
async def test_another_content_type_is_a_415(server: Server, kind: str) -> None:
    """Also the ones that a browser may send to any site without asking it first."""
    answer = await post(server.port, chat(), content_type=kind)
    assert (answer.status, answer.error()["code"]) == (415, "unsupported_media_type")


async def test_an_unknown_encoding_of_a_body_is_a_415(server: Server) -> None:
    """Those that are known have tests of their own."""
    answer = await post(server.port, chat(), content_encoding="br")
    assert (answer.status, answer.error()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({"x-long": "a" * 33_000}, CHAT, 431),
        ({f"x-{number}": "a" for number in range(101)}, CHAT, 431),
        ({}, f"{CHAT}?{'a' * 8_200}", 414),
    ],
)
async def test_a_head_over_its_limits_is_refused(
    server: Server, headers: dict[str, str], path: str, status: int
) -> None:
    """32 KB or 100 headers, 8 KB of URL."""
    answer = await send(server.port, request(chat(), path=path, headers=headers))
    assert answer.status == status
    assert answer.error()["code"] == "invalid_value"


async def test_a_head_without_end_is_cut_off(server: Server) -> None:
    """Before it is complete nobody was asked for a key: it must not fill the memory."""
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-long: "
        while sent < 50 * MB:
            yield b"a" * 16_384
            sent += 16_384

    answer = await send(server.port, pieces())
    assert sent < 20 * MB
    assert answer.bytes == b"" or (answer.status, answer.error()["code"]) == (431, "invalid_value")
    assert (await post(server.port, chat())).status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"GARBAGE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS client at a port without TLS
        b"POST /v1/chat/completions HTTP/9.9\r\nhost: localhost\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nbad header: x\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        request(headers={"content-length": "", "transfer-encoding": "chunked"}) + b"zz\r\n",
    ],
)
async def test_what_is_no_http_is_a_400_in_the_same_shape(server: Server, data: bytes) -> None:
    """Also what the parser refuses before there is a request."""
    answer = await send(server.port, data)
    assert (answer.status, answer.error()["code"]) == (400, "invalid_value")
    assert (await post(server.port, chat())).status == 200


async def test_the_models_and_usage_routes_say_what_is_wrong(server: Server) -> None:
    """Bad parameters are named."""
    for query, param in [("since=yesterday", "since"), ("group_by=colour", "group_by"), ("sinse=2026", "sinse")]:
        answer = await get(server.port, f"/v1/usage?{query}")
        assert (answer.status, answer.error()["param"]) == (400, param)


@pytest.mark.parametrize(
    "query", ["since=0001-01-01", "until=9999-12-31T23:59:59", "since=1969-01-01&until=2300-01-01"]
)
async def test_any_date_is_a_period(server: Server, query: str) -> None:
    """Also one that no row can have."""
    assert (await get(server.port, f"/v1/usage?{query}")).status == 200


# --- size -------------------------------------------------------------------------------------------------------------

SMALL = ROUTING + "server: {{max_body_mb: 1}}\n"


async def test_a_declared_length_over_the_cap_is_refused_unread(server: Server) -> None:
    """Before a byte of it is sent, and without `100 Continue`."""
    head = request(headers={"content-length": str(10**12), "expect": "100-continue"})
    began = time.perf_counter()
    answer = await send(server.port, head)
    assert (answer.status, answer.error()["code"]) == (413, "request_too_large")
    assert answer.headers("connection") == ["close"]
    assert time.perf_counter() - began < 5  # it lingers for a moment, then hangs up


async def test_the_cap_is_the_configured_one(upstream: FakeUpstream, tmp_path: Path) -> None:
    """One byte more is too much, with and without a declared length."""
    async with serving(write_files(tmp_path, upstream.url, SMALL)) as server:
        fill = MB - len(chat(user=""))
        largest, larger = chat(user="a" * fill), chat(user="a" * (fill + 1))
        assert len(largest) == MB
        chunked = request(headers={"content-length": "", "transfer-encoding": "chunked"})
        for body, status in ((largest, 200), (larger, 413)):
            assert (await post(server.port, body)).status == status
            chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            answer = await send(server.port, chunked + chunk)
            assert answer.status == status
        assert "1 MB" in answer.error()["message"]


async def test_the_sdk_sees_the_413_of_a_body_that_is_too_large(upstream: FakeUpstream, tmp_path: Path) -> None:
    """Not a broken connection, which it would retry; the body is larger than what sockets hold."""
    async with serving(write_files(tmp_path, upstream.url, SMALL.replace("mb: 1", "mb: 8"))) as server:
        with pytest.raises(openai.APIStatusError) as caught:
            await server.client.chat.completions.create(
                model="auto", messages=[{"role": "user", "content": "a" * 24 * MB}]
            )
        assert caught.value.status_code == 413
        assert caught.value.code == "request_too_large"


@pytest.mark.slow
async def test_a_chunked_body_of_1_gb_is_refused_at_the_cap_in_flat_memory(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    """The answer comes while the client still sends; the server has not read it all, nor kept it, and serves on."""
    cap = 32 * MB
    with spawned(write_files(tmp_path, upstream.url)) as server:
        process = psutil.Process(server.process.pid)
        assert (await post(server.port, chat())).status == 200
        before = process.memory_info().rss
        sent, peak, answer = await asyncio.to_thread(_stream_1_gb, server.port, process)
        assert (answer.status, answer.error()["code"]) == (413, "request_too_large")
        assert cap <= sent < 8 * cap
        assert peak - before < 2 * cap
        assert (await post(server.port, chat())).status == 200


def _stream_1_gb(port: int, process: psutil.Process) -> tuple[int, int, Answer]:
    """Bytes sent until the server hung up, the server's largest memory, its answer."""
    head = request(headers={"content-length": "", "transfer-encoding": "chunked"})
    piece = b"100000\r\n" + b" " * MB + b"\r\n"
    sent = peak = 0
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head)
        try:
            for _ in range(1024):
                connection.sendall(piece)
                sent += MB
                peak = max(peak, process.memory_info().rss)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it hung up; its answer came before
        received = b""
        try:
            while data := connection.recv(65536):
                received += data
        except ConnectionResetError:
            pass
    return sent, peak, Answer(received)


# --- upstream errors keep what helps the caller -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "status", "code"),
    [
        ("e400", 400, "invalid_value"),
        ("e401", 401, "invalid_api_key"),
        ("e404", 404, "model_not_found"),
        ("e422", 422, None),
        ("e429", 429, "rate_limit_exceeded"),
        ("e429(code=insufficient_quota)", 429, "insufficient_quota"),
        ("context_length", 400, "context_length_exceeded"),
        ("e500", 502, "upstream_error"),
        ("e503", 503, "upstream_unavailable"),
        ("e504", 504, "upstream_timeout"),
        ("e529", 503, "upstream_unavailable"),
        ("html_502", 502, "upstream_error"),
        ("bad_json_error", 502, "upstream_error"),
        ("empty_200", 502, "upstream_truncated"),
        ("json_in_200_error", 502, "upstream_error"),
        ("wrong_ctype-cut_fin", 502, "upstream_truncated"),
        ("redirect", 502, "upstream_error"),
        ("close_before_request", 502, "upstream_truncated"),
    ],
)
async def test_an_upstreams_failure_has_its_status_and_code(
    server: Server, database: Path, mode: str, status: int, code: str | None
) -> None:
    """A client's mistake keeps its status; a provider's own failure is a 502, 503 or 504, not to be retried again."""
    answer = await post(server.port, chat(f"fake/{mode}"))
    assert (answer.status, answer.error()["code"]) == (status, code)
    is_final = status >= 500 or code == "insufficient_quota"
    assert answer.headers("x-should-retry") == (["false"] if is_final else [])
    row = await row_of(database, answer)
    assert (row["status"], row["error_code"], row["attempts"], row["success"]) == (status, code, 1, 0)


async def test_a_rate_limit_keeps_retry_after_and_the_limits(server: Server) -> None:
    """The SDK waits as long as the vendor asked."""
    answer = await post(server.port, chat("fake/e429(retry_after=7)"))
    assert answer.headers("retry-after") == ["7"]
    assert answer.headers("x-ratelimit-remaining-requests") == ["9999"]


async def test_each_status_is_the_sdks_own_exception(server: Server) -> None:
    """Code that was written for OpenAI catches what it expects."""
    expected: list[tuple[str, type[openai.APIStatusError]]] = [
        ("fake/e400", openai.BadRequestError),
        ("fake/e401", openai.AuthenticationError),
        ("fake/e403", openai.PermissionDeniedError),
        ("nobody", openai.NotFoundError),
        ("fake/e409", openai.ConflictError),
        ("fake/e422", openai.UnprocessableEntityError),
        ("fake/e429", openai.RateLimitError),
        ("fake/e500", openai.InternalServerError),
    ]
    for model, kind in expected:
        for stream in (False, True):
            with pytest.raises(kind) as caught:
                await server.client.chat.completions.create(model=model, messages=HELLO, stream=stream)
            assert caught.value.request_id
            assert caught.value.message


async def test_the_sdk_does_not_repeat_what_the_proxy_gave_up(server: Server, upstream: FakeUpstream) -> None:
    """Its two retries on top of ours would multiply them."""
    async with AsyncOpenAI(base_url=server.base_url, api_key="any") as client:
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(model="fake/e500", messages=HELLO)
    assert len(upstream.ledger) == 1


async def test_an_error_in_a_running_stream_is_its_last_frame(server: Server) -> None:
    """The SDK raises it; no finish_reason and no `[DONE]` are invented."""
    answer = await post(server.port, chat("fake/sse_error(k=3)", stream=True))
    assert answer.status == 200
    *before, last = answer.events
    assert {"message", "type", "param", "code"} <= last["error"].keys()
    assert all(choice["finish_reason"] is None for event in before for choice in event["choices"])
    stream: Any = await server.client.chat.completions.create(
        model="fake/sse_error(k=3)",
        messages=HELLO,
        stream=True,
    )
    with pytest.raises(openai.APIError):
        async for _ in stream:
            pass
