"""What only Anthropic has, through the product; what all vendors have is in `test_vendors_e2e`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.providers.corpus import SCHEMA, image, text, tool
from tests.server.api.end_to_end import HELLO, streamed
from tests.server.api.raw import chat, post
from tests.serving import Server
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
NEW, BUDGET = "claude-opus-5-5", "claude-haiku-4-5"


async def test_a_refusal_is_one(vendors: Server, upstream: FakeUpstream):
    """Its reason in OpenAI's field, whole and streamed."""
    whole = (await vendors.client.chat.completions.create(model="anthropic/refusal", messages=HELLO)).choices[0]
    assert whole.finish_reason == "content_filter"
    said = whole.message.refusal
    assert said is not None
    assert said.startswith("tok0 tok1")
    answer = await post(vendors.port, chat("anthropic/refusal", stream=True))
    choices = [choice for event in answer.events if event != "[DONE]" for choice in event["choices"]]
    assert "".join(choice["delta"].get("refusal") or "" for choice in choices) == said
    assert choices[-1]["finish_reason"] == "content_filter"


@pytest.mark.parametrize("model", [NEW, BUDGET])
@pytest.mark.parametrize("keeps", [True, False])
async def test_thoughts_go_back_with_their_calls(sdk: Any, upstream: FakeUpstream, model: str, keeps: bool):
    """Also those of a client that drops them; the vendor takes the next turn, and still thinks."""
    upstream.modes[model] = "tools(n=2)-reasoning(n=2)"
    tools, name = [tool("a"), tool("b")], f"anthropic/{model}"
    first = await sdk.chat.completions.create(model=name, messages=HELLO, tools=tools, reasoning_effort="low")
    message = first.choices[0].message
    assert message.reasoning_content == "think0 think1 "
    sent = message.model_dump(exclude_none=True)
    if not keeps:
        sent = {field: sent[field] for field in ("role", "tool_calls")}
    results = [{"role": "tool", "tool_call_id": call.id, "content": "done"} for call in message.tool_calls]
    upstream.modes[model] = "echo"
    second = await sdk.chat.completions.create(
        model=name, messages=[*HELLO, sent, *results], tools=tools, reasoning_effort="low"
    )
    body = json.loads(second.choices[0].message.content)
    assert [block["type"] for block in body["messages"][1]["content"]] == ["thinking", "tool_use", "tool_use"]
    assert body["thinking"]["type"] in ("adaptive", "enabled")
    assert [seen.status for seen in upstream.ledger] == [200, 200]


async def test_pictures_system_and_schema_arrive_as_the_vendor_wants_them(sdk: Any, upstream: FakeUpstream):
    """The request that reached it."""
    upstream.modes[NEW] = "echo"
    format_ = {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA, "strict": True}}
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [text(), image()]}]
    answer = await sdk.chat.completions.create(
        model=f"anthropic/{NEW}", messages=messages, response_format=format_, temperature=0.3
    )
    body = json.loads(answer.choices[0].message.content)
    assert body["system"] == [{"type": "text", "text": "Be brief."}]
    assert [block["type"] for block in body["messages"][0]["content"]] == ["text", "image"]
    assert body["output_config"]["format"]["schema"] == SCHEMA
    assert "temperature" not in body


async def test_older_models_answer_json_by_a_tool(sdk: Any, upstream: FakeUpstream):
    """Streamed too: it is content, and the answer has stopped."""
    model = "claude-sonnet-4-20250514"
    upstream.modes[model] = "tools"
    schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    format_ = {"type": "json_schema", "json_schema": {"name": "p", "schema": schema}}
    whole = await sdk.chat.completions.create(model=f"anthropic/{model}", messages=HELLO, response_format=format_)
    stream, _ = await streamed(sdk, f"anthropic/{model}", response_format=format_)
    for answer in (whole, stream):
        assert json.loads(answer.choices[0].message.content)["text"].startswith("tok0")
        assert answer.choices[0].finish_reason == "stop"
        assert not answer.choices[0].message.tool_calls


async def test_an_overload_in_the_middle_of_a_stream_has_its_own_code(vendors: Server, upstream: FakeUpstream):
    """Only its type is said, and the status is out."""
    answer = await post(vendors.port, chat("anthropic/sse_error(k=3,status=529)", stream=True))
    assert answer.events[-1]["error"]["code"] == "overloaded"


async def test_limits_have_openais_names(vendors: Server, upstream: FakeUpstream):
    """The vendor says when, OpenAI how long until then."""
    answer = await post(vendors.port, chat("anthropic/e429"))
    assert answer.headers("x-ratelimit-remaining-requests") == ["49"]
    assert answer.headers("x-ratelimit-reset-requests") == ["1m30s"]
