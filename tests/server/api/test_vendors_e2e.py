"""Every vendor with a wire of its own through the product: the unmodified OpenAI SDK, the proxy on a socket, servers
that refuse what the vendors refuse. The same is asked of each; what only one has is in the file of its name.
"""

from __future__ import annotations

import json
import re
from typing import Any

import openai
import pytest

from tests.providers.corpus import image, text, tool
from tests.server.api.end_to_end import (
    ERRORS,
    EVERYTHING,
    HELLO,
    INPUT_USD,
    KEY,
    KEYS,
    ONLY_WHOLE,
    OUTPUT_USD,
    TEN,
    VENDORS,
    streamed,
    thoughts,
)
from tests.server.api.raw import chat, get, post
from tests.serving import Server
from tests.upstream import FakeUpstream, key_hash

pytestmark = pytest.mark.asyncio(loop_scope="module")
EACH = pytest.mark.parametrize("name", VENDORS)


@EACH
async def test_whole_and_streamed_answers_agree_in_text_usage_and_cost(sdk: Any, name: str):
    """Three words in, ten tokens out; a stream's usage comes in a chunk of its own, as asked."""
    whole = await sdk.chat.completions.create(model=f"{name}/ok", messages=HELLO)
    answer, chunks = await streamed(sdk, f"{name}/ok")
    for each in (whole, answer):
        assert (each.choices[0].message.content, each.choices[0].finish_reason) == (TEN, "stop")
        assert each.model == f"{name}/ok"
    assert chunks[-1].choices == []
    assert all(chunk.usage is None for chunk in chunks[:-1])
    VENDORS[name].check_usage(whole.usage, 3, 10)
    VENDORS[name].check_usage(chunks[-1].usage, 3, 10)


@EACH
async def test_the_key_goes_where_the_vendor_reads_it(sdk: Any, upstream: FakeUpstream, name: str):
    """At its path, and nowhere else."""
    await sdk.chat.completions.create(model=f"{name}/ok", messages=HELLO)
    [seen] = upstream.ledger
    assert seen.path == VENDORS[name].path
    assert seen.key_headers == [VENDORS[name].key_header]
    assert seen.authorization == key_hash(KEYS[f"{name.upper()}_API_KEY"])


@EACH
async def test_cached_tokens_are_shown_and_cost_what_they_cost(sdk: Any, name: str):
    """Two of the three words were in the vendor's cache."""
    whole = await sdk.chat.completions.create(model=f"{name}/cached(n=2)", messages=HELLO)
    _, chunks = await streamed(sdk, f"{name}/cached(n=2)")
    VENDORS[name].check_usage(whole.usage, 3, 10, cached=2)
    VENDORS[name].check_usage(chunks[-1].usage, 3, 10, cached=2)


@EACH
async def test_an_answer_that_is_cut_says_so(vendors: Server, upstream: FakeUpstream, name: str):
    """By the request's own limit, whole and streamed."""
    model, said = f"{name}/ok(n_tokens=20)", " ".join(f"tok{place}" for place in range(16))
    whole = (await post(vendors.port, chat(model, max_completion_tokens=16))).json["choices"][0]
    *events, done = (await post(vendors.port, chat(model, max_completion_tokens=16, stream=True))).events
    assert (whole["message"]["content"], whole["finish_reason"]) == (said, "length")
    assert "".join(event["choices"][0]["delta"].get("content") or "" for event in events) == said
    assert (events[-1]["choices"][0]["finish_reason"], done) == ("length", "[DONE]")


@EACH
@pytest.mark.parametrize("calls", [1, 3])
async def test_tool_calls_whole_and_streamed_are_the_same(sdk: Any, name: str, calls: int):
    """Parallel ones too: ids, arguments, names that a vendor may refuse, in order."""
    names = [f"tool.{place}" for place in range(calls)]
    model, tools = f"{name}/tools(n={calls})-dup_ids", [tool(each) for each in names]
    whole = (await sdk.chat.completions.create(model=model, messages=HELLO, tools=tools)).choices[0]
    answer, chunks = await streamed(sdk, model, tools=tools)
    seen = []
    for choice in (whole, answer.choices[0]):
        assert choice.finish_reason == "tool_calls"
        assert [call.function.name for call in choice.message.tool_calls] == names
        seen.append([(call.id, call.function.arguments) for call in choice.message.tool_calls])
    assert seen[0] == seen[1]
    assert whole.message.content is None
    assert [json.loads(arguments)["text"].split()[0] for _, arguments in seen[0]] == TEN.split()[:calls]
    deltas = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or []]
    assert [call.index for call in deltas if call.id] == list(range(calls))


@EACH
@pytest.mark.parametrize("keeps", [True, False])
async def test_an_answer_with_calls_goes_back_with_its_results(
    sdk: Any, upstream: FakeUpstream, name: str, keeps: bool
):
    """The message as the SDK has it, or as a client has it that drops what it does not know; the vendor takes it."""
    tools, model = [tool("a"), tool("b")], f"{name}/tools(n=2)-reasoning(n=2)"
    fields = VENDORS[name].shows_thoughts
    message = (await sdk.chat.completions.create(model=model, messages=HELLO, tools=tools, **fields)).choices[0].message
    assert message.reasoning_content == "think0 think1 "
    assert len({call.id for call in message.tool_calls}) == 2
    sent = message.model_dump()
    if not keeps:
        calls = [{key: call[key] for key in ("id", "type", "function")} for call in sent["tool_calls"]]
        sent = {"role": "assistant", "content": None, "tool_calls": calls}
    results = [{"role": "tool", "tool_call_id": call.id, "content": "done"} for call in message.tool_calls]
    picture: Any = [{"role": "user", "content": [text("And this?"), image()]}] if keeps else []
    history: Any = [{"role": "system", "content": "Be brief."}, *HELLO, sent, *results, *picture]
    last = await sdk.chat.completions.create(model=f"{name}/ok", messages=history, tools=tools)
    assert last.choices[0].message.content == TEN
    assert [seen.status for seen in upstream.ledger] == [200, 200]


@EACH
async def test_a_tool_loop_that_began_elsewhere_is_taken(sdk: Any, upstream: FakeUpstream, name: str):
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
    answer = await sdk.chat.completions.create(model=f"{name}/ok", messages=history, **fields)
    assert answer.choices[0].message.content == TEN
    assert [seen.status for seen in upstream.ledger] == [200]


@EACH
async def test_thinking_is_reasoning_content(sdk: Any, name: str):
    """Beside the text, whole and streamed, and part of the output that is paid."""
    model, fields = f"{name}/reasoning(n=3)", {"reasoning_effort": "low", **VENDORS[name].shows_thoughts}
    whole = await sdk.chat.completions.create(model=model, messages=HELLO, **fields)
    answer, chunks = await streamed(sdk, model, **fields)
    assert whole.choices[0].message.reasoning_content == thoughts(chunks) == "think0 think1 think2 "
    assert whole.choices[0].message.content == answer.choices[0].message.content == TEN
    for usage in (whole.usage, chunks[-1].usage):
        VENDORS[name].check_usage(usage, 3, 13)
        details = usage.completion_tokens_details
        assert (details.reasoning_tokens if details else None) == (3 if VENDORS[name].counts_thoughts else None)


@EACH
async def test_several_choices(sdk: Any, upstream: FakeUpstream, name: str):
    """Where the vendor has no `n` they are several calls."""
    answer = await sdk.chat.completions.create(model=f"{name}/ok", messages=HELLO, n=2)
    assert [(choice.index, choice.message.content) for choice in answer.choices] == [(0, TEN), (1, TEN)]
    assert len(upstream.ledger) == (1 if VENDORS[name].choices_at_once else 2)


@EACH
async def test_what_the_vendor_would_refuse_is_dropped_or_adapted_and_told(
    vendors: Server, upstream: FakeUpstream, name: str
):
    """One request with everything: answered, and each loss has its name in a header."""
    answer = await post(vendors.port, chat(f"{name}/ok", **EVERYTHING))
    assert answer.status == 200, answer.body
    told = [answer.headers(f"x-proxy-{kind}-params") for kind in ("dropped", "adapted")]
    assert [set(",".join(each).split(",")) - {""} for each in told] == [VENDORS[name].dropped, VENDORS[name].adapted]


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("name", "mode"), [(name, mode) for name, vendor in VENDORS.items() for mode in {**ERRORS, **vendor.errors}]
)
async def test_errors_reach_the_sdk_as_its_own(sdk: Any, name: str, mode: str):
    """Status, code, the vendor's status and the time to wait, whole and streamed; no key, no organisation."""
    vendor = VENDORS[name]
    for stream in [False] if mode in ONLY_WHOLE else [False, True]:
        with pytest.raises(openai.APIStatusError) as caught:
            await sdk.chat.completions.create(model=f"{name}/{mode}", messages=HELLO, stream=stream)
        error: Any = caught.value
        assert (error.status_code, error.code) == {**ERRORS, **vendor.errors}[mode]
        assert error.response.headers.get("retry-after") == vendor.waits.get(mode)
        assert not re.search(f"{KEY}|org_01fake", str(error))
        if theirs := re.match(r"e(\d+)", mode):
            assert error.body["metadata"]["upstream_status"] == int(theirs[1])


@EACH
@pytest.mark.parametrize(
    "mode",
    ["cut_fin(k=3)", "cut_rst(k=3)", "cut_clean(k=3)", "no_finish-no_done", "truncated_json(k=3)", "sse_error(k=3)"],
)
async def test_a_stream_that_breaks_ends_in_an_error_frame(
    vendors: Server, upstream: FakeUpstream, name: str, mode: str
):
    """What was said before it arrived; no `[DONE]`, no invented finish_reason."""
    answer = await post(vendors.port, chat(f"{name}/{mode}", stream=True))
    assert answer.status == 200
    *events, last = answer.events
    assert last["error"]["code"] in ("upstream_truncated", "upstream_error")
    assert "[DONE]" not in events
    said = "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])
    assert said.startswith("tok0 tok1 tok2")
    assert all(choice["finish_reason"] is None for event in events for choice in event["choices"])


@pytest.mark.parametrize(
    ("name", "stream"),
    [("anthropic", False), ("anthropic", True), ("cohere", False), ("google", False)],
)
async def test_a_complete_answer_without_a_finish_is_paid_once(
    vendors: Server, upstream: FakeUpstream, name: str, stream: bool
):
    """It gets one from its content, and says so."""
    answer = await post(vendors.port, chat(f"{name}/no_finish", stream=stream))
    assert (answer.status, len(upstream.ledger)) == (200, 1)
    if stream:
        *_, end = (choice for event in answer.events[:-1] for choice in event["choices"])
        assert answer.events[-1] == "[DONE]"
    else:
        [end] = answer.json["choices"]
        assert answer.headers("x-proxy-adapted-params") == ["finish_reason"]
    assert (end["finish_reason"], end["native_finish_reason"]) == ("stop", None)


@pytest.mark.sampled(4)
@EACH
@pytest.mark.parametrize(
    "mode", ["chunk_split", "utf8_split", "crlf_sse", "comment_pings", "multi_data_lines", "bom", "no_done"]
)
async def test_the_bytes_of_a_stream_may_be_cut_and_dressed_in_any_way(sdk: Any, name: str, mode: str):
    """The same text and usage."""
    answer, chunks = await streamed(sdk, f"{name}/{mode}")
    assert answer.choices[0].message.content.replace("é漢😀", "") == TEN
    VENDORS[name].check_usage(chunks[-1].usage, 3, 10)


@EACH
@pytest.mark.parametrize("mode", ["no_usage", "usage_partial", "usage_null"])
async def test_usage_that_the_vendor_leaves_out_is_estimated(sdk: Any, name: str, mode: str):
    """Never zero."""
    whole = await sdk.chat.completions.create(model=f"{name}/{mode}", messages=HELLO)
    _, chunks = await streamed(sdk, f"{name}/{mode}")
    for usage in (whole.usage, chunks[-1].usage):
        assert min(usage.prompt_tokens, usage.completion_tokens, usage.cost) > 0


@EACH
async def test_an_answer_without_a_word_costs_its_prompt(sdk: Any, name: str):
    """A count of zero is a count."""
    whole = await sdk.chat.completions.create(model=f"{name}/ok(n_tokens=0)", messages=HELLO)
    _, chunks = await streamed(sdk, f"{name}/ok(n_tokens=0)")
    for usage in (whole.usage, chunks[-1].usage):
        VENDORS[name].check_usage(usage, 3, 0)


@EACH
async def test_what_was_used_is_in_the_rows(vendors: Server, upstream: FakeUpstream, name: str):
    """Price times tokens is the cost, also of a stream that did not ask for its usage, and gets none."""
    since = (await get(vendors.port, "/v1/usage")).json["total"]
    await vendors.client.chat.completions.create(model=f"{name}/reasoning(n=2,n_tokens=5)", messages=HELLO)
    await streamed(vendors.client, f"{name}/tools(n=2)", tools=[tool()])
    answer = await post(vendors.port, chat(f"{name}/ok", stream=True))
    assert [event for event in answer.events if "usage" in event] == []
    until = (await get(vendors.port, "/v1/usage")).json["total"]
    grown = {each: until[each] - since[each] for each in ("calls", "input_tokens", "output_tokens")}
    assert grown == {"calls": 3, "input_tokens": 9, "output_tokens": 27}
    assert until["cost_usd"] - since["cost_usd"] == pytest.approx(9 * INPUT_USD + 27 * OUTPUT_USD)
