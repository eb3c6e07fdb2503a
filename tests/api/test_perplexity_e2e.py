"""Perplexity through the product: the unmodified OpenAI SDK, the proxy on a socket, a server with the Agent API."""

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
from tests.upstream import FakeUpstream
from tests.upstream.perplexity_wire import COST_USD, RESULT

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  perplexity:
    {{type: perplexity, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
router: {{default_model: perplexity/ok}}
"""
PRICING = """
version: 1
models:
  perplexity/*: {input: 2.00, output: 10.00, cached_input: 1.00, max_output: 4096}
"""
INPUT_USD, OUTPUT_USD, CACHED_USD = 2e-6, 10e-6, 1e-6  # per token
HELLO: Any = [{"role": "user", "content": "one two three"}]
TEN = " ".join(f"tok{place}" for place in range(10))
SEARCH: Any = {"web_search_options": {"search_context_size": "low"}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def perplexity(
    upstream_of_module: FakeUpstream, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    folder = tmp_path_factory.mktemp("perplexity")
    async with serving(write_files(folder, upstream_of_module.url, ROUTING, PRICING)) as running:
        yield running


@pytest.fixture
def client(perplexity: Server, upstream: FakeUpstream) -> Any:
    """The SDK's client, without its types: the tests read what the types call optional."""
    return perplexity.client


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
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (prompt, output, prompt + output)
    assert usage.cost == pytest.approx(prompt * INPUT_USD + output * OUTPUT_USD)
    assert usage.provider_cost == COST_USD


async def test_whole_and_streamed_answers_agree_in_text_usage_and_cost(client: Any):
    """The vendor's own cost stands beside ours."""
    whole = await client.chat.completions.create(model="perplexity/ok", messages=HELLO)
    answer, chunks = await streamed(client, "perplexity/ok")
    for choice in (whole.choices[0], answer.choices[0]):
        assert (choice.message.content, choice.finish_reason) == (TEN, "stop")
    assert chunks[-1].choices == []
    check_usage(whole.usage, 3, 10)
    check_usage(chunks[-1].usage, 3, 10)


async def test_what_a_search_found_is_in_the_answer(client: Any):
    """`citations` and `search_results` as the older API had them, `url_citation`s as OpenAI has; searches count."""
    whole = await client.chat.completions.create(model="perplexity/ok", messages=HELLO, extra_body=SEARCH)
    cited = {"start_index": 0, "end_index": 4, "title": RESULT["title"], "url": RESULT["url"]}
    assert whole.citations == [RESULT["url"]]
    assert whole.search_results == [RESULT]
    assert [each.model_dump() for each in whole.choices[0].message.annotations] == [
        {"type": "url_citation", "url_citation": cited}
    ]
    assert whole.usage.num_search_queries == 1
    _, chunks = await streamed(client, "perplexity/ok", extra_body=SEARCH)
    assert chunks[-1].citations == [RESULT["url"]]
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    noted = [each for delta in deltas for each in getattr(delta, "annotations", None) or []]
    assert [each["url_citation"] for each in noted] == [cited]


@pytest.mark.parametrize("calls", [1, 3])
async def test_tool_calls_whole_and_streamed_are_the_same(client: Any, calls: int):
    """They come in one piece each."""
    tools = [tool(f"tool_{place}") for place in range(calls)]
    model = f"perplexity/tools(n={calls})"
    whole = (await client.chat.completions.create(model=model, messages=HELLO, tools=tools)).choices[0]
    answer, _ = await streamed(client, model, tools=tools)
    for choice in (whole, answer.choices[0]):
        assert choice.finish_reason == "tool_calls"
        assert [call.function.name for call in choice.message.tool_calls] == [f"tool_{place}" for place in range(calls)]
    seen = [[call.function.arguments for call in c.message.tool_calls] for c in (whole, answer.choices[0])]
    assert seen[0] == seen[1]
    assert all(json.loads(arguments)["text"].strip().startswith("tok") for arguments in seen[0])
    assert whole.message.content is None


async def test_an_answer_with_calls_goes_back_with_its_results(client: Any, upstream: FakeUpstream):
    """The message as the SDK has it, system messages and pictures beside it."""
    tools = [tool("a"), tool("b")]
    model = "perplexity/tools(n=2)-reasoning(n=2)"
    message = (await client.chat.completions.create(model=model, messages=HELLO, tools=tools)).choices[0].message
    assert message.reasoning_content == "think0 think1 "
    results = [{"role": "tool", "tool_call_id": call.id, "content": "done"} for call in message.tool_calls]
    seen: Any = {"role": "user", "content": [text("And this?"), image()]}
    history: Any = [{"role": "system", "content": "Be brief."}, *HELLO, message.model_dump(), *results, seen]
    await client.chat.completions.create(model="perplexity/ok", messages=history, tools=tools)
    assert [seen.status for seen in upstream.ledger] == [200, 200]


async def test_thinking_is_reasoning_content(client: Any):
    """Whole and streamed."""
    whole = (await client.chat.completions.create(model="perplexity/reasoning(n=3)", messages=HELLO)).choices[0].message
    assert (whole.reasoning_content, whole.content) == ("think0 think1 think2 ", TEN)
    _, chunks = await streamed(client, "perplexity/reasoning(n=3)")
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "think0 think1 think2 "


async def test_an_answer_that_reached_its_limit_says_so(perplexity: Server, upstream: FakeUpstream):
    """There is no word for it in the vendor's answer, only the numbers."""
    whole = (await post(perplexity.port, chat("perplexity/ok", max_tokens=4))).json
    *_, last, done = (await post(perplexity.port, chat("perplexity/ok", max_tokens=4, stream=True))).events
    assert [whole["choices"][0]["finish_reason"], last["choices"][0]["finish_reason"]] == ["length", "length"]
    assert (whole["choices"][0]["message"]["content"], done) == ("tok0 tok1 tok2 tok3", "[DONE]")


async def test_cached_tokens_are_shown_and_cheaper(client: Any):
    """Two of the three words were in the vendor's cache."""
    answer = await client.chat.completions.create(model="perplexity/cached(n=2)", messages=HELLO)
    assert answer.usage.prompt_tokens_details.cached_tokens == 2
    assert answer.usage.cost == pytest.approx(INPUT_USD + 2 * CACHED_USD + 10 * OUTPUT_USD)


async def test_what_the_vendor_would_refuse_is_dropped_and_told(perplexity: Server, upstream: FakeUpstream):
    """In headers, by OpenAI's names."""
    fields = {"seed": 1, "user": "ada", "logit_bias": {"1": 1}, "presence_penalty": 0.5, "top_k": 3, "temperature": 0.2}
    answer = await post(perplexity.port, chat("perplexity/ok", **fields))
    assert answer.status == 200, answer.body
    [dropped] = answer.headers("x-proxy-dropped-params")
    assert set(dropped.replace(" ", "").split(",")) == {"seed", "user", "logit_bias", "presence_penalty", "top_k"}


@pytest.mark.parametrize(
    ("mode", "error", "code"),
    [
        ("e401", openai.AuthenticationError, "invalid_api_key"),
        ("e402", openai.RateLimitError, "insufficient_quota"),
        ("e404", openai.NotFoundError, "model_not_found"),
        ("e429(retry_after=3)", openai.RateLimitError, "rate_limit_exceeded"),
        ("context_length", openai.BadRequestError, "context_length_exceeded"),
        ("e500", openai.InternalServerError, "upstream_error"),
        ("e503", openai.InternalServerError, "upstream_unavailable"),
        ("html_502", openai.InternalServerError, "upstream_error"),
        ("no_finish", openai.InternalServerError, "upstream_error"),
        ("cut_fin", openai.InternalServerError, "upstream_truncated"),
        ("json_in_200_error", openai.InternalServerError, "upstream_error"),
    ],
)
async def test_errors_reach_the_sdk_as_its_own(client: Any, mode: str, error: type[openai.APIStatusError], code: str):
    """Status and code, whole and streamed."""
    only_whole = mode in ("json_in_200_error", "no_finish", "cut_fin")  # a stream's status is out by then
    for stream in [False] if only_whole else [False, True]:
        with pytest.raises(error) as caught:
            await client.chat.completions.create(model=f"perplexity/{mode}", messages=HELLO, stream=stream)
        assert caught.value.code == code
        if "retry_after" in mode:
            assert caught.value.response.headers["retry-after"] == "3"


@pytest.mark.parametrize("mode", ["cut_fin(k=3)", "cut_rst(k=3)", "no_finish", "truncated_json(k=3)", "sse_error(k=3)"])
async def test_a_stream_that_breaks_ends_in_an_error_frame(perplexity: Server, upstream: FakeUpstream, mode: str):
    """What was said before it arrived; no `[DONE]`, no invented finish_reason."""
    answer = await post(perplexity.port, chat(f"perplexity/{mode}", stream=True))
    *events, last = answer.events
    assert last["error"]["code"] in ("upstream_truncated", "upstream_error")
    assert "[DONE]" not in events
    said = "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])
    assert said.startswith("tok0 tok1 tok2")
    assert all(choice["finish_reason"] is None for event in events for choice in event["choices"])


@pytest.mark.parametrize("mode", ["chunk_split", "utf8_split", "crlf_sse", "comment_pings", "multi_data_lines", "bom"])
async def test_the_bytes_of_a_stream_may_be_cut_and_dressed_in_any_way(client: Any, mode: str):
    """The same text and usage."""
    answer, chunks = await streamed(client, f"perplexity/{mode}")
    assert answer.choices[0].message.content.replace("é漢😀", "") == TEN
    check_usage(chunks[-1].usage, 3, 10)


async def test_what_was_used_is_in_the_rows(perplexity: Server, upstream: FakeUpstream):
    """Price times tokens is the cost."""
    before = (await get(perplexity.port, "/v1/usage")).json["total"]
    await perplexity.client.chat.completions.create(model="perplexity/ok(n_tokens=7)", messages=HELLO)
    after = (await get(perplexity.port, "/v1/usage")).json["total"]
    assert {name: after[name] - before[name] for name in ("input_tokens", "output_tokens")} == {
        "input_tokens": 3,
        "output_tokens": 7,
    }
    assert after["cost_usd"] - before["cost_usd"] == pytest.approx(3 * INPUT_USD + 7 * OUTPUT_USD)
