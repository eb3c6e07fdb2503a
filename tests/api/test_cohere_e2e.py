"""Cohere through the product: the unmodified OpenAI SDK, the proxy on a socket, a server that speaks Cohere's wire."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from tests.api.raw import chat, get, post
from tests.providers.corpus import tool
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream
from tests.upstream.cohere_wire import END_TOKENS, TEMPLATE_TOKENS

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  cohere: {{type: cohere, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
router: {{default_model: cohere/ok}}
"""
PRICING = """
version: 1
models:
  cohere/*: {input: 2.00, output: 10.00, max_output: 4096}
"""
INPUT_USD, OUTPUT_USD = 2e-6, 10e-6  # per billed token
HELLO: Any = [{"role": "user", "content": "one two three"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cohere(upstream_of_module: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    folder = tmp_path_factory.mktemp("cohere")
    async with serving(write_files(folder, upstream_of_module.url, ROUTING, PRICING)) as running:
        yield running


@pytest.fixture
def client(cohere: Server, upstream: FakeUpstream) -> Any:
    """The SDK's client, without its types: the tests read what the types call optional."""
    return cohere.client


async def streamed(client: Any, model: str, **fields: Any) -> tuple[Any, list[Any]]:
    """The completion that the SDK's own accumulation makes of a stream, and the chunks."""
    chunks = []
    async with client.beta.chat.completions.stream(
        model=model, messages=HELLO, stream_options={"include_usage": True}, **fields
    ) as events:
        async for event in events:
            if event.type == "chunk":
                chunks.append(event.chunk)
        return await events.get_final_completion(), chunks


def check_usage(usage: Any, prompt: int, output: int) -> None:
    """The counts are the model's, the cost is of what is billed."""
    assert (usage.prompt_tokens, usage.completion_tokens) == (prompt + TEMPLATE_TOKENS, output + END_TOKENS)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.billed_units == {"input_tokens": prompt, "output_tokens": output}
    assert usage.cost == pytest.approx(prompt * INPUT_USD + output * OUTPUT_USD)


async def test_a_whole_answer_has_text_usage_and_the_cost_of_what_is_billed(client: Any):
    """3 words in, 10 tokens out are billed; the model read and wrote more."""
    answer = await client.chat.completions.create(model="cohere/ok", messages=HELLO)
    choice = answer.choices[0]
    assert choice.message.content == " ".join(f"tok{place}" for place in range(10))
    assert choice.finish_reason == "stop"
    assert answer.model == "cohere/ok"
    check_usage(answer.usage, 3, 10)


async def test_a_stream_has_the_same_text_usage_and_cost(client: Any):
    """The usage comes in a chunk of its own, as asked."""
    answer, chunks = await streamed(client, "cohere/ok")
    assert answer.choices[0].message.content == " ".join(f"tok{place}" for place in range(10))
    assert answer.choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    check_usage(chunks[-1].usage, 3, 10)


async def test_cached_tokens_are_shown(client: Any):
    """What hit the vendor's cache; it has no price of its own."""
    answer = await client.chat.completions.create(model="cohere/cached(n=8)", messages=HELLO)
    assert answer.usage.prompt_tokens_details.cached_tokens == 8
    check_usage(answer.usage, 3, 10)


@pytest.mark.parametrize("calls", [1, 3])
async def test_tool_calls_whole_and_streamed_are_the_same(client: Any, calls: int):
    """Parallel ones too: ids, names, arguments, in order."""
    tools = [tool(f"tool_{place}") for place in range(calls)]
    model = f"cohere/tools(n={calls})-dup_ids"
    whole = (await client.chat.completions.create(model=model, messages=HELLO, tools=tools)).choices[0]
    answer, _ = await streamed(client, model, tools=tools)
    stream = answer.choices[0]
    for choice in (whole, stream):
        assert choice.finish_reason == "tool_calls"
        assert [call.function.name for call in choice.message.tool_calls] == [f"tool_{place}" for place in range(calls)]
        for call in choice.message.tool_calls:
            assert json.loads(call.function.arguments)["text"].startswith("tok")
    seen = [
        [(call.id, call.function.name, call.function.arguments) for call in choice.message.tool_calls]
        for choice in (whole, stream)
    ]
    assert seen[0] == seen[1]
    assert whole.message.content is None


async def test_an_answer_with_calls_goes_back_with_its_results(client: Any, upstream: FakeUpstream):
    """The message as the SDK has it, a result for each call: the vendor takes the next turn."""
    tools = [tool("a"), tool("b")]
    first = await client.chat.completions.create(model="cohere/tools(n=2)-reasoning(n=2)", messages=HELLO, tools=tools)
    message = first.choices[0].message
    assert message.reasoning_content == "think0 think1 "
    results = [{"role": "tool", "tool_call_id": call.id, "content": "done"} for call in message.tool_calls or []]
    history: Any = [*HELLO, message.model_dump(exclude_none=True), *results]
    second = await client.chat.completions.create(model="cohere/ok", messages=history, tools=tools)
    assert second.choices[0].finish_reason == "stop"
    assert [seen.status for seen in upstream.ledger] == [200, 200]


async def test_thinking_is_reasoning_content(client: Any):
    """Beside the text, whole and streamed."""
    whole = (await client.chat.completions.create(model="cohere/reasoning(n=3)", messages=HELLO)).choices[0].message
    assert whole.reasoning_content == "think0 think1 think2 "
    _, chunks = await streamed(client, "cohere/reasoning(n=3)")
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "think0 think1 think2 "


async def test_what_was_dropped_and_adapted_is_told(cohere: Server, upstream: FakeUpstream):
    """In headers, by OpenAI's names."""
    answer = await post(cohere.port, chat("cohere/ok", logit_bias={"1": 1}, top_p=1, user="ada"))
    assert answer.status == 200
    [dropped] = answer.headers("x-proxy-dropped-params")
    assert set(dropped.replace(" ", "").split(",")) == {"logit_bias", "user"}
    assert answer.headers("x-proxy-adapted-params") == ["top_p"]


@pytest.mark.parametrize(
    ("mode", "error", "code"),
    [
        ("e401", openai.AuthenticationError, "invalid_api_key"),
        ("e402", openai.RateLimitError, "insufficient_quota"),
        ("e404", openai.NotFoundError, "model_not_found"),
        ("e422", openai.BadRequestError, "invalid_value"),
        ("e429(retry_after=3)", openai.RateLimitError, "rate_limit_exceeded"),
        ("e429(code=insufficient_quota)", openai.RateLimitError, "insufficient_quota"),
        ("context_length", openai.BadRequestError, "context_length_exceeded"),
        ("e500", openai.InternalServerError, "upstream_error"),
        ("e503", openai.InternalServerError, "upstream_unavailable"),
        ("html_502", openai.InternalServerError, "upstream_error"),
        ("empty_200", openai.InternalServerError, "upstream_truncated"),
        ("json_in_200_error", openai.InternalServerError, "upstream_error"),
        ("no_finish", openai.InternalServerError, "upstream_truncated"),
        ("cut_fin", openai.InternalServerError, "upstream_truncated"),
    ],
)
async def test_errors_reach_the_sdk_as_its_own(client: Any, mode: str, error: type[openai.APIStatusError], code: str):
    """Status, code and the vendor's status, whole and streamed."""
    only_whole = mode in ("empty_200", "json_in_200_error", "no_finish", "cut_fin")  # a stream's status is out by then
    for stream in [False] if only_whole else [False, True]:
        with pytest.raises(error) as caught:
            await client.chat.completions.create(model=f"cohere/{mode}", messages=HELLO, stream=stream)
        assert caught.value.code == code
        if "retry_after" in mode:
            assert caught.value.response.headers["retry-after"] == "3"


@pytest.mark.parametrize(
    "mode", ["cut_fin(k=3)", "cut_rst(k=3)", "cut_clean(k=3)", "no_finish", "truncated_json(k=3)", "sse_error(k=3)"]
)
async def test_a_stream_that_breaks_ends_in_an_error_frame(cohere: Server, upstream: FakeUpstream, mode: str):
    """What was said before it arrived; no `[DONE]`, no invented finish_reason."""
    answer = await post(cohere.port, chat(f"cohere/{mode}", stream=True))
    assert answer.status == 200
    *events, last = answer.events
    assert last["error"]["code"] in ("upstream_truncated", "upstream_error")
    assert "[DONE]" not in events
    text = "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])
    assert text.startswith("tok0 tok1 tok2")
    assert all(choice["finish_reason"] is None for event in events for choice in event["choices"])


@pytest.mark.parametrize(
    "mode", ["chunk_split", "utf8_split", "crlf_sse", "comment_pings", "multi_data_lines", "bom", "no_done"]
)
async def test_the_bytes_of_a_stream_may_be_cut_and_dressed_in_any_way(client: Any, mode: str):
    """The same text and usage."""
    answer, chunks = await streamed(client, f"cohere/{mode}")
    plain = answer.choices[0].message.content.replace("é漢😀", "")
    assert plain == " ".join(f"tok{place}" for place in range(10))
    check_usage(chunks[-1].usage, 3, 10)


async def test_what_was_billed_is_in_the_rows(cohere: Server, upstream: FakeUpstream):
    """Price times tokens is the cost, of each row and of their sum in `/v1/usage`."""
    since = (await get(cohere.port, "/v1/usage")).json
    await cohere.client.chat.completions.create(model="cohere/ok(n_tokens=7)", messages=HELLO)
    await streamed(cohere.client, "cohere/tools(n=2)", tools=[tool()])
    until = (await get(cohere.port, "/v1/usage")).json
    grown = {name: until["total"][name] - since["total"][name] for name in ("input_tokens", "output_tokens")}
    assert grown == {"input_tokens": 6, "output_tokens": 17}
    spent = until["total"]["cost_usd"] - since["total"]["cost_usd"]
    assert spent == pytest.approx(6 * INPUT_USD + 17 * OUTPUT_USD)


async def test_embeddings_are_answered_in_batches(cohere: Server, upstream: FakeUpstream):
    """The SDK asks for base64 and gets its numbers; more inputs than the vendor takes at once are several calls."""
    texts = [f"text {'x' * place}" for place in range(100)]
    found = await cohere.client.embeddings.create(model="cohere/ok", input=texts, dimensions=8)
    assert [each.embedding[:2] for each in found.data] == [
        [float(len(text.split())), float(len(text))] for text in texts
    ]
    assert found.usage.prompt_tokens == sum(len(text.split()) for text in texts)
    assert len(upstream.ledger) == 2
    with pytest.raises(openai.BadRequestError) as caught:
        await cohere.client.embeddings.create(model="cohere/ok", input=[[1, 2]])
    assert caught.value.code == "unsupported_content"


async def test_rankings_are_answered_and_their_units_kept(cohere: Server, upstream: FakeUpstream):
    """The most relevant first, with its text where that was asked."""
    body = {"model": "cohere/ok", "query": "blue sky", "documents": ["red", "blue sky", "blue"], "top_n": 2}
    answer = await post(cohere.port, json.dumps({**body, "return_documents": True}).encode(), "/v1/rerank")
    assert answer.status == 200, answer.body
    assert [(each["index"], each["document"]["text"]) for each in answer.json["results"]] == [
        (1, "blue sky"),
        (2, "blue"),
    ]
    assert answer.json["meta"]["billed_units"]["search_units"] == 1
