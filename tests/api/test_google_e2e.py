"""Gemini through the product: the unmodified OpenAI SDK, the proxy on a socket, a server that speaks Google's wire."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from tests.api.raw import chat, get, post
from tests.providers.corpus import image, text, tool
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream, key_hash
from tests.upstream.google_wire import SIGNATURE

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  google:
    {{type: google, base_url: "{upstream}", api_key_env: GEMINI_API_KEY, allow_private: true, price: null, retries: 0,
      timeout_s: {timeouts}}}
router: {{default_model: google/ok}}
"""
PRICING = """
version: 1
models:
  google/*: {input: 2.00, output: 10.00, cached_input: 0.50, max_output: 4096}
"""
INPUT_USD, OUTPUT_USD, CACHED_USD = 2e-6, 10e-6, 0.5e-6
KEY = "AIzaSyTheKeyOfTheTests0123456789"
HELLO: Any = [{"role": "user", "content": "one two three"}]
TEN = " ".join(f"tok{place}" for place in range(10))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def google(upstream_of_module: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    folder = tmp_path_factory.mktemp("google")
    routing = write_files(folder, upstream_of_module.url, ROUTING, PRICING)
    async with serving(routing, {"GEMINI_API_KEY": KEY}) as running:
        yield running


@pytest.fixture
def client(google: Server, upstream: FakeUpstream) -> Any:
    """The SDK's client, without its types: the tests read what the types call optional."""
    return google.client


async def streamed(client: Any, model: str, **fields: Any) -> tuple[Any, list[Any]]:
    """The completion that the SDK's own accumulation makes of a stream, and the chunks."""
    chunks = []
    fields = {"messages": HELLO, **fields}
    async with client.beta.chat.completions.stream(
        model=model, stream_options={"include_usage": True}, **fields
    ) as events:
        async for event in events:
            if event.type == "chunk":
                chunks.append(event.chunk)
        return await events.get_final_completion(), chunks


def check_usage(usage: Any, prompt: int, output: int, cached: int = 0) -> None:
    assert (usage.prompt_tokens, usage.completion_tokens) == (prompt, output)
    assert usage.total_tokens == prompt + output
    cost = (prompt - cached) * INPUT_USD + cached * CACHED_USD + output * OUTPUT_USD
    assert usage.cost == pytest.approx(cost)


async def test_a_whole_answer_has_text_usage_and_cost(client: Any, upstream: FakeUpstream):
    """The key goes in its own header, the answer names who gave it."""
    answer = await client.chat.completions.create(model="google/ok", messages=HELLO)
    choice = answer.choices[0]
    assert choice.message.content == TEN
    assert choice.finish_reason == "stop"
    assert answer.model == "google/ok"
    check_usage(answer.usage, 3, 10)
    [seen] = upstream.ledger
    assert seen.path == "/v1/models/ok:generateContent"
    assert seen.authorization == key_hash(KEY)


async def test_a_stream_has_the_same_text_usage_and_cost(client: Any):
    """The vendor counts in every event; the client gets the last count, in a chunk of its own."""
    answer, chunks = await streamed(client, "google/ok")
    assert answer.choices[0].message.content == TEN
    assert answer.choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    check_usage(chunks[-1].usage, 3, 10)


async def test_cached_tokens_cost_less(client: Any):
    """They are part of the prompt."""
    answer = await client.chat.completions.create(model="google/cached(n=2)", messages=HELLO)
    assert answer.usage.prompt_tokens_details.cached_tokens == 2
    check_usage(answer.usage, 3, 10, cached=2)


async def test_thinking_is_reasoning_content_and_output(client: Any):
    """Whole and streamed; thoughts are billed as output."""
    model = "google/reasoning(n=3)"
    whole = await client.chat.completions.create(model=model, messages=HELLO, reasoning_effort="low")
    assert whole.choices[0].message.reasoning_content == "think0 think1 think2 "
    assert whole.choices[0].message.content == TEN
    assert whole.usage.completion_tokens_details.reasoning_tokens == 3
    check_usage(whole.usage, 3, 13)
    _, chunks = await streamed(client, model, reasoning_effort="low")
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "think0 think1 think2 "
    check_usage(chunks[-1].usage, 3, 13)


@pytest.mark.parametrize("calls", [1, 3])
async def test_tool_calls_whole_and_streamed_are_the_same(client: Any, calls: int):
    """Parallel ones too: ids, names, arguments, in order; the vendor's STOP is tool_calls."""
    tools = [tool(f"tool_{place}") for place in range(calls)]
    model = f"google/tools(n={calls})-dup_ids"
    whole = (await client.chat.completions.create(model=model, messages=HELLO, tools=tools)).choices[0]
    answer, _ = await streamed(client, model, tools=tools)
    stream = answer.choices[0]
    for choice in (whole, stream):
        assert choice.finish_reason == "tool_calls"
        assert [call.function.name for call in choice.message.tool_calls] == [f"tool_{place}" for place in range(calls)]
        for call in choice.message.tool_calls:
            assert json.loads(call.function.arguments)["text"].strip().startswith("tok")
    seen = [
        [(call.id, call.function.name, call.function.arguments) for call in choice.message.tool_calls]
        for choice in (whole, stream)
    ]
    assert seen[0] == seen[1]
    assert len({call[0] for call in seen[0]}) == calls
    assert whole.message.content is None


@pytest.mark.parametrize("stream", [False, True])
async def test_a_loop_of_three_turns_brings_the_signatures_back(client: Any, upstream: FakeUpstream, stream: bool):
    """The SDK keeps what it does not know; the vendor refuses calls whose signature is missing."""
    tools = [tool("a"), tool("b")]
    history: Any = list(HELLO)
    for _ in range(2):
        if stream:
            answer, _ = await streamed(client, "google/tools(n=2)", messages=history, tools=tools)
        else:
            answer = await client.chat.completions.create(model="google/tools(n=2)", messages=history, tools=tools)
        message = answer.choices[0].message
        history.append(message.model_dump(exclude_none=True, exclude={"parsed"}))
        history += [{"role": "tool", "tool_call_id": call.id, "content": "done"} for call in message.tool_calls]
    for call in history[1]["tool_calls"]:
        call["function"].pop("parsed_arguments", None)
    last = await client.chat.completions.create(model="google/echo", messages=history, tools=tools)
    sent = json.loads(last.choices[0].message.content)
    calls = [part for content in sent["contents"] for part in content["parts"] if "functionCall" in part]
    assert [part.get("thoughtSignature") for part in calls] == [SIGNATURE, None, SIGNATURE, None]
    assert [seen.status for seen in upstream.ledger] == [200, 200, 200]


async def test_a_client_that_drops_unknown_fields_is_served_too(client: Any, upstream: FakeUpstream):
    """The call comes back without its signature: one that was kept, or the vendor's word for none."""
    tools = [tool("a")]
    first = (await client.chat.completions.create(model="google/tools", messages=HELLO, tools=tools)).choices[0].message
    call = first.tool_calls[0]
    plain = {"id": call.id, "type": "function", "function": call.function.model_dump()}
    history: Any = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [plain]},
        {"role": "tool", "tool_call_id": call.id, "content": "done"},
    ]
    answer = await client.chat.completions.create(model="google/ok", messages=history, tools=tools)
    assert answer.choices[0].message.content == TEN
    assert [seen.status for seen in upstream.ledger] == [200, 200]


async def test_a_blocked_prompt_is_content_filter(client: Any):
    """Whole and streamed: no content, a refusal."""
    whole = (await client.chat.completions.create(model="google/refusal", messages=HELLO)).choices[0]
    assert (whole.finish_reason, whole.message.content) == ("content_filter", None)
    assert "SAFETY" in whole.message.refusal
    answer = await post_stream(client, "google/refusal")
    assert answer[-1].choices[0].finish_reason == "content_filter"


async def post_stream(client: Any, model: str) -> list[Any]:
    return [chunk async for chunk in await client.chat.completions.create(model=model, messages=HELLO, stream=True)]


async def test_pictures_schemas_and_options_reach_the_vendor(google: Server, upstream: FakeUpstream):
    """What it lacks is told in headers, by OpenAI's names."""
    schema = {"name": "p", "schema": {"type": "object", "properties": {"a": {"type": "string", "pattern": "x"}}}}
    fields = {"user": "ada", "presence_penalty": 1, "response_format": {"type": "json_schema", "json_schema": schema}}
    messages = [{"role": "user", "content": [text(), image()]}]
    body = {"model": "google/echo", "messages": messages, "stop": ["a", "b"], **fields}
    answer = await post(google.port, json.dumps(body).encode())
    assert answer.status == 200, answer.body
    sent = json.loads(answer.json["choices"][0]["message"]["content"])
    assert sent["contents"][0]["parts"][1]["inlineData"]["mimeType"] == "image/png"
    assert sent["generationConfig"]["stopSequences"] == ["a", "b"]
    assert sent["generationConfig"]["responseJsonSchema"]["properties"]["a"]["description"] == "pattern: x"
    [dropped] = answer.headers("x-proxy-dropped-params")
    assert set(dropped.replace(" ", "").split(",")) == {"user", "presence_penalty"}
    assert answer.headers("x-proxy-adapted-params") == ["response_format"]


async def test_a_model_id_cannot_leave_its_segment(google: Server, upstream: FakeUpstream):
    """On the wire, not only as it was built."""
    for odd in ("a/b", "a?key=1", "a#b", "a%2Fb"):
        answer = await post(google.port, chat(f"google/{odd}"))
        assert answer.status == 404
    assert [seen.path.count("/") for seen in upstream.ledger] == [3] * 4
    assert {seen.path.rpartition(":")[2] for seen in upstream.ledger} == {"generateContent"}
    assert (await post(google.port, chat("google/a/../b"))).status == 400


@pytest.mark.parametrize(
    ("mode", "error", "code"),
    [
        ("e400", openai.BadRequestError, "invalid_value"),
        ("e400(code=API_KEY_INVALID)", openai.AuthenticationError, "invalid_api_key"),
        ("e401", openai.AuthenticationError, "invalid_api_key"),
        ("e403", openai.PermissionDeniedError, "permission_denied"),
        ("e404", openai.NotFoundError, "model_not_found"),
        ("e429", openai.RateLimitError, "rate_limit_exceeded"),
        ("e429(code=insufficient_quota)", openai.RateLimitError, "insufficient_quota"),
        ("context_length", openai.BadRequestError, "context_length_exceeded"),
        ("e500", openai.InternalServerError, "upstream_error"),
        ("e503", openai.InternalServerError, "upstream_unavailable"),
        ("html_502", openai.InternalServerError, "upstream_error"),
        ("empty_200", openai.InternalServerError, "upstream_truncated"),
        ("no_finish", openai.InternalServerError, "upstream_truncated"),
        ("cut_fin", openai.InternalServerError, "upstream_truncated"),
    ],
)
async def test_errors_reach_the_sdk_as_its_own(client: Any, mode: str, error: type[openai.APIStatusError], code: str):
    """Status, code and when to come back, whole and streamed."""
    only_whole = mode in ("empty_200", "no_finish", "cut_fin")  # a stream's status is out by then
    for stream in [False] if only_whole else [False, True]:
        with pytest.raises(error) as caught:
            await client.chat.completions.create(model=f"google/{mode}", messages=HELLO, stream=stream)
        assert caught.value.code == code
        assert KEY not in str(caught.value)
        after = caught.value.response.headers.get("retry-after")
        assert after == ("8" if mode == "e429" else None)  # the body says 7.5 s


@pytest.mark.parametrize(
    "mode", ["cut_fin(k=3)", "cut_rst(k=3)", "cut_clean(k=3)", "no_finish", "truncated_json(k=3)", "sse_error(k=3)"]
)
async def test_a_stream_that_breaks_ends_in_an_error_frame(google: Server, upstream: FakeUpstream, mode: str):
    """What was said before it arrived; no `[DONE]`, no invented finish_reason."""
    answer = await post(google.port, chat(f"google/{mode}", stream=True))
    assert answer.status == 200
    *events, last = answer.events
    assert last["error"]["code"] in ("upstream_truncated", "upstream_error")
    assert "[DONE]" not in events
    said = "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])
    assert said.startswith("tok0 tok1 tok2")
    assert all(choice["finish_reason"] is None for event in events for choice in event["choices"])


@pytest.mark.parametrize(
    "mode", ["chunk_split", "utf8_split", "crlf_sse", "comment_pings", "multi_data_lines", "bom", "no_done"]
)
async def test_the_bytes_of_a_stream_may_be_cut_and_dressed_in_any_way(client: Any, mode: str):
    """The same text and usage."""
    answer, chunks = await streamed(client, f"google/{mode}")
    assert answer.choices[0].message.content.replace("é漢😀", "") == TEN
    check_usage(chunks[-1].usage, 3, 10)


async def test_the_rows_hold_what_was_used(google: Server, upstream: FakeUpstream):
    """Price times tokens is the cost, of each row and of their sum in `/v1/usage`."""
    since = (await get(google.port, "/v1/usage")).json["total"]
    await google.client.chat.completions.create(model="google/ok(n_tokens=7)", messages=HELLO)
    await streamed(google.client, "google/reasoning(n=2)")
    until = (await get(google.port, "/v1/usage")).json["total"]
    grown = {name: until[name] - since[name] for name in ("calls", "input_tokens", "output_tokens")}
    assert grown == {"calls": 2, "input_tokens": 6, "output_tokens": 19}
    assert until["cost_usd"] - since["cost_usd"] == pytest.approx(6 * INPUT_USD + 19 * OUTPUT_USD)


async def test_several_choices_are_asked_one_by_one(client: Any, upstream: FakeUpstream):
    """The vendor answers one candidate a call."""
    answer = await client.chat.completions.create(model="google/ok", messages=HELLO, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert [choice.message.content for choice in answer.choices] == [TEN, TEN]
    assert len(upstream.ledger) == 2


async def test_embeddings_are_answered_in_batches(google: Server, upstream: FakeUpstream):
    """The SDK asks for base64 and gets its numbers; more inputs than the vendor takes at once are several calls."""
    texts = [f"text {'x' * place}" for place in range(120)]
    found = await google.client.embeddings.create(model="google/ok", input=texts, dimensions=4)
    assert [each.embedding for each in found.data] == [[float(len(each)), 0.5, 0.5, 0.5] for each in texts]
    assert found.usage.prompt_tokens == sum(len(each.split()) for each in texts)
    assert len(upstream.ledger) == 2
