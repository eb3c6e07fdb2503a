"""The contract of Claude Code, as Anthropic's gateway protocol states it: each rule a test. Captured requests of it and
of other clients of `/v1/messages` are replayed whole.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from proxy.server.api.replies import frames_of
from proxy.server.formats.messages.answer import PING
from proxy.storage.keys import KeyStore, StoredKey
from tests.server.api.raw import request, send
from tests.server.api.rows import row_with_id
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
CAPTURED = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parent / "clients").glob("messages-*.json"))
}
KEY = "the-key-of-the-operator-0123456789"
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  anthropic: {{type: anthropic, base_url: "{upstream}", api_key_env: KEY, allow_private: true, retries: 0%s}}
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, retries: 0}}
aliases: {{claude: anthropic/claude-opus-5-5, claude-other: fake/ok}}
keys: {{small: {{max_output_tokens: 2000}}}}
router: {{default_model: fake/ok}}
"""
PRICING = "version: 1\nmodels: {anthropic/claude-opus-5-5: {input: 4.00, output: 20.00}}\n"
BETAS = "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,a-beta-of-tomorrow"
HELLO = [{"role": "user", "content": "hi"}]
MESSAGE = (
    b'{"id":"msg_1","type":"message","role":"assistant","model":"claude-opus-5-5","content":[{"type":"text",'
    b'"text":"H\\u0069", "x_new" : 1.50}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":4,'
    b'"output_tokens":2,"x_new":null}}'
)
STREAM = b"""event: message_start\r
data: {"type":"message_start","message":{"id":"msg_1","content":[],"usage":{"input_tokens":4,"output_tokens":1}}  }\r
\r
: comment

event: ping
data: {"type": "ping"}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"server_tool_use","id":"s","name":"n","input":{}}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"H\\u0069"}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2},"x_new":1.50}

event: message_stop
data: {"type":"message_stop"}

"""


class Vendor:
    """A server with one answer, written in small pieces; `seen` are the heads and bodies that it got."""

    def __init__(self, answer: bytes, status: int = 200, headers: str = "", *, breaks: bool = False) -> None:
        self.answer, self.status, self.headers, self.breaks = answer, status, headers, breaks
        self.seen: list[tuple[dict[str, str], bytes]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lines = [line.partition(": ") for line in head.split("\r\n")[1:]]
            headers = {name.lower(): value for name, _, value in lines if name} | {":path": head.split(" ")[1]}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            if not head.startswith("POST"):  # the product looks for its list of models
                return
            self.seen.append((headers, body))
            is_stream = self.answer.startswith(b"event") or self.answer.startswith(b":")
            kind = "text/event-stream" if is_stream else "application/json"
            length = "" if is_stream else f"content-length: {len(self.answer)}\r\n"
            start = (
                f"HTTP/1.1 {self.status} X\r\ncontent-type: {kind}\r\nconnection: close\r\n{length}{self.headers}\r\n"
            )
            writer.write(start.encode())
            for at in range(0, len(self.answer), 7):
                writer.write(self.answer[at : at + 7])
                await writer.drain()
        finally:
            writer.close()


@asynccontextmanager
async def behind(
    folder: Path, vendor: Vendor, options: str = "", environ: dict[str, str] | None = None
) -> AsyncIterator[Server]:
    """The product in front of this vendor."""
    server = await asyncio.start_server(vendor.serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        files = write_files(folder, url, ROUTING % options, PRICING)
        async with serving(files, {"KEY": KEY, **(environ or {})}) as running:
            yield running


async def post(
    server: Server, body: bytes | dict[str, Any], path: str = "/v1/messages", **headers: str
) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    usual = {"content-type": "application/json", "anthropic-version": "2023-06-01", **named}
    async with httpx.AsyncClient() as http:
        return await http.post(f"http://127.0.0.1:{server.port}{path}", content=content, headers=usual)


def body_of(**fields: Any) -> dict[str, Any]:
    return {"model": "claude", "max_tokens": 3000, "messages": HELLO, **fields}


# --- path, probe, models ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/"])
async def test_head_of_the_root_is_a_probe(tmp_path: Path, path: str):
    """2xx, without a key and without a body; a GET of a program is still told where the API is."""
    async with behind(tmp_path, Vendor(b""), environ={"PROXY_API_KEY": "k" * 32}) as server:
        probe = await send(server.port, request(method="HEAD", path=path))
        page = await send(server.port, request(method="GET", path=path))
    assert (probe.status, probe.body) == (200, b"")
    assert page.status == 404


async def test_the_path_counts_and_not_the_query(tmp_path: Path):
    """`?beta=true` is what its SDK adds."""
    async with behind(tmp_path, Vendor(MESSAGE)) as server:
        assert (await post(server, body_of(), "/v1/messages?beta=true")).content == MESSAGE


async def test_the_list_of_models_has_names_to_show(tmp_path: Path):
    """In one answer without a redirect, with either credential; ids that begin with `claude` or `anthropic`."""
    key = "k" * 32
    async with behind(tmp_path, Vendor(b""), environ={"PROXY_API_KEY": key}) as server, httpx.AsyncClient() as http:
        for headers in ({"x-api-key": key}, {"authorization": f"Bearer {key}"}):
            answer = await http.get(f"{server.base_url}/models", params={"limit": 1000}, headers=headers)
            assert answer.status_code == 200
            assert not answer.json()["has_more"]
            shown = {model["id"]: model["display_name"] for model in answer.json()["data"]}
            assert {"claude", "claude-other"} <= shown.keys()
            assert all(shown.values())


# --- what Anthropic gets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_anthropic_gets_and_gives_bytes_as_they_are(tmp_path: Path, stream: bool):
    """Unknown fields, spaces, escapes, comments; only the model's name is its own. Metered all the same."""
    body = b'{ "model" : "claude-opus-5-5","max_tokens":9, "x_new": 1.50, "speed":"fast", "stream":%s,  "messages":[ {'
    body = (body % (b"true" if stream else b"false")) + b'"role":"user","content":"h\\u0069"}] }'
    vendor = Vendor(STREAM if stream else MESSAGE, headers="request-id: req_1\r\n")
    async with behind(tmp_path, vendor) as server:
        named = await post(server, body.replace(b'"claude-opus-5-5"', b'"anthropic/claude-opus-5-5"'))
        same = await post(server, body)
        row = await row_with_id(tmp_path / "usage.db", same.headers["x-request-id"])
    assert (named.content, same.content) == (vendor.answer, vendor.answer)
    assert vendor.seen[1][1] == body
    assert json.loads(vendor.seen[0][1]) == json.loads(body)
    assert b'[ {"role":"user","content":"h\\u0069"}]' in vendor.seen[0][1]
    assert b"1.50" in vendor.seen[0][1]
    assert (row["outcome"], row["input_tokens"], row["output_tokens"]) == ("ok", 4, 2)
    assert same.headers["request-id"] == "req_1"


async def test_headers_that_belong_to_the_body_are_forwarded(tmp_path: Path):
    """Verbatim. The vendor's key is the operator's; the client's, and its attribution, stay here."""
    vendor = Vendor(MESSAGE)
    async with behind(tmp_path, vendor) as server:
        await post(
            server,
            body_of(),
            anthropic_version="2026-10-21",
            anthropic_beta=BETAS,
            anthropic_workspace_id="wrkspc_1",
            authorization="Bearer client",
            x_api_key="client",
            x_claude_code_session_id="s1",
        )
        await post(server, body_of())
    (first, _), (second, _) = vendor.seen
    assert first["anthropic-version"] == "2026-10-21"
    assert first["anthropic-beta"] == BETAS
    assert first["anthropic-workspace-id"] == "wrkspc_1"
    assert first["x-api-key"] == KEY
    assert "authorization" not in first
    assert second["anthropic-version"] == "2023-06-01"
    assert "anthropic-beta" not in second


async def test_the_operators_betas_stand_behind_the_clients(tmp_path: Path):
    """Both are needed: a body field without its beta is refused."""
    vendor = Vendor(MESSAGE)
    async with behind(tmp_path, vendor, ", headers: {{anthropic-beta: ours}}") as server:
        await post(server, body_of(), anthropic_beta="theirs")
        await post(server, body_of())
    assert [headers["anthropic-beta"] for headers, _ in vendor.seen] == ["theirs,ours", "ours"]


async def test_a_system_prompt_stays_an_array_as_received(tmp_path: Path):
    """The attribution block comes first and alone."""
    captured = CAPTURED["messages-claude-code"]
    vendor = Vendor(STREAM)
    async with behind(tmp_path, vendor) as server:
        answer = await post(server, captured["body"], captured["path"], anthropic_beta=BETAS)
    assert answer.content == STREAM
    sent = json.loads(vendor.seen[0][1])
    assert sent == {**captured["body"], "model": "claude-opus-5-5"}
    assert sent["system"][0]["text"].startswith("x-anthropic-billing-header")


async def test_parameters_of_the_operator_fill_what_the_client_left_out(tmp_path: Path):
    """In the vendor's words, and reported; the client's own fields win."""
    vendor = Vendor(MESSAGE)
    options = ", parameters: {{reasoning_effort: low, stop: [END]}}"
    async with behind(tmp_path, vendor, options) as server:
        added = await post(server, body_of())
        own = await post(server, body_of(thinking={"type": "adaptive"}, stop_sequences=["x"], output_config={}))
    first, second = (json.loads(body) for _, body in vendor.seen)
    assert first["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert first["output_config"] == {"effort": "low"}
    assert first["stop_sequences"] == ["END"]
    assert set(added.headers["x-proxy-adapted-params"].split(",")) == {"thinking", "output_config", "stop_sequences"}
    assert second == {
        **body_of(thinking={"type": "adaptive"}, stop_sequences=["x"], output_config={}),
        "model": "claude-opus-5-5",
    }
    assert "x-proxy-adapted-params" not in own.headers


@pytest.mark.parametrize(
    ("given", "thinking"),
    [
        ({"type": "enabled", "budget_tokens": 2500}, {"type": "enabled", "budget_tokens": 1024}),
        ({"type": "enabled", "budget_tokens": 1024}, {"type": "enabled", "budget_tokens": 1024}),
        ({"type": "adaptive"}, {"type": "adaptive"}),
    ],
)
@pytest.mark.slow
async def test_a_cap_lowers_the_limit_and_what_must_stay_below_it(
    tmp_path: Path, given: dict[str, Any], thinking: dict[str, Any]
):
    """Both are reported; nothing else changes."""
    vendor = Vendor(MESSAGE)
    async with behind(tmp_path, vendor, environ={"PROXY_API_KEY": "k" * 32}) as server:
        key = made_key(tmp_path / "usage.db", "small")
        answer = await post(server, body_of(thinking=given, x_new=1), x_api_key=key)
    assert json.loads(vendor.seen[0][1]) == {
        **body_of(thinking=thinking, x_new=1), "model": "claude-opus-5-5", "max_tokens": 2000,
    }  # fmt: skip
    changed = {"max_tokens", "thinking"} if given != thinking else {"max_tokens"}
    assert set(answer.headers["x-proxy-adapted-params"].split(",")) == changed


def made_key(database: Path, name: str) -> str:
    """A key of this name in the database of a server."""
    text = f"key-of-{name}-0123456789abcdef"
    key = StoredKey(id=name, name=name, role="key", last4=text[-4:], models=None, created_ns=time.time_ns())
    KeyStore(database).add(key, hashlib.sha256(text.encode()).digest())
    return text


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (400, "invalid_request_error", "messages.1.content.0: Invalid `signature` in `thinking` block"),
        (400, "invalid_request_error", "thinking.type.enabled is not supported for this model."),
        (401, "authentication_error", "invalid x-api-key"),
        (404, "not_found_error", "model: claude-x"),
        (413, "request_too_large", "Request exceeds the maximum size"),
        (429, "rate_limit_error", "This request would exceed your rate limit."),
        (529, "overloaded_error", "Overloaded"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.slow
async def test_errors_of_anthropic_pass_with_status_and_body(
    tmp_path: Path, status: int, kind: str, message: str, stream: bool
):
    """Its client's recovery reads the vendor's own words. A key that the vendor quotes does not pass."""
    error = {"type": "error", "error": {"type": kind, "message": f"{message} {KEY}", "x_new": 1.5}, "request_id": "r"}
    vendor = Vendor(
        json.dumps(error).encode(), status, "request-id: req_1\r\nanthropic-ratelimit-requests-limit: 5\r\n"
    )
    async with behind(tmp_path, vendor) as server:
        answer = await post(server, body_of(stream=stream))
        row = await row_with_id(tmp_path / "usage.db", answer.headers["x-request-id"])
    assert answer.status_code == row["status"] == status
    assert answer.content == vendor.answer.replace(KEY.encode(), b"[redacted]")
    assert answer.headers["request-id"] == "req_1"
    assert answer.headers["anthropic-ratelimit-requests-limit"] == "5"


async def test_what_is_no_answer_of_anthropic_has_its_shape_all_the_same(tmp_path: Path):
    """A page of HTML from what stands before the API."""
    vendor = Vendor(b"<html>Bad gateway</html>", 502)
    async with behind(tmp_path, vendor) as server:
        answer = await post(server, body_of())
    assert answer.json()["error"]["type"] == "api_error"
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("model", ["claude", "fake/cut_clean(k=2)", "fake/sse_error(k=2)"])
@pytest.mark.slow
async def test_an_error_in_a_stream_is_an_event_and_an_aborted_connection(
    tmp_path: Path, upstream: FakeUpstream, model: str
):
    """One error in a finished 200 would not be retried."""
    error = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Over"}}\n\n'
    begun = STREAM[: STREAM.index(b"event: message_delta")]
    vendor = Vendor(begun + error)
    (tmp_path / "x").mkdir()
    files = write_files(tmp_path / "x", upstream.url)
    got = b""
    async with behind(tmp_path, vendor) as native, serving(files) as translated:
        url = f"http://127.0.0.1:{(native if model == 'claude' else translated).port}/v1/messages"
        with pytest.raises(httpx.RemoteProtocolError):
            async with (
                httpx.AsyncClient() as http,
                http.stream("POST", url, json=body_of(model=model, stream=True)) as answer,
            ):
                assert answer.status_code == 200
                async for piece in answer.aiter_bytes():
                    got += piece
    if model == "claude":
        assert got[-400:] == vendor.answer[-400:]
    *_, last = got.decode().strip().split("\n\n")
    kind, _, data = last.partition("\n")
    assert kind == "event: error"
    assert json.loads(data.removeprefix("data: "))["type"] == "error"
    assert got.count(b"event: error") == 1
    assert b"message_stop" not in got


# --- waiting ----------------------------------------------------------------------------------------------------------


async def test_waiting_is_told_by_real_pings():
    """SSE comments do not reset its idle timer. The SDK knows the event and skips it."""
    assert PING == b'event: ping\ndata: {"type": "ping"}\n\n'

    class Slow:
        def __init__(self) -> None:
            self.waits, self.frames = [True, True, False, False], [b"x", b""]

        async def wait(self, timeout_s: float) -> bool:
            return not self.waits or not self.waits.pop(0)

        async def read(self) -> bytes:
            return self.frames.pop(0)

    class Writer:
        keep_alive = PING

    frames = [frame async for frame in frames_of(b"", Slow(), None, Writer(), None)]  # type: ignore[arg-type]
    assert frames == [PING, PING, b"x"]


@pytest.mark.slow
async def test_a_slow_answer_is_waited_for(tmp_path: Path, upstream: FakeUpstream):
    """The headers leave with the first ping, and the answer follows."""
    timeouts = "{connect: 2, first_token: 60, idle: 60, total: 60}"
    async with serving(write_files(tmp_path, upstream.url, timeouts=timeouts)) as server:
        body = body_of(model="fake/slow_ttft(s=11)", stream=True)
        async with httpx.AsyncClient(timeout=60) as http:
            answer = await http.post(f"{server.base_url}/messages", json=body)
    assert answer.content.startswith(PING + b"event: message_start\n")
    assert blocks_of(answer.text)[0]["text"].startswith("tok0")


# --- captured requests ------------------------------------------------------------------------------------------------


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", sorted(CAPTURED))
@pytest.mark.parametrize("model", ["anthropic/claude-opus-5-5", "fake/ok"])
async def test_captured_requests_of_clients_are_answered(tmp_path: Path, upstream: FakeUpstream, name: str, model: str):
    """By Anthropic's wire as it is, and by another vendor's, translated."""
    captured = CAPTURED[name]
    upstream.modes["claude-opus-5-5"] = "ok"
    files = write_files(tmp_path, upstream.url, ROUTING % "")
    beta = {"anthropic-beta": BETAS} if "anthropic-beta" in captured["headers"] else {}
    async with serving(files, {"KEY": KEY}) as server, httpx.AsyncClient() as http:
        url = f"http://127.0.0.1:{server.port}{captured['path']}"
        answer = await http.post(
            url, json={**captured["body"], "model": model}, headers={**captured["headers"], **beta}
        )
    assert answer.status_code == 200, answer.text
    if name == "messages-count-tokens":
        assert answer.json()["input_tokens"] > 0
    elif captured["body"].get("stream"):
        assert answer.text.endswith('data: {"type":"message_stop"}\n\n') or "message_stop" in answer.text[-60:]
    else:
        assert answer.json()["content"][0]["text"].startswith("tok0")


@pytest.mark.parametrize("model", ["anthropic/claude-opus-5-5", "fake/m"])
async def test_claude_code_goes_two_turns_through_a_tool(tmp_path: Path, upstream: FakeUpstream, model: str):
    """Its own request, whole, then with the result of the call that the answer made."""
    captured = CAPTURED["messages-claude-code"]
    body = {**captured["body"], "model": model}
    headers = {**captured["headers"], "anthropic-beta": BETAS}
    call = json.dumps([["Bash", '{"command":"ls","description":"Lists."}']]).encode().hex()
    upstream.modes[model.partition("/")[2]] = f"calls(hex={call})"
    files = write_files(tmp_path, upstream.url, ROUTING % "")
    async with serving(files, {"KEY": KEY}) as server, httpx.AsyncClient() as http:
        url = f"http://127.0.0.1:{server.port}{captured['path']}"
        first = await http.post(url, json=body, headers=headers)
        blocks = blocks_of(first.text)
        (use,) = [block for block in blocks if block["type"] == "tool_use"]
        assert (use["name"], use["input"]) == ("Bash", {"command": "ls", "description": "Lists."})
        result = {"type": "tool_result", "tool_use_id": use["id"], "content": "a.py\nb.py", "is_error": False}
        turns = [{"role": "assistant", "content": blocks}, {"role": "user", "content": [result]}]
        upstream.modes[model.partition("/")[2]] = "ok"
        second = await http.post(url, json={**body, "messages": [*body["messages"], *turns]}, headers=headers)
    assert (first.status_code, second.status_code) == (200, 200)
    assert blocks_of(second.text)[-1]["text"].startswith("tok0")
    assert [seen.status for seen in upstream.ledger] == [200, 200]


def blocks_of(stream: str) -> list[dict[str, Any]]:
    """The blocks of a streamed message, as Claude Code puts them together."""
    blocks: list[dict[str, Any]] = []
    for line in stream.split("\n"):
        event = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
        if event.get("type") == "content_block_start":
            blocks.append({**event["content_block"], "json": ""})
        elif event.get("type") == "content_block_delta":
            delta, block = event["delta"], blocks[event["index"]]
            for name in ("text", "thinking", "signature"):
                if name in delta:
                    block[name] += delta[name]
            block["json"] += delta.get("partial_json", "")
    for block in blocks:
        if written := block.pop("json"):
            block["input"] = json.loads(written)
    return blocks
