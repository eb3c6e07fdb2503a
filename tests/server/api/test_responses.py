"""`/v1/responses` through the unmodified OpenAI SDK, over sockets: whole, streamed, parsed, with tools and thoughts."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
import pytest_asyncio
from openai.types.responses import Response
from pydantic import BaseModel

from tests.providers.corpus import PNG
from tests.server.api.end_to_end import TEN
from tests.server.api.raw import get, post, request, send
from tests.server.api.rows import row_with_id
from tests.server.formats.test_responses_fold import added_up, parsed
from tests.serving import Server, serving, write_files
from tests.slowness import slowness
from tests.upstream import FakeUpstream
from tests.upstream.dialects import GROQ, MISTRAL
from tests.upstream.responses_wire import ROOT

pytestmark = pytest.mark.asyncio(loop_scope="module")

FIXTURES = Path(__file__).parents[2] / "fixtures" / "clients"
CLIENTS: dict[str, Any] = json.loads((FIXTURES / "responses.requests.json").read_text())
PATH = "/v1/responses"
# Without reasoning state: what goes on must be in the items that the client sends back.
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}", reasoning_state: "off"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
  deep: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
  openai: {{base_url: "URL", api: by_model, allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
  ant: {{type: anthropic, base_url: "{upstream}", api_key_env: null, allow_private: true, price: null, retries: 0}}
  gem: {{type: google, base_url: "{upstream}", api_key_env: null, allow_private: true, price: null, retries: 0}}
  groq: {{type: groq, base_url: "ORIGINGROQ", api_key_env: null, allow_private: true, price: null, retries: 0}}
  mistral: {{type: mistral, base_url: "ORIGINMISTRAL", api_key_env: null, allow_private: true, price: null, retries: 0}}
  cohere: {{type: cohere, base_url: "{upstream}", api_key_env: null, allow_private: true, price: null, retries: 0}}
router: {{default_model: fake/ok, fallback: [deep/ok]}}
aliases: {{gpt-5.4-mini: fake/ok}}
ensembles:
  enabled: true
  pair: {{strategy: voting, members: [fake/ok, deep/ok]}}
"""
PRICING = """
version: 1
models:
  fake/*: {input: 2.00, output: 10.00, max_output: 4096}
  deep/*: {input: 2.00, output: 10.00, max_output: 4096}
  openai/*: {input: 2.00, output: 10.00, max_output: 4096}
"""
VENDORS = ("fake", "openai", "ant", "gem", "groq", "mistral", "cohere")
TOOLS: Any = [
    {"type": "function", "name": name, "parameters": {"type": "object", "properties": {}}, "strict": False}
    for name in ("get_weather", "get_time")
]
USER: Any = {"type": "message", "role": "user", "content": "one two three"}


class Fruit(BaseModel):
    name: str
    colour: Literal["red", "blue"]
    tags: list[str]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("responses") / "usage.db"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(upstream_of_module: FakeUpstream, database: Path) -> AsyncIterator[Server]:
    origin = upstream_of_module.url.removesuffix("/v1")
    written = ROUTING.replace("ORIGINMISTRAL", origin + MISTRAL).replace("ORIGINGROQ", origin + GROQ)
    files = write_files(database.parent, upstream_of_module.url, written.replace("URL", origin + ROOT), PRICING)
    async with serving(files) as running:
        yield running


@pytest.fixture
def api(server: Server, upstream: FakeUpstream) -> Any:
    """The SDK's client, without its types: the tests read what the types call optional."""
    return server.client.responses


async def final(api: Any, **asked: Any) -> Any:
    async with api.stream(**asked) as events:
        async for _ in events:
            pass
        return await events.get_final_response()


def model_of(vendor: str, upstream: FakeUpstream, mode: str) -> str:
    """OpenAI's models have rules of their own, so its name stays and the mode is set beside it."""
    if vendor == "openai":
        upstream.modes = {"gpt-6-sol": mode}
        return "openai/gpt-6-sol"
    upstream.modes = {"thinker": mode, "claude-opus-4-5": mode, "gemini-3-pro-preview": mode}
    return {"ant": "ant/claude-opus-4-5", "gem": "gem/gemini-3-pro-preview"}.get(vendor, f"{vendor}/thinker")


@pytest.mark.parametrize("vendor", VENDORS)
async def test_an_answer_is_the_same_whole_and_streamed(api: Any, upstream: FakeUpstream, vendor: str) -> None:
    """Of every wire, and OpenAI's own passes as it is."""
    asked = {"model": model_of(vendor, upstream, "ok"), "input": [USER], "instructions": "Be brief."}
    whole, streamed = await api.create(**asked), await final(api, **asked)
    assert (whole.status, whole.output_text, whole.object) == ("completed", TEN, "response")
    assert (streamed.status, streamed.output_text) == ("completed", TEN)
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens > 0
    assert streamed.usage.total_tokens == whole.usage.total_tokens
    Response.model_validate(json.loads(whole.model_dump_json()))


@pytest.mark.parametrize("vendor", VENDORS)
async def test_an_answer_can_be_parsed(api: Any, upstream: FakeUpstream, vendor: str) -> None:
    """`text_format` is a schema of the chat's response_format."""
    answer = await api.parse(model=model_of(vendor, upstream, "actor"), input=[USER], text_format=Fruit)
    assert isinstance(answer.output_parsed, Fruit)


def _thoughts(vendor: str, body: dict[str, Any]) -> list[Any]:
    """What reached the vendor of each turn's reasoning."""
    if vendor == "openai":
        return [item["encrypted_content"] for item in body["input"] if item["type"] == "reasoning"]
    if vendor == "gem":
        parts = [part for content in body["contents"] for part in content["parts"] if "functionCall" in part]
        return [part["thoughtSignature"] for part in parts if "thoughtSignature" in part]
    if vendor == "ant":
        blocks = [block for turn in body["messages"] for block in turn["content"] if isinstance(block, dict)]
        return [block["signature"] for block in blocks if block["type"] == "thinking"]
    said = [message for message in body["messages"] if message["role"] == "assistant"]
    return [message.get("reasoning_content") or message.get("reasoning") for message in said]


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("vendor", ["openai", "ant", "gem", "groq", "deep"])
async def test_an_agent_with_two_tools_thinks_on(
    api: Any, upstream: FakeUpstream, vendor: str, is_streamed: bool
) -> None:
    """Three turns whose items go back as they came: calls, results and, encrypted, the thoughts before them."""
    model = model_of(vendor, upstream, "tools(n=2)-reasoning(n=3)")
    items: list[Any] = [USER]
    asked: dict[str, Any] = {"tools": TOOLS, "store": False, "include": ["reasoning.encrypted_content"]}
    asked |= {"reasoning": {"effort": "high", "summary": "auto"}}
    for turn in range(2):
        answer = await (final if is_streamed else _create)(api, model=model, input=items, **asked)
        called = [item for item in answer.output if item.type == "function_call"]
        assert [call.name for call in called] == ["get_weather", "get_time"]
        assert any(item.type == "reasoning" and item.encrypted_content for item in answer.output)
        items += answer.output
        items += [
            {"type": "function_call_output", "call_id": call.call_id, "output": f"done {turn}"} for call in called
        ]
    model_of(vendor, upstream, "echo")
    answer = await (final if is_streamed else _create)(api, model=model, input=items, **asked)
    found = _thoughts(vendor, json.loads(answer.output_text))
    if vendor != "groq":
        assert len(found) == 2 and all(found), found
    assert all(seen.status == 200 for seen in upstream.ledger)


async def _create(api: Any, **asked: Any) -> Any:
    return await api.create(**asked)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("vendor", ["fake", "ant", "gem", "groq"])
@pytest.mark.parametrize("client", CLIENTS)
async def test_what_clients_send_is_answered(server: Server, upstream: FakeUpstream, client: str, vendor: str) -> None:
    """Requests as they were captured, each in its own shape, by models of several vendors."""
    sent = CLIENTS[client]
    body = json.dumps({**sent["body"], "model": f"{vendor}/actor"}).replace(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAA", PNG
    )
    answer = await post(server.port, body.encode(), sent["path"])
    assert answer.status == 200, answer.body
    if sent["body"].get("stream"):
        found = parsed(answer.body, 1000)
        assert found[-1]["type"] == "response.completed"
        response, _ = added_up(found)
    else:
        response = answer.json
    Response.model_validate(response)
    assert response["status"] == "completed"
    assert response["output"]


async def test_a_coding_agents_hosted_tools_are_left_out_and_told(server: Server, upstream: FakeUpstream) -> None:
    """Codex and Cline offer them beside their own, whatever the model; Codex groups some of its own."""
    for client, lost in (("codex-cli", "tools.web_search"), ("cline-openai-native", "tools.image_generation")):
        body = json.dumps({**CLIENTS[client]["body"], "model": "ant/actor"}).encode()
        answer = await post(server.port, body, PATH)
        assert answer.status == 200
        assert lost in answer.headers("x-proxy-dropped-params")[0].split(",")
    alone = json.dumps({"model": "ant/actor", "input": "hi", "tools": [{"type": "file_search"}]}).encode()
    refused = (await post(server.port, alone, PATH)).json["error"]
    assert (refused["param"], refused["code"]) == ("tools.0.type", "unsupported_parameter")
    assert "'file_search'" in refused["message"]


async def test_custom_and_grouped_tools_come_back_as_such(api: Any, upstream: FakeUpstream) -> None:
    """To the model they are functions."""
    tools = [{"type": "custom", "name": "patch", "description": "d"}]
    answer = await api.create(
        model="ant/actor", input="hi", tools=tools, tool_choice={"type": "custom", "name": "patch"}
    )
    (call,) = [item for item in answer.output if item.type == "custom_tool_call"]
    assert (call.name, isinstance(call.input, str)) == ("patch", True)
    group = [{"type": "namespace", "name": "agents", "description": "d", "tools": TOOLS[:1]}]
    answer = await api.create(model="ant/actor", input="hi", tools=group, tool_choice="required")
    (grouped,) = [item for item in answer.output if item.type == "function_call"]
    assert (grouped.name, grouped.namespace) == ("get_weather", "agents")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_responses_body_at_the_chat_path_is_answered_in_its_own_shape(
    server: Server, upstream: FakeUpstream, stream: bool
) -> None:
    """Cursor does that; a body that is neither is refused as before."""
    body = {"model": "fake/ok", "input": [USER], "stream": stream}
    answer = await post(server.port, json.dumps(body).encode())
    response = added_up(parsed(answer.body, 1000))[0] if stream else answer.json
    assert (response["object"], response["output"][0]["content"][0]["text"]) == ("response", TEN)
    refused = await post(server.port, b'{"model": "fake/ok"}')
    assert (refused.status, refused.json["error"]["param"]) == (400, "messages")
    wrong = await post(server.port, b'{"model": "fake/ok", "input": [5]}')
    assert (wrong.status, wrong.json["error"]["param"]) == (400, "input.0")


async def test_a_web_socket_is_refused_at_once(server: Server) -> None:
    """Codex tries one first, and takes 426 for `use POST`."""
    headers = {"upgrade": "websocket", "connection": "upgrade, close", "sec-websocket-version": "13"}
    headers["sec-websocket-key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    spent_s, before = [], slowness()
    for _ in range(3):  # background work of the server may fall into one of them
        began = time.process_time()
        answer = await send(server.port, request(method="GET", path=PATH, headers=headers))
        spent_s.append(time.process_time() - began)
        assert (answer.status, answer.json["error"]["code"]) == (426, "method_not_allowed")
    assert min(spent_s) < 0.05 * max(before, slowness())
    plain = await get(server.port, PATH)
    assert (plain.status, plain.headers("allow")) == (405, ["POST"])


async def test_what_only_openai_has_is_not_found(api: Any) -> None:
    """OpenAI's SDK tells 404 from other faults: its users go on without."""
    with pytest.raises(openai.NotFoundError, match=r"no POST /responses/compact\."):
        await api.compact(model="fake/ok", input="hi")
    with pytest.raises(openai.NotFoundError, match=r"no POST /responses/input_tokens\."):
        await api.input_tokens.count(model="fake/ok", input="hi")
    with pytest.raises(openai.NotFoundError, match="nothing at"):
        await api.cancel("resp_1")


@pytest.mark.parametrize("method", ["retrieve", "delete"])
async def test_nothing_is_stored(api: Any, method: str) -> None:
    """404 that says so, whatever was asked for; and an answer never claims to be stored."""
    with pytest.raises(openai.NotFoundError, match="nothing is stored here"):
        await getattr(api, method)("resp_1")
    with pytest.raises(openai.NotFoundError, match="nothing is stored here"):
        await api.input_items.list("resp_1")
    raw = await api.with_raw_response.create(model="fake/ok", input="hi", store=True)
    assert raw.parse().model_extra["store"] is False
    assert raw.headers["x-proxy-dropped-params"] == "store"
    with pytest.raises(openai.BadRequestError) as caught:
        await api.create(model="fake/ok", input="hi", previous_response_id="resp_1")
    assert caught.value.param == "previous_response_id"


async def test_errors_are_openais(api: Any, upstream: FakeUpstream) -> None:
    """With the field that is wrong, a status where there is one, and an event where there is none."""
    with pytest.raises(openai.BadRequestError) as bad:
        await api.create(model="fake/ok", input=[USER, {"role": "user", "content": [{"type": "input_video"}]}])
    assert bad.value.param == "input.1.content.0.type"
    with pytest.raises(openai.NotFoundError) as unknown:
        await api.create(model="nobody/x", input="hi")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.InternalServerError):
        await api.create(model="fake/e500", input="hi")
    with pytest.raises(openai.APIError) as broken:
        await final(api, model="fake/cut_clean(k=2)", input="hi")
    assert broken.value.code == "upstream_truncated"


async def test_everything_around_a_call_works_here_too(server: Server, api: Any, database: Path) -> None:
    """Virtual names, ensembles, fallbacks, hints in all three places, aliases; each with its row."""
    auto = await api.with_raw_response.create(
        model="auto", input="hi", extra_headers={"x-proxy-priority": "high"}, extra_body={"routing": {"trace": True}}
    )
    assert auto.parse().output_text == TEN
    assert auto.parse().model_extra["routing"]["requested"] == "auto"
    row = await row_with_id(database, auto.headers["x-request-id"])
    assert (row["outcome"], row["requested_model"]) == ("ok", "auto")
    assert auto.parse().id == f"resp_{auto.headers['x-request-id']}"
    hinted = await api.create(model="fake/echo", input="hi", metadata={"routing.priority": "high", "a": "b"})
    assert json.loads(hinted.output_text)["metadata"] == {"a": "b"}
    ensemble = await api.create(model="ensemble:pair", input="hi")
    assert (ensemble.output_text, ensemble.model) == (TEN, "ensemble:pair")
    assert ensemble.model_extra["routing"]["ensemble"]
    assert (await final(api, model="ensemble:pair", input="hi")).output_text == TEN
    saved = await api.create(model="fake/e500", input="hi", extra_body={"routing": {"fallback": ["deep/ok"]}})
    assert (saved.output_text, saved.model) == (TEN, "deep/ok")
    assert (await api.create(model="gpt-5.4-mini", input="hi")).model == "fake/ok"  # an agent's background model
    with pytest.raises(openai.BadRequestError):
        await api.create(model="fake/ok", input="hi", extra_body={"routing": {"taks": "code"}})
    capped = await api.create(model="fake/ok(n_tokens=9)", input="hi", max_output_tokens=4)
    assert (capped.status, capped.incomplete_details.reason) == ("incomplete", "max_output_tokens")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_repeat_gets_the_same_answer(server: Server, upstream: FakeUpstream, stream: bool) -> None:
    """By its Idempotency-Key: the same bytes, one request to the vendor."""
    body = json.dumps({"model": "fake/ok", "input": "hi", "stream": stream}).encode()
    key = f"responses-{stream}"
    first, second = [await post(server.port, body, PATH, idempotency_key=key) for _ in range(2)]
    texts = [re.findall(rb'"(?:text|delta|id)":"([^"]*)"', answer.body) for answer in (first, second)]
    assert texts[0] == texts[1]  # its cost is another: a repeat pays nothing
    assert second.headers("idempotent-replayed") == ["true"]
    assert len(upstream.ledger) == 1


async def test_refusals_have_rows(server: Server, database: Path) -> None:
    """A body that names a model is metered as rejected."""
    answer = await post(server.port, b'{"model": "fake/ok", "input": [5]}', PATH)
    row = await row_with_id(database, answer.headers("x-request-id")[0])
    assert (answer.status, row["outcome"], row["requested_model"]) == (400, "rejected", "fake/ok")


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_call_without_its_output_is_no_fault_of_ours(
    server: Server, upstream: FakeUpstream, vendor: str
) -> None:
    """An interrupted agent sends one. Vendors take it or refuse it."""
    call = {"type": "function_call", "call_id": "c1", "name": "get_time", "arguments": "{}"}
    body = {"model": model_of(vendor, upstream, "ok"), "input": [USER, call], "tools": TOOLS}
    answer = await post(server.port, json.dumps(body).encode(), PATH)
    assert answer.status in (200, 400), answer.body


async def test_a_body_can_be_explained(server: Server) -> None:
    """As that of a chat: the model, and nothing is called."""
    answer = await post(server.port, b'{"model": "auto", "input": "hi"}', "/v1/route/explain")
    assert (answer.status, answer.json["chosen"]) == (200, "fake/ok")


async def test_a_conversation_moves_between_endpoints(server: Server, api: Any, upstream: FakeUpstream) -> None:
    """What a chat called is answered here, and the other way round: no call is lost."""
    upstream.modes = {"claude-opus-4-5": "tools(n=2)"}
    nested: list[Any] = [
        {"type": "function", "function": {"name": tool["name"], "parameters": tool["parameters"]}} for tool in TOOLS
    ]
    chat = await server.client.chat.completions.create(
        model="ant/claude-opus-4-5", messages=[{"role": "user", "content": "hi"}], tools=nested
    )
    called = chat.choices[0].message.tool_calls or []
    items: list[Any] = [USER]
    for call in called:
        function = {"name": call.function.name, "arguments": call.function.arguments}  # type: ignore[union-attr]
        items.append({"type": "function_call", "call_id": call.id, **function})
    items += [{"type": "function_call_output", "call_id": call.id, "output": "done"} for call in called]
    upstream.modes = {"claude-opus-4-5": "echo"}
    answer = await api.create(model="ant/claude-opus-4-5", input=items, tools=TOOLS)
    turns = json.loads(answer.output_text)["messages"]
    assert [block["id"] for block in turns[1]["content"] if block["type"] == "tool_use"] == [call.id for call in called]
    assert [block["tool_use_id"] for block in turns[2]["content"]] == [call.id for call in called]
