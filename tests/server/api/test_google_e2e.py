"""What only Gemini has, through the product; what all vendors have is in `test_vendors_e2e`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.providers.corpus import image, text, tool
from tests.server.api.end_to_end import HELLO, streamed
from tests.server.api.raw import chat, post
from tests.serving import Server
from tests.upstream import FakeUpstream
from tests.upstream.google_wire import SIGNATURE

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_loop_of_three_turns_brings_the_signatures_back(sdk: Any, upstream: FakeUpstream, stream: bool):
    """The SDK keeps what it does not know; the vendor refuses calls whose signature is missing."""
    tools = [tool("a"), tool("b")]
    history: Any = list(HELLO)
    for _ in range(2):
        if stream:
            answer, _ = await streamed(sdk, "google/tools(n=2)", messages=history, tools=tools)
        else:
            answer = await sdk.chat.completions.create(model="google/tools(n=2)", messages=history, tools=tools)
        message = answer.choices[0].message
        history.append(message.model_dump(exclude_none=True, exclude={"parsed"}))
        history += [{"role": "tool", "tool_call_id": call.id, "content": "done"} for call in message.tool_calls]
    for call in history[1]["tool_calls"]:
        call["function"].pop("parsed_arguments", None)
    last = await sdk.chat.completions.create(model="google/echo", messages=history, tools=tools)
    sent = json.loads(last.choices[0].message.content)
    calls = [part for content in sent["contents"] for part in content["parts"] if "functionCall" in part]
    assert [part.get("thoughtSignature") for part in calls] == [SIGNATURE, None, SIGNATURE, None]
    assert [seen.status for seen in upstream.ledger] == [200, 200, 200]


async def test_a_blocked_prompt_is_content_filter(sdk: Any):
    """Whole and streamed: no content, a refusal."""
    whole = (await sdk.chat.completions.create(model="google/refusal", messages=HELLO)).choices[0]
    assert (whole.finish_reason, whole.message.content) == ("content_filter", None)
    assert "SAFETY" in whole.message.refusal
    stream = await sdk.chat.completions.create(model="google/refusal", messages=HELLO, stream=True)
    assert [chunk async for chunk in stream][-1].choices[0].finish_reason == "content_filter"


async def test_pictures_schemas_and_options_reach_the_vendor(vendors: Server, upstream: FakeUpstream):
    """What it lacks is told in headers, by OpenAI's names."""
    schema = {"name": "p", "schema": {"type": "object", "properties": {"a": {"type": "string", "pattern": "x"}}}}
    fields = {"user": "ada", "presence_penalty": 1, "response_format": {"type": "json_schema", "json_schema": schema}}
    messages = [{"role": "user", "content": [text(), image()]}]
    body = {"model": "google/echo", "messages": messages, "stop": ["a", "b"], **fields}
    answer = await post(vendors.port, json.dumps(body).encode())
    assert answer.status == 200, answer.body
    sent = json.loads(answer.json["choices"][0]["message"]["content"])
    assert sent["contents"][0]["parts"][1]["inlineData"]["mimeType"] == "image/png"
    assert sent["generationConfig"]["stopSequences"] == ["a", "b"]
    assert sent["generationConfig"]["responseJsonSchema"]["properties"]["a"]["description"] == "pattern: x"
    [dropped] = answer.headers("x-proxy-dropped-params")
    assert set(dropped.replace(" ", "").split(",")) == {"user", "presence_penalty"}
    assert answer.headers("x-proxy-adapted-params") == ["response_format"]


async def test_a_model_id_cannot_leave_its_segment(vendors: Server, upstream: FakeUpstream):
    """On the wire, not only as it was built."""
    for odd in ("a/b", "a?key=1", "a#b", "a%2Fb"):
        answer = await post(vendors.port, chat(f"google/{odd}"))
        assert answer.status == 404
    assert [seen.path.count("/") for seen in upstream.ledger] == [3] * 4
    assert {seen.path.rpartition(":")[2] for seen in upstream.ledger} == {"generateContent"}
    assert (await post(vendors.port, chat("google/a/../b"))).status == 400


async def test_embeddings_are_answered_in_batches(vendors: Server, upstream: FakeUpstream):
    """The SDK asks for base64 and gets its numbers; more inputs than the vendor takes at once are several calls."""
    texts = [f"text {'x' * place}" for place in range(120)]
    found = await vendors.client.embeddings.create(model="google/ok", input=texts, dimensions=4)
    assert [each.embedding for each in found.data] == [[float(len(each)), 0.5, 0.5, 0.5] for each in texts]
    assert found.usage.prompt_tokens == sum(len(each.split()) for each in texts)
    assert len(upstream.ledger) == 2
