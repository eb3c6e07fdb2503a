"""Mistral and Groq through the product: the unmodified OpenAI SDK, the proxy on a socket, servers that refuse what the
vendors refuse.
"""

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
from tests.upstream.dialects import GROQ, MISTRAL

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECTION = "{{type: KIND, base_url: 'URL', allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}"
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  mistral: MISTRAL
  groq: GROQ
router: {{default_model: mistral/ok}}
"""
PRICING = """
version: 1
models:
  mistral/*: {input: 2.00, output: 10.00, cached_input: 1.00, max_output: 4096}
  groq/*: {input: 2.00, output: 10.00, cached_input: 1.00, max_output: 4096}
"""
INPUT_USD, OUTPUT_USD, CACHED_USD = 2e-6, 10e-6, 1e-6  # per token
HELLO: Any = [{"role": "user", "content": "one two three"}]
TEN = " ".join(f"tok{place}" for place in range(10))
VENDORS = pytest.mark.parametrize("vendor", ["mistral", "groq"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def dialects(upstream_of_module: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    origin = upstream_of_module.url.removesuffix("/v1")
    routing = ROUTING
    for kind, root in (("mistral", MISTRAL), ("groq", GROQ)):
        section = SECTION.replace("KIND", kind).replace("URL", origin + root)
        routing = routing.replace(kind.upper(), section)
    async with serving(write_files(tmp_path_factory.mktemp("dialects"), origin, routing, PRICING)) as running:
        yield running


@pytest.fixture
def client(dialects: Server, upstream: FakeUpstream) -> Any:
    """The SDK's client, without its types: the tests read what the types call optional."""
    return dialects.client


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


@VENDORS
async def test_whole_and_streamed_answers_agree_in_text_usage_and_cost(client: Any, vendor: str):
    """Usage is in the vendor's last chunk, unasked; the client gets it in a chunk of its own, as asked."""
    whole = await client.chat.completions.create(model=f"{vendor}/ok", messages=HELLO)
    answer, chunks = await streamed(client, f"{vendor}/ok")
    for choice in (whole.choices[0], answer.choices[0]):
        assert (choice.message.content, choice.finish_reason) == (TEN, "stop")
    assert chunks[-1].choices == []
    check_usage(whole.usage, 3, 10)
    check_usage(chunks[-1].usage, 3, 10)


@VENDORS
async def test_a_stream_that_did_not_ask_for_usage_gets_none_and_is_metered(
    dialects: Server, upstream: FakeUpstream, vendor: str
):
    """The vendor sends it all the same."""
    before = (await get(dialects.port, "/v1/usage")).json["total"]
    answer = await post(dialects.port, chat(f"{vendor}/ok", stream=True))
    assert all(event == "[DONE]" or "usage" not in event for event in answer.events)
    after = (await get(dialects.port, "/v1/usage")).json["total"]
    assert after["output_tokens"] - before["output_tokens"] == 10
    assert after["cost_usd"] - before["cost_usd"] == pytest.approx(3 * INPUT_USD + 10 * OUTPUT_USD)


@VENDORS
@pytest.mark.parametrize("calls", [1, 3])
async def test_tool_calls_whole_and_streamed_are_the_same(client: Any, vendor: str, calls: int):
    """The vendors send each in one piece, Mistral without type and index."""
    tools = [tool(f"tool_{place}") for place in range(calls)]
    model = f"{vendor}/tools(n={calls})-dup_ids"
    whole = (await client.chat.completions.create(model=model, messages=HELLO, tools=tools)).choices[0]
    answer, chunks = await streamed(client, model, tools=tools)
    for choice in (whole, answer.choices[0]):
        assert choice.finish_reason == "tool_calls"
        assert [call.function.name for call in choice.message.tool_calls] == [f"tool_{place}" for place in range(calls)]
    seen = [[call.function.arguments for call in c.message.tool_calls] for c in (whole, answer.choices[0])]
    assert seen[0] == seen[1]
    assert all(json.loads(text)["text"].strip().startswith("tok") for text in seen[0])
    assert whole.message.content is None
    deltas = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or []]
    assert sorted(call.index for call in deltas if call.id) == list(range(calls))


@VENDORS
async def test_a_tool_loop_that_began_elsewhere_is_taken(client: Any, upstream: FakeUpstream, vendor: str):
    """History of another vendor: long ids, thoughts, annotations, a user's word right after the result."""
    call = {"id": "call_0123456789abcdefXYZ", "type": "function", "index": 0, "extra_content": {"google": {}}}
    asked = {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "annotations": [],
        "reasoning_content": "thoughts",
        "thinking_blocks": [{"type": "thinking", "thinking": "thoughts", "signature": "s"}],
        "tool_calls": [{**call, "function": {"name": "weather", "arguments": "{}"}}],
    }
    history: Any = [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        *HELLO,
        asked,
        {"role": "tool", "tool_call_id": call["id"], "content": [{"type": "text", "text": "sunny"}]},
        {"role": "user", "content": "go on"},
    ]
    fields: Any = {"tools": [tool()], "tool_choice": "required", "max_completion_tokens": 50, "seed": 7}
    answer = await client.chat.completions.create(model=f"{vendor}/ok", messages=history, **fields)
    assert answer.choices[0].message.content == TEN
    assert [seen.status for seen in upstream.ledger] == [200]


@VENDORS
async def test_an_answer_with_calls_goes_back_with_its_results(client: Any, upstream: FakeUpstream, vendor: str):
    """The message as the SDK has it, extras included."""
    tools = [tool("a"), tool("b")]
    model = f"{vendor}/tools(n=2)-reasoning(n=2)"
    message = (await client.chat.completions.create(model=model, messages=HELLO, tools=tools)).choices[0].message
    assert message.reasoning_content == "think0 think1 "
    results = [{"role": "tool", "tool_call_id": call.id, "content": "done"} for call in message.tool_calls]
    history: Any = [*HELLO, message.model_dump(), *results]
    await client.chat.completions.create(model=f"{vendor}/ok", messages=history, tools=tools)
    assert [seen.status for seen in upstream.ledger] == [200, 200]


@VENDORS
async def test_thinking_is_reasoning_content(client: Any, vendor: str):
    """From chunks of content (Mistral) or a field of its own (Groq)."""
    whole = (await client.chat.completions.create(model=f"{vendor}/reasoning(n=3)", messages=HELLO)).choices[0].message
    assert (whole.reasoning_content, whole.content) == ("think0 think1 think2 ", TEN)
    answer, chunks = await streamed(client, f"{vendor}/reasoning(n=3)")
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "think0 think1 think2 "
    assert answer.choices[0].message.content == TEN


@VENDORS
async def test_cached_tokens_are_shown_and_cheaper(client: Any, vendor: str):
    """Two of the three words were in the vendor's cache."""
    answer = await client.chat.completions.create(model=f"{vendor}/cached(n=2)", messages=HELLO)
    assert answer.usage.prompt_tokens_details.cached_tokens == 2
    assert answer.usage.cost == pytest.approx(INPUT_USD + 2 * CACHED_USD + 10 * OUTPUT_USD)


EVERYTHING = {
    "temperature": 0.5,
    "top_p": 0.9,
    "seed": 1,
    "stop": ["a", "b", "c", "d", "zz"],
    "user": "ada",
    "store": True,
    "metadata": {"a": "b"},
    "logit_bias": {"1": 1},
    "service_tier": "default",
    "prediction": {"type": "content", "content": "x"},
    "verbosity": "low",
    "safety_identifier": "ada",
    "parallel_tool_calls": False,
    "tools": [tool(cache_control={"type": "ephemeral"})],
    "min_q": 0.1,
}


@pytest.mark.parametrize(
    ("vendor", "dropped"),
    [
        ("mistral", {"user", "store", "logit_bias", "verbosity", "safety_identifier", "min_q", "tools.cache_control"}),
        (
            "groq",
            {
                *("store", "metadata", "logit_bias", "prediction", "verbosity", "safety_identifier"),
                *("min_q", "tools.cache_control"),
            },
        ),
    ],
)
async def test_what_the_vendor_would_refuse_is_dropped_and_told(
    dialects: Server, upstream: FakeUpstream, vendor: str, dropped: set[str]
):
    """One request with everything: answered, and each loss has its name in a header."""
    answer = await post(dialects.port, chat(f"{vendor}/ok", **EVERYTHING))
    assert answer.status == 200, answer.body
    [told] = answer.headers("x-proxy-dropped-params")
    assert set(told.replace(" ", "").split(",")) == dropped


@VENDORS
@pytest.mark.parametrize(
    ("mode", "error", "code"),
    [
        ("e401", openai.AuthenticationError, "invalid_api_key"),
        ("e404", openai.NotFoundError, "model_not_found"),
        ("e429(retry_after=3)", openai.RateLimitError, "rate_limit_exceeded"),
        ("context_length", openai.BadRequestError, "context_length_exceeded"),
        ("e500", openai.InternalServerError, "upstream_error"),
        ("e503", openai.InternalServerError, "upstream_unavailable"),
        ("html_502", openai.InternalServerError, "upstream_error"),
        ("json_in_200_error", openai.InternalServerError, "upstream_error"),
        ("no_finish", openai.InternalServerError, "upstream_truncated"),
        ("cut_fin", openai.InternalServerError, "upstream_truncated"),
    ],
)
async def test_errors_reach_the_sdk_as_its_own(
    client: Any, vendor: str, mode: str, error: type[openai.APIStatusError], code: str
):
    """Status and code, whole and streamed."""
    only_whole = mode in ("json_in_200_error", "no_finish", "cut_fin")  # a stream's status is out by then
    for stream in [False] if only_whole else [False, True]:
        with pytest.raises(error) as caught:
            await client.chat.completions.create(model=f"{vendor}/{mode}", messages=HELLO, stream=stream)
        assert caught.value.code == code
        assert "org_01fake" not in str(caught.value)
        if "retry_after" in mode:
            assert caught.value.response.headers["retry-after"] == "3"


@VENDORS
@pytest.mark.parametrize("mode", ["cut_fin(k=3)", "cut_rst(k=3)", "no_finish", "truncated_json(k=3)", "sse_error(k=3)"])
async def test_a_stream_that_breaks_ends_in_an_error_frame(
    dialects: Server, upstream: FakeUpstream, vendor: str, mode: str
):
    """What was said before it arrived; no `[DONE]`, no invented finish_reason."""
    answer = await post(dialects.port, chat(f"{vendor}/{mode}", stream=True))
    *events, last = answer.events
    assert last["error"]["code"] in ("upstream_truncated", "upstream_error")
    assert "[DONE]" not in events
    text = "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])
    assert text.startswith("tok0 tok1 tok2")
    assert all(choice["finish_reason"] is None for event in events for choice in event["choices"])


async def test_groqs_time_to_wait_is_read_from_its_words(dialects: Server, upstream: FakeUpstream):
    """ "Please try again in 4.77s.", where no header says so."""
    answer = await post(dialects.port, chat("groq/e429"))
    assert answer.status == 429
    assert answer.headers("retry-after") == ["5"]
