"""Anthropic through the product: the unmodified OpenAI SDK, the proxy on a socket, a server that speaks Anthropic's
wire and refuses what Anthropic refuses.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from tests.api.raw import chat, get, post
from tests.providers.corpus import SCHEMA, image, text, tool
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  anthropic:
    {{base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
router: {{default_model: anthropic/ok}}
"""
PRICING = """
version: 1
models:
  anthropic/*: {input: 2.00, output: 10.00, cached_input: 0.20, max_output: 4096}
"""
INPUT_USD, OUTPUT_USD, CACHED_USD = 2e-6, 10e-6, 0.2e-6
HELLO: Any = [{"role": "user", "content": "one two three"}]
NEW, BUDGET = "claude-opus-5-5", "claude-haiku-4-5"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def anthropic(
    upstream_of_module: FakeUpstream, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    folder = tmp_path_factory.mktemp("anthropic")
    async with serving(write_files(folder, upstream_of_module.url, ROUTING, PRICING)) as running:
        yield running


@pytest.fixture
def client(anthropic: Server, upstream: FakeUpstream) -> Any:
    """The SDK's client, without its types: the tests read what the types call optional."""
    return anthropic.client


async def streamed(client: Any, model: str, **fields: Any) -> tuple[Any, list[Any]]:
    """The completion that the SDK's own accumulation makes of a stream, and the chunks."""
    chunks = []
    asked = {"messages": HELLO, "stream_options": {"include_usage": True}, **fields}
    async with client.beta.chat.completions.stream(model=model, **asked) as events:
        async for event in events:
            if event.type == "chunk":
                chunks.append(event.chunk)
        return await events.get_final_completion(), chunks


def check_usage(usage: Any, prompt: int, output: int, cached: int = 0) -> None:
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (prompt, output, prompt + output)
    assert usage.prompt_tokens_details.cached_tokens == cached
    assert usage.cost == pytest.approx((prompt - cached) * INPUT_USD + cached * CACHED_USD + output * OUTPUT_USD)


async def test_a_whole_answer_has_text_usage_and_cost(client: Any, upstream: FakeUpstream):
    """3 words in, 10 tokens out, at the vendor's path."""
    answer = await client.chat.completions.create(model="anthropic/ok", messages=HELLO)
    choice = answer.choices[0]
    assert choice.message.content == " ".join(f"tok{place}" for place in range(10))
    assert (choice.finish_reason, answer.model) == ("stop", "anthropic/ok")
    check_usage(answer.usage, 3, 10)
    assert upstream.ledger[0].path == "/v1/messages"


async def test_a_stream_has_the_same_text_usage_and_cost(client: Any):
    """The usage comes in a chunk of its own, as asked."""
    answer, chunks = await streamed(client, "anthropic/ok")
    assert answer.choices[0].message.content == " ".join(f"tok{place}" for place in range(10))
    assert answer.choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    check_usage(chunks[-1].usage, 3, 10)


async def test_cached_tokens_cost_what_they_cost(client: Any):
    """The vendor counts them beside its input, OpenAI within."""
    whole = await client.chat.completions.create(model="anthropic/cached(n=2)", messages=HELLO)
    check_usage(whole.usage, 3, 10, cached=2)
    _, chunks = await streamed(client, "anthropic/cached(n=2)")
    check_usage(chunks[-1].usage, 3, 10, cached=2)


async def test_an_answer_that_is_cut_says_so(client: Any):
    """By the request's own limit."""
    answer = await client.chat.completions.create(model="anthropic/ok", messages=HELLO, max_completion_tokens=4)
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content == "tok0 tok1 tok2 tok3"


async def test_a_refusal_is_one(anthropic: Server, upstream: FakeUpstream):
    """Its reason in OpenAI's field, whole and streamed."""
    whole = (await anthropic.client.chat.completions.create(model="anthropic/refusal", messages=HELLO)).choices[0]
    assert whole.finish_reason == "content_filter"
    said = whole.message.refusal
    assert said is not None
    assert said.startswith("tok0 tok1")
    answer = await post(anthropic.port, chat("anthropic/refusal", stream=True))
    choices = [choice for event in answer.events if event != "[DONE]" for choice in event["choices"]]
    assert "".join(choice["delta"].get("refusal") or "" for choice in choices) == said
    assert choices[-1]["finish_reason"] == "content_filter"


@pytest.mark.parametrize("calls", [1, 3])
async def test_tool_calls_whole_and_streamed_are_the_same(client: Any, calls: int):
    """Parallel ones too: ids, names that the vendor would refuse, arguments, in order."""
    tools = [tool(f"tool.{place}") for place in range(calls)]
    model = f"anthropic/tools(n={calls})-dup_ids"
    whole = (await client.chat.completions.create(model=model, messages=HELLO, tools=tools)).choices[0]
    stream = (await streamed(client, model, tools=tools))[0].choices[0]
    for choice in (whole, stream):
        assert choice.finish_reason == "tool_calls"
        assert [call.function.name for call in choice.message.tool_calls] == [f"tool.{place}" for place in range(calls)]
        for call in choice.message.tool_calls:
            assert json.loads(call.function.arguments)["text"].startswith("tok")
    seen = [
        [(call.id, call.function.name, call.function.arguments) for call in choice.message.tool_calls]
        for choice in (whole, stream)
    ]
    assert seen[0] == seen[1]
    assert whole.message.content is None


@pytest.mark.parametrize("model", [NEW, BUDGET])
@pytest.mark.parametrize("keeps", [True, False])
async def test_thoughts_go_back_with_their_calls(client: Any, upstream: FakeUpstream, model: str, keeps: bool):
    """Also those of a client that drops them; the vendor takes the next turn, and still thinks."""
    upstream.modes[model] = "tools(n=2)-reasoning(n=2)"
    tools, name = [tool("a"), tool("b")], f"anthropic/{model}"
    first = await client.chat.completions.create(model=name, messages=HELLO, tools=tools, reasoning_effort="low")
    message = first.choices[0].message
    assert message.reasoning_content == "think0 think1 "
    sent = message.model_dump(exclude_none=True)
    if not keeps:
        sent = {field: sent[field] for field in ("role", "tool_calls")}
    results = [{"role": "tool", "tool_call_id": call.id, "content": "done"} for call in message.tool_calls]
    upstream.modes[model] = "echo"
    second = await client.chat.completions.create(
        model=name, messages=[*HELLO, sent, *results], tools=tools, reasoning_effort="low"
    )
    body = json.loads(second.choices[0].message.content)
    assert [block["type"] for block in body["messages"][1]["content"]] == ["thinking", "tool_use", "tool_use"]
    assert body["thinking"]["type"] in ("adaptive", "enabled")
    assert [seen.status for seen in upstream.ledger] == [200, 200]


async def test_thinking_is_reasoning_content(client: Any):
    """Beside the text, whole and streamed, counted as part of the output."""
    whole = await client.chat.completions.create(model="anthropic/reasoning(n=3)", messages=HELLO)
    assert whole.choices[0].message.reasoning_content == "think0 think1 think2 "
    assert whole.usage.completion_tokens_details.reasoning_tokens == 3
    check_usage(whole.usage, 3, 13)
    _, chunks = await streamed(client, "anthropic/reasoning(n=3)")
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "think0 think1 think2 "
    check_usage(chunks[-1].usage, 3, 13)


async def test_pictures_system_and_schema_arrive_as_the_vendor_wants_them(client: Any, upstream: FakeUpstream):
    """The request that reached it."""
    upstream.modes[NEW] = "echo"
    format_ = {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA, "strict": True}}
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [text(), image()]}]
    answer = await client.chat.completions.create(
        model=f"anthropic/{NEW}", messages=messages, response_format=format_, temperature=0.3
    )
    body = json.loads(answer.choices[0].message.content)
    assert body["system"] == [{"type": "text", "text": "Be brief."}]
    assert [block["type"] for block in body["messages"][0]["content"]] == ["text", "image"]
    assert body["output_config"]["format"]["schema"] == SCHEMA
    assert "temperature" not in body


async def test_older_models_answer_json_by_a_tool(client: Any, upstream: FakeUpstream):
    """Streamed too: it is content, and the answer has stopped."""
    model = "claude-sonnet-4-20250514"
    upstream.modes[model] = "tools"
    schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    format_ = {"type": "json_schema", "json_schema": {"name": "p", "schema": schema}}
    whole = await client.chat.completions.create(model=f"anthropic/{model}", messages=HELLO, response_format=format_)
    stream, _ = await streamed(client, f"anthropic/{model}", response_format=format_)
    for answer in (whole, stream):
        assert json.loads(answer.choices[0].message.content)["text"].startswith("tok0")
        assert answer.choices[0].finish_reason == "stop"
        assert not answer.choices[0].message.tool_calls


async def test_several_choices_are_several_calls(client: Any, upstream: FakeUpstream):
    """The vendor has no n."""
    answer = await client.chat.completions.create(model="anthropic/ok", messages=HELLO, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert len(upstream.ledger) == 2


async def test_what_was_dropped_and_adapted_is_told(anthropic: Server, upstream: FakeUpstream):
    """In headers, by OpenAI's names."""
    answer = await post(anthropic.port, chat("anthropic/ok", logit_bias={"1": 1}, seed=1, temperature=1.5, user="ada"))
    assert answer.status == 200
    [dropped] = answer.headers("x-proxy-dropped-params")
    assert set(dropped.replace(" ", "").split(",")) == {"logit_bias", "seed"}
    assert answer.headers("x-proxy-adapted-params") == ["temperature"]


@pytest.mark.parametrize(
    ("mode", "error", "code"),
    [
        ("e400", openai.BadRequestError, "invalid_value"),
        ("e401", openai.AuthenticationError, "invalid_api_key"),
        ("e402", openai.RateLimitError, "insufficient_quota"),
        ("e403", openai.PermissionDeniedError, "permission_denied"),
        ("e404", openai.NotFoundError, "model_not_found"),
        ("e413", openai.APIStatusError, "request_too_large"),
        ("e429(retry_after=3)", openai.RateLimitError, "rate_limit_exceeded"),
        ("e400(code=insufficient_quota)", openai.RateLimitError, "insufficient_quota"),
        ("context_length", openai.BadRequestError, "context_length_exceeded"),
        ("e500", openai.InternalServerError, "upstream_error"),
        ("e503", openai.InternalServerError, "upstream_error"),
        ("e504", openai.InternalServerError, "upstream_timeout"),
        ("e529", openai.InternalServerError, "overloaded"),
        ("html_502", openai.InternalServerError, "upstream_error"),
        ("empty_200", openai.InternalServerError, "upstream_truncated"),
        ("json_in_200_error", openai.InternalServerError, "upstream_error"),
        ("no_finish", openai.InternalServerError, "upstream_truncated"),
        ("cut_fin", openai.InternalServerError, "upstream_truncated"),
    ],
)
async def test_errors_reach_the_sdk_as_its_own(client: Any, mode: str, error: type[openai.APIStatusError], code: str):
    """Status, code, the vendor's wish and its limits in OpenAI's words, whole and streamed."""
    only_whole = mode in ("empty_200", "json_in_200_error", "no_finish", "cut_fin")  # a stream's status is out by then
    for stream in [False] if only_whole else [False, True]:
        with pytest.raises(error) as caught:
            await client.chat.completions.create(model=f"anthropic/{mode}", messages=HELLO, stream=stream)
        assert caught.value.code == code
        if "retry_after" in mode:
            headers = caught.value.response.headers
            assert headers["retry-after"] == "3"
            assert headers["x-ratelimit-remaining-requests"] == "49"
            assert headers["x-ratelimit-reset-requests"] == "1m30s"


@pytest.mark.parametrize(
    "mode", ["cut_fin(k=3)", "cut_rst(k=3)", "cut_clean(k=3)", "no_finish", "truncated_json(k=3)", "sse_error(k=3)"]
)
async def test_a_stream_that_breaks_ends_in_an_error_frame(anthropic: Server, upstream: FakeUpstream, mode: str):
    """What was said before it arrived; no `[DONE]`, no invented finish_reason."""
    answer = await post(anthropic.port, chat(f"anthropic/{mode}", stream=True))
    assert answer.status == 200
    *events, last = answer.events
    assert last["error"]["code"] in ("upstream_truncated", "upstream_error")
    assert "[DONE]" not in events
    said = "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])
    assert said.startswith("tok0 tok1 tok2")
    assert all(choice["finish_reason"] is None for event in events for choice in event["choices"])


async def test_an_overload_in_the_middle_of_a_stream_has_its_own_code(anthropic: Server, upstream: FakeUpstream):
    """Only its type is said, and the status is out."""
    answer = await post(anthropic.port, chat("anthropic/sse_error(k=3,status=529)", stream=True))
    assert answer.events[-1]["error"]["code"] == "overloaded"


@pytest.mark.parametrize(
    "mode", ["chunk_split", "utf8_split", "crlf_sse", "comment_pings", "multi_data_lines", "bom", "no_done"]
)
async def test_the_bytes_of_a_stream_may_be_cut_and_dressed_in_any_way(client: Any, mode: str):
    """The same text and usage."""
    answer, chunks = await streamed(client, f"anthropic/{mode}")
    plain = answer.choices[0].message.content.replace("é漢😀", "")
    assert plain == " ".join(f"tok{place}" for place in range(10))
    check_usage(chunks[-1].usage, 3, 10)


@pytest.mark.parametrize("mode", ["no_usage", "usage_partial", "usage_null"])
async def test_usage_that_the_vendor_leaves_out_is_estimated(client: Any, mode: str):
    """Never zero."""
    whole = await client.chat.completions.create(model=f"anthropic/{mode}", messages=HELLO)
    _, chunks = await streamed(client, f"anthropic/{mode}")
    for usage in (whole.usage, chunks[-1].usage):
        assert usage.prompt_tokens > 0
        assert usage.completion_tokens > 0
        assert usage.cost > 0


async def test_what_was_used_is_in_the_rows(anthropic: Server, upstream: FakeUpstream):
    """Price times tokens is the cost, of each row and of their sum in `/v1/usage`."""
    since = (await get(anthropic.port, "/v1/usage")).json
    await anthropic.client.chat.completions.create(model="anthropic/ok(n_tokens=7)", messages=HELLO)
    await streamed(anthropic.client, "anthropic/tools(n=2)", tools=[tool()])
    until = (await get(anthropic.port, "/v1/usage")).json
    grown = {name: until["total"][name] - since["total"][name] for name in ("input_tokens", "output_tokens")}
    assert grown == {"input_tokens": 6, "output_tokens": 17}
    spent = until["total"]["cost_usd"] - since["total"]["cost_usd"]
    assert spent == pytest.approx(6 * INPUT_USD + 17 * OUTPUT_USD)


async def test_the_key_goes_by_the_vendors_name(upstream: FakeUpstream, tmp_path_factory: pytest.TempPathFactory):
    """`x-api-key`, and no bearer beside it."""
    routing = ROUTING.replace("retries: 0", "retries: 0, api_key_env: ANTHROPIC_API_KEY")
    files = write_files(tmp_path_factory.mktemp("keyed"), upstream.url, routing, PRICING)
    async with serving(files, {"ANTHROPIC_API_KEY": "sk-ant-secret"}) as running:
        await running.client.chat.completions.create(model="anthropic/ok", messages=HELLO)
    assert upstream.ledger[0].authorization is not None
    assert "authorization" not in upstream.ledger[0].headers
