"""An agent with two tools on OpenAI's models: the unmodified SDK against a server that refuses what OpenAI refuses."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from tests.faults.books import rows
from tests.providers.corpus import image, text, tool
from tests.server.api.end_to_end import streamed
from tests.server.api.raw import answering, chat, post
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


ADVICE = [
    (404, "This model is only supported in v1/responses and not in v1/chat/completions."),
    (400, "Function tools with reasoning are not supported on Chat Completions. Please use the Responses API instead."),
    (400, "gateway.BadRequestError: tools with reasoning are not supported. Please use /V1/RESPONSES."),
    (400, "To use tools with reasoning, call /openai/responses?api-version=preview"),
    (405, "This model is served by the responses endpoint only."),
    (422, "Call client.responses.create for tools with reasoning."),
    (501, "Not in chat completions: use `/responses`."),
]
NO_ADVICE = [
    (400, "messages: tool responses must follow tool calls"),
    (400, "response_format: responses must be JSON. See https://example.com/docs/api-reference/responses/create"),
    (400, "The model is only supported in v1/chat/completions and not in v1/responses."),
    (401, "Wrong key. Keys of the Responses API are no keys of this one."),
]


def _refusing_chat(said: list[tuple[int, str]]) -> Callable[[bytes], bytes]:
    """An upstream whose chat API at `/PLACE/chat/completions` refuses, and whose Responses API answers."""
    output = [{"type": "message", "content": [{"type": "output_text", "text": "hello"}]}]
    answer = {"status": "completed", "output": output, "usage": {"input_tokens": 1, "output_tokens": 1}}

    def respond(head: bytes) -> bytes:
        status, value = 200, answer
        if found := re.search(rb"/(\d+)/chat/completions ", head):
            status, value = said[int(found[1])][0], {"error": {"message": said[int(found[1])][1]}}
        body = json.dumps(value).encode()
        kind = b"content-type: application/json\r\ncontent-length: %d" % len(body)
        return b"HTTP/1.1 %d X\r\n%s\r\n\r\n%s" % (status, kind, body)

    return respond


@asynccontextmanager
async def _before(folder: Path, said: list[tuple[int, str]], api: str) -> AsyncIterator[tuple[Server, list[bytes]]]:
    """A proxy with a provider `pPLACE` for each refusal."""
    lines = ["version: 1", 'storage: {{url: "sqlite:///{db}"}}', "providers:"]
    for place in range(len(said)):
        keys = f'type: openai, base_url: "{{upstream}}/{place}", {api}allow_private: true, price: null, retries: 0'
        lines.append(f"  p{place}: {{{{{keys}}}}}")
    async with (
        answering(_refusing_chat(said)) as (url, heads),
        serving(write_files(folder, url, "\n".join([*lines, ""]))) as server,
    ):
        yield server, heads


def _asked(heads: list[bytes]) -> list[str]:
    """The last words of the paths."""
    return [head.split()[1].decode().rpartition("/")[2] for head in heads if head.startswith(b"POST")]


@pytest.mark.parametrize("api", ["", BY_MODEL])
async def test_the_advice_to_use_the_other_api_is_taken_in_any_words(tmp_path: Path, api: str):
    """Also at OpenAI itself, for a model that is newer than our rules. The next call with tools goes there at once; the
    next without goes there if the first had none either.
    """
    async with _before(tmp_path, ADVICE, api) as (server, heads):
        for place, (_, message) in enumerate(ADVICE):
            del heads[:]
            has_tools = place % 2 == 0
            for tools in (has_tools, has_tools, not has_tools):
                answer = await post(server.port, chat(f"p{place}/gpt-new", **({"tools": TOOLS} if tools else {})))
                assert answer.json["choices"][0]["message"]["content"] == "hello", message
            third = ["completions", "responses"] if has_tools else ["responses"]
            assert _asked(heads) == ["completions", "responses", "responses", *third], message


@pytest.mark.parametrize("api", ["", BY_MODEL])
async def test_a_refusal_without_that_advice_stays_one(tmp_path: Path, api: str):
    """Words about answers, links and the opposite advice send nothing again."""
    async with _before(tmp_path, NO_ADVICE, api) as (server, heads):
        for place, (status, message) in enumerate(NO_ADVICE):
            del heads[:]
            answer = await post(server.port, chat(f"p{place}/gpt-new", tools=TOOLS))
            assert (answer.status, answer.error()["message"].removeprefix(f"p{place}: ")) == (status, message)
            assert _asked(heads) == ["completions"]


async def test_the_same_refusal_by_the_other_api_is_the_answer(tmp_path: Path):
    """A request that went there by the rules of its model is not sent there again."""
    body = json.dumps({"error": {"message": ADVICE[1][1]}}).encode()
    refusal = b"HTTP/1.1 400 X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    async with (
        answering(lambda _: refusal) as (url, heads),
        serving(write_files(tmp_path, url, ROUTING.replace("URL", url))) as server,
    ):
        answer = await post(server.port, chat("openai/gpt-6-sol", tools=TOOLS))
    assert (answer.status, _asked(heads)) == (400, ["responses"])


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
