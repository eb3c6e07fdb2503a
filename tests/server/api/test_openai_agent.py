"""An agent with two tools on OpenAI's models: the unmodified SDK against a server that refuses what OpenAI refuses."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from tests.faults.books import rows
from tests.providers.corpus import image, text, tool
from tests.server.api.end_to_end import streamed
from tests.server.api.raw import chat, post
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream
from tests.upstream.responses_wire import ROOT

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  openai: {{base_url: "URL", api: by_model, allow_private: true, price: null, retries: 0, timeout_s: {timeouts},
           models: {{default: gpt-6-sol}}}}
router: {{default_model: openai/default}}
"""
PRICING = """
version: 1
models:
  openai/*: {input: 2.00, output: 10.00, cached_input: 0.50, max_output: 4096}
"""
NAMES = ["get_weather", "get_time"]
TOOLS: Any = [tool(name) for name in NAMES]
CALLS = "tools(n=2)-reasoning(n=3)-cached(n=2)"
BY_MODEL = "api: by_model, "
REFUSED = "Function tools need /v1/responses here, or reasoning_effort 'none'."
CHAT, RESPONSES = f"{ROOT}/chat/completions", f"{ROOT}/responses"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(upstream: FakeUpstream, tmp_path_factory: Any) -> AsyncIterator[tuple[Server, Path]]:
    folder: Path = tmp_path_factory.mktemp("agent")
    url = upstream.url.removesuffix("/v1") + ROOT
    async with serving(write_files(folder, upstream.url, ROUTING.replace("URL", url), PRICING)) as running:
        yield running, folder


@pytest.fixture(autouse=True)
def _fresh(upstream: FakeUpstream) -> None:
    upstream.reset()
    upstream.modes = {}


async def _answer(client: AsyncOpenAI, is_streamed: bool, **asked: Any) -> Any:
    if is_streamed:
        completion, _ = await streamed(client, "openai/default", **asked)
        return completion
    return await client.chat.completions.create(model="openai/default", **asked)


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_an_agent_with_two_tools_thinks_on_the_default_model(
    server: tuple[Server, Path], upstream: FakeUpstream, is_streamed: bool
):
    """Three turns, with a client that drops what it does not know: both calls come, their results are taken, and the
    encrypted reasoning goes back before the calls that followed from it. The last answer shows the request.
    """
    running, folder = server
    since = len(rows(folder, "attempts"))
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one two three"}]
    for turn in range(2):
        upstream.modes = {"gpt-6-sol": CALLS}
        answer = await _answer(running.client, is_streamed, messages=messages, tools=TOOLS, reasoning_effort="high")
        choice, usage = answer.choices[0], answer.usage
        calls = choice.message.tool_calls
        assert (choice.finish_reason, [call.function.name for call in calls]) == ("tool_calls", NAMES)
        assert usage.completion_tokens_details.reasoning_tokens == 3
        assert usage.prompt_tokens_details.cached_tokens == 2
        plain = [{"id": call.id, "type": "function", "function": call.function.model_dump()} for call in calls]
        messages.append({"role": "assistant", "content": None, "tool_calls": plain})
        messages += [{"role": "tool", "tool_call_id": call.id, "content": f"done {turn}"} for call in calls]
    upstream.modes = {"gpt-6-sol": "echo"}
    answer = await _answer(running.client, is_streamed, messages=messages, tools=TOOLS, reasoning_effort="high")
    sent = json.loads(answer.choices[0].message.content)
    turn_of = ["reasoning", *["function_call"] * 2, *["function_call_output"] * 2]
    assert [item["type"] for item in sent["input"]] == ["message", "message", *turn_of, *turn_of]
    assert (sent["store"], sent["include"]) == (False, ["reasoning.encrypted_content"])
    assert "previous_response_id" not in sent
    assert [(seen.path, seen.status) for seen in upstream.ledger] == [(RESPONSES, 200)] * 3
    for row in rows(folder, "attempts")[since : since + 2]:
        assert (row["cache_read"], row["reasoning"]) == (2, 3)
        assert row["cost_nano"] == row["input"] * 2000 + 2 * 500 + row["output"] * 10_000


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_what_a_server_in_front_of_openai_refuses_goes_to_its_other_api(
    tmp_path: Path, upstream: FakeUpstream, is_streamed: bool
):
    """Without the key `api`. The refusal is an attempt of its own and costs nothing; the next call knows."""
    url = upstream.url.removesuffix("/v1") + ROOT
    upstream.modes = {"gpt-6-sol": "ok"}
    async with serving(
        write_files(tmp_path, upstream.url, ROUTING.replace("URL", url).replace(BY_MODEL, ""))
    ) as server:
        asked: Any = {"messages": [{"role": "user", "content": "hi"}], "tools": TOOLS}
        for _ in range(2):
            answer = await _answer(server.client, is_streamed, **asked)
            assert answer.choices[0].message.content.startswith("tok0")
        assert (await _answer(server.client, is_streamed, messages=asked["messages"])).choices[0].message.content
    sent = [(CHAT, 400), (RESPONSES, 200), (RESPONSES, 200), (CHAT, 200)]
    assert [(seen.path, seen.status) for seen in upstream.ledger] == sent
    first, second, *_ = rows(tmp_path, "attempts")
    assert (first["cost_nano"], second["outcome"]) == (0, "ok")


@pytest.mark.parametrize(("key", "fields"), [("api: chat, ", {}), ("", {"n": 2})])
async def test_what_cannot_go_there_is_the_servers_refusal(
    tmp_path: Path, upstream: FakeUpstream, key: str, fields: dict[str, Any]
):
    """And it names the key that helps."""
    url = upstream.url.removesuffix("/v1") + ROOT
    upstream.modes = {"gpt-6-sol": "ok"}
    async with serving(
        write_files(tmp_path, upstream.url, ROUTING.replace("URL", url).replace(BY_MODEL, key))
    ) as server:
        answer = await post(server.port, chat("openai/gpt-6-sol", tools=TOOLS, **fields))
    assert (answer.status, "`api: by_model`" in answer.error()["message"]) == (400, True)
    assert [(seen.path, seen.status) for seen in upstream.ledger] == [(CHAT, 400)]


async def test_a_server_without_the_other_api_has_refused(tmp_path: Path):
    """Its first answer says what is wrong; the second only that there is nothing at that path."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        await reader.readexactly(int(next(iter(re.findall(r"(?i)content-length: (\d+)", head)), 0)))
        asked.append(head.split()[1])
        is_chat = asked[-1].endswith("/chat/completions")
        body = json.dumps(
            {"error": {"message": REFUSED if is_chat else "no such path", "type": "invalid_request_error"}}
        )
        status = "400 Bad Request" if is_chat else "404 Not Found"
        kind = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close"
        writer.write(f"HTTP/1.1 {status}\r\n{kind}\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as peer:
        url = f"http://127.0.0.1:{peer.sockets[0].getsockname()[1]}/v1"
        async with serving(write_files(tmp_path, url, ROUTING.replace("URL", url).replace(BY_MODEL, ""))) as server:
            answer = await post(server.port, chat("openai/gpt-6-sol", tools=TOOLS))
    assert [path for path in asked if path != "/v1/models"] == ["/v1/chat/completions", "/v1/responses"]
    assert (answer.status, answer.error()["message"].startswith(REFUSED)) == (400, True)


@pytest.mark.parametrize(
    ("model", "fields", "path"),
    [
        ("gpt-6-luna", {}, CHAT),
        ("gpt-6-luna", {"reasoning_effort": "high"}, CHAT),
        ("gpt-6-luna", {"tools": TOOLS}, RESPONSES),
        ("gpt-6-astra", {"tools": TOOLS}, RESPONSES),
        ("gpt-5.6-luna", {"tools": TOOLS, "reasoning_effort": "low"}, RESPONSES),
        ("gpt-5.6-luna", {"tools": TOOLS, "reasoning_effort": "none"}, CHAT),
        ("gpt-5.6-terra", {"reasoning_effort": "max"}, RESPONSES),
        ("gpt-5.4", {"tools": TOOLS}, CHAT),
        ("gpt-5.4-mini", {"tools": TOOLS, "reasoning_effort": "minimal"}, RESPONSES),
        ("gpt-5.2", {"tools": TOOLS, "reasoning_effort": "high"}, CHAT),
        ("gpt-4.1", {"tools": TOOLS}, CHAT),
        ("gpt-5.5-pro", {}, RESPONSES),
        ("gpt-5.3-codex", {"tools": TOOLS, "reasoning_effort": "none"}, RESPONSES),
        ("o3-pro-2025-06-10", {}, RESPONSES),
    ],
)
async def test_model_and_request_choose_the_api(
    server: tuple[Server, Path], upstream: FakeUpstream, model: str, fields: dict[str, Any], path: str
):
    """What OpenAI would refuse at one is asked at the other; the rest stays at the chat API."""
    upstream.modes = {model: "ok"}
    answer = await server[0].client.chat.completions.create(
        model=f"openai/{model}", messages=[{"role": "user", "content": "hi"}], **fields
    )
    assert answer.choices[0].message.content.startswith("tok0")
    assert [(seen.path, seen.status) for seen in upstream.ledger] == [(path, 200)]


async def test_a_picture_in_a_tools_result_arrives(server: tuple[Server, Path], upstream: FakeUpstream):
    """The chat API has no place for it, at any model."""
    upstream.modes = {"gpt-4.1": "actor"}
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    history: list[Any] = [
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": [text("Here."), image()]},
    ]
    answer = await server[0].client.chat.completions.create(model="openai/gpt-4.1", messages=history, tools=TOOLS)
    assert answer.choices[0].message.content
    assert [(seen.path, seen.status) for seen in upstream.ledger] == [(RESPONSES, 200)]


async def test_choices_are_seats_where_the_api_has_none(server: tuple[Server, Path], upstream: FakeUpstream):
    """At the chat API `n` is one call, at the other two; told."""
    upstream.modes = {"gpt-6-luna": "ok"}
    for fields, calls, adapted in (({}, 1, []), ({"tools": TOOLS}, 2, ["n"])):
        upstream.reset()
        answer = await post(server[0].port, chat("openai/gpt-6-luna", n=2, **fields))
        assert [choice["index"] for choice in answer.json["choices"]] == [0, 1]
        assert (len(upstream.ledger), answer.headers("x-proxy-adapted-params")) == (calls, adapted)
