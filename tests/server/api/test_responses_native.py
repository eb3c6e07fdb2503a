"""`/v1/responses` at OpenAI: the client's bytes arrive, the vendor's bytes come back, and the call is metered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.server.formats.responses import state
from tests.server.api.raw import post
from tests.server.api.rows import row_with_id
from tests.server.formats.test_made_up_format import refusing, vendor
from tests.serving import serving, write_files

PATH = "/v1/responses"
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  openai: {{base_url: "{upstream}", api: by_model, allow_private: true, price: null, retries: 0,
           timeout_s: {timeouts}MORE}}
router: {{default_model: openai/m}}
"""
PRICING = """
version: 1
models:
  openai/m: {input: 2.00, output: 10.00, max_output: 50, context: 100000}
"""
ITEM = '{"type":"message","id":"msg_1","role":"assistant","content":[{"type":"output_text","text":"Hi","x":1.50}]}'
WHOLE = (
    '{ "id":"resp_1",  "object":"response", "status":"completed", "x_new": 1.50, "output": [' + ITEM + "],"
    '"usage": {"input_tokens": 4, "output_tokens": 2, "total_tokens": 6}}'
).encode()
STREAM = (
    'event: response.created\r\ndata: {"type":"response.created","response":{"id":"resp_1"}}\r\n\r\n'
    'event: response.new_thing\ndata: {"type":"response.new_thing", "x": 1.50}\n\n: comment\n\n'
    "event: response.output_text.delta\n"
    'data: {"type":"response.output_text.delta","output_index":0,"delta":"H\\u0069"}\n\n'
    'event: response.completed\ndata: {"type":"response.completed","response":' + WHOLE.decode() + "}\n\n"
).encode()


def files(folder: Path, url: str, more: str = "") -> Path:
    return write_files(folder, url, ROUTING.replace("MORE", more), PRICING)


@pytest.mark.parametrize("stream", [False, True])
async def test_bytes_pass_both_ways_and_are_metered(tmp_path: Path, stream: bool) -> None:
    """Spaces, escapes, fields, items, tools and events that nobody here knows; another name changes that member."""
    body = (
        b'{ "model" : "m", "x_unknown": 1.50,  "stream": %s, "input":[{"role":"user","content":"h\\u0069"},'
        b'{"type":"web_search_call","id":"ws"}], "tools": [{"type":"mcp"}]}' % (b"true" if stream else b"false")
    )
    answer, kind = (STREAM, b"text/event-stream") if stream else (WHOLE, b"application/json")
    async with vendor(answer, kind) as (url, bodies), serving(files(tmp_path, url)) as server:
        got = await post(server.port, body, PATH)
        named = await post(server.port, body.replace(b'"m"', b'"openai/m"'), PATH)
        row = await row_with_id(tmp_path / "usage.db", got.headers("x-request-id")[0])
    assert [each.status for each in (got, named)] == [200, 200]
    assert [each.body for each in (got, named)] == [answer, answer]
    assert bodies[0] == body
    assert bodies[1].startswith(b'{"model":"m","x_unknown":1.50,') and json.loads(bodies[1]) == json.loads(body)
    assert (row["outcome"], row["input_tokens"], row["output_tokens"]) == ("ok", 4, 2)


async def test_hints_caps_and_parameters_change_what_they_must(tmp_path: Path) -> None:
    """Hints are nobody else's; what the operator adds is told."""
    asked = {"model": "m", "input": "hi", "routing": {"priority": "high"}}
    asked |= {"metadata": {"routing.task": "chat", "a": "b"}}
    flex = ", parameters: {{service_tier: flex}}"
    async with vendor(WHOLE, b"application/json") as (url, bodies), serving(files(tmp_path, url, flex)) as server:
        got = await post(server.port, json.dumps(asked).encode(), PATH)
    assert got.status == 200
    assert json.loads(bodies[0]) == {"model": "m", "input": "hi", "metadata": {"a": "b"}, "service_tier": "flex"}
    assert got.headers("x-proxy-adapted-params") == ["service_tier"]


async def test_a_conversation_with_other_vendors_thoughts_is_translated(tmp_path: Path) -> None:
    """OpenAI would refuse their state; the rest goes on."""
    packed = state.packed({"thinking_blocks": [{"type": "thinking"}]}, {})
    items: list[Any] = [
        {"role": "user", "content": "hi"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": packed},
        {"role": "assistant", "content": "so"},
        {"role": "user", "content": "on"},
    ]
    async with vendor(WHOLE, b"application/json") as (url, bodies), serving(files(tmp_path, url)) as server:
        asked = {"model": "openai/gpt-5.5-pro", "input": items}
        got = await post(server.port, json.dumps(asked).encode(), PATH)
    assert (got.status, got.json["store"], got.json["output"][0]["content"][0]["text"]) == (200, False, "Hi")
    assert b"thinking" not in bodies[0] and b"encrypted_content" not in bodies[0].replace(b"reasoning.encrypted", b"")


async def test_a_budget_takes_offers_that_nothing_bounds(tmp_path: Path) -> None:
    """An agent's turn goes on without the search that it offers; one that demands it is refused, as anywhere."""
    function = {"type": "function", "name": "f", "parameters": {}}
    asked = {"model": "m", "input": "hi", "tools": [function, {"type": "web_search"}]}
    async with vendor(WHOLE, b"application/json") as (url, bodies):
        path = files(tmp_path, url)
        path.write_text(path.read_text() + "budget: {daily_usd: 1}\n")
        async with serving(path) as server:
            got = await post(server.port, json.dumps(asked).encode(), PATH)
            forced = {**asked, "tool_choice": {"type": "web_search"}}
            refused = await post(server.port, json.dumps(forced).encode(), PATH)
    assert (got.status, got.headers("x-proxy-adapted-params")) == (200, ["tools"])
    assert json.loads(bodies[0])["tools"] == [function]
    assert (refused.status, refused.json["error"]["code"]) == (402, "price_unknown")


async def test_a_vendors_error_passes_as_it_is(tmp_path: Path) -> None:
    """Its status and its body."""
    error = b'{ "error": {"message": "No.", "type": "invalid_request_error", "param": "input[0]", "x": 1.50}}'
    async with refusing(400, error) as url, serving(files(tmp_path, url)) as server:
        got = await post(server.port, b'{"model": "m", "input": "hi"}', PATH)
    assert (got.status, got.body) == (400, error)


FAILED = (
    b"event: response.failed\n"
    b'data: {"type":"response.failed","response":{"error":{"code":"server_error","message":"No."}}}\n\n'
)
BEGUN = STREAM[: STREAM.index(b"event: response.completed")]


@pytest.mark.parametrize(("end", "told"), [(FAILED, FAILED), (FAILED.rstrip(), FAILED), (b"", None)])
async def test_a_stream_that_fails_ends_with_one_error(tmp_path: Path, end: bytes, told: bytes | None) -> None:
    """The vendor's own where it said so, else ours behind its bytes."""
    async with vendor(BEGUN + end, b"text/event-stream") as (url, _), serving(files(tmp_path, url)) as server:
        got = await post(server.port, b'{"model": "m", "input": "hi", "stream": true}', PATH)
    assert got.body.startswith(BEGUN)
    rest = got.body[len(BEGUN) :]
    if told is not None:
        assert rest == told
    else:
        assert rest.startswith(b"event: error\n") and rest.count(b"event: ") == 1
        assert json.loads(rest.partition(b"data: ")[2])["error"]["code"] == "upstream_truncated"


async def test_an_ensemble_of_openais_models_answers_for_itself(tmp_path: Path) -> None:
    """None of its members' own bytes are its answer."""
    more = "ensembles: {enabled: true, pair: {strategy: voting, members: [openai/m, openai/n]}}\n"
    async with vendor(WHOLE, b"application/json") as (url, _):
        path = files(tmp_path, url)
        path.write_text(path.read_text() + more)
        async with serving(path) as server:
            got = await post(server.port, b'{"model": "ensemble:pair", "input": "hi"}', PATH)
    assert got.status == 200, got.body
    assert (got.json["model"], got.json["output"][0]["content"][0]["text"]) == ("ensemble:pair", "Hi")
