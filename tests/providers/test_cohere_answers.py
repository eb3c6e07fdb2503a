"""Rules of Cohere's answers: whole and streamed ones agree, nothing is invented, what it bills is what is metered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cohere.types.embed_by_type_response import EmbedByTypeResponse
from cohere.v2.types.v2chat_response import V2ChatResponse
from cohere.v2.types.v2rerank_response import V2RerankResponse

from proxy.metering import prices
from proxy.metering.pricing import ModelPrice
from proxy.providers.base.contract import HTTPResponse
from proxy.providers.cohere import Cohere
from proxy.schema.chat import ChatResponse
from proxy.schema.errors import UpstreamError, UpstreamTruncated
from proxy.schema.fold import Fold
from proxy.schema.records import Tokens
from proxy.schema.sse import Event, EventFraming
from proxy.server.formats.chat import decode_chat
from tests.providers.corpus import result, tool, user
from tests.providers.recordings import answer, events, load, recordings

COHERE = Cohere()
REQUEST = decode_chat(b'{"model": "x", "messages": [{"role": "user", "content": "hi"}], "stream": true}')
OTHER_APIS = ("embedding", "truncate", "rerank")
CHATS = [name for name in recordings("json", "cohere") if not any(word in name for word in OTHER_APIS)]
STREAMS = recordings("events", "cohere")
USAGE = {"billed_units": {"input_tokens": 3, "output_tokens": 2}, "tokens": {"input_tokens": 9.0, "output_tokens": 4}}


def whole(body: Any) -> ChatResponse:
    return COHERE.parse_response(HTTPResponse(200, {"content-type": "application/json"}, json.dumps(body).encode()))


def said(*, finish_reason: str = "COMPLETE", **message: Any) -> dict[str, Any]:
    return {"id": "a", "message": {"role": "assistant", **message}, "finish_reason": finish_reason, "usage": USAGE}


def framed(all_events: list[dict[str, Any]]) -> bytes:
    lines = [f"event: {each['type']}\ndata: {json.dumps(each, ensure_ascii=False)}\n\n" for each in all_events]
    return "".join([*lines, "data: [DONE]\n\n"]).encode()


def folded(all_events: list[Event]) -> ChatResponse:
    decoder, fold = COHERE.stream_decoder(REQUEST), Fold()
    for event in all_events:
        for chunk in decoder.feed(event):
            fold.add(chunk)
    decoder.close()
    return fold.response()


def streamed(*all_events: dict[str, Any]) -> ChatResponse:
    return folded(EventFraming().feed(framed(list(all_events))))


def event(kind: str, index: int | None = None, **message: Any) -> dict[str, Any]:
    place = {} if index is None else {"index": index}
    return {"type": kind, **place, **({"delta": {"message": message}} if message else {})}


def ended(finish_reason: str = "COMPLETE", **delta: Any) -> dict[str, Any]:
    return {"type": "message-end", "delta": {"finish_reason": finish_reason, "usage": USAGE, **delta}}


def started(index: int, name: str, arguments: str = "", **more: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    calling = {"id": f"{name}_1", "type": "function", "function": function, **more}
    return event("tool-call-start", index, tool_calls=calling)


def written(index: int, arguments: str) -> dict[str, Any]:
    return event("tool-call-delta", index, tool_calls={"function": {"arguments": arguments}})


def as_stream(body: dict[str, Any], size: int = 3) -> list[dict[str, Any]]:
    """The whole answer as the vendor would have streamed it, texts in pieces of `size` characters."""
    message = body["message"]
    found: list[dict[str, Any]] = [{"type": "message-start", "id": body["id"], "delta": {"message": {"content": []}}}]
    for index, block in enumerate(message.get("content") or []):
        kind = block["type"]
        found.append(event("content-start", index, content={"type": kind, kind: ""}))
        for start in range(0, len(block[kind]), size):
            found.append(event("content-delta", index, content={kind: block[kind][start : start + size]}))
        found.append(event("content-end", index))
    plan = message.get("tool_plan") or ""
    found += [event("tool-plan-delta", tool_plan=plan[at : at + size]) for at in range(0, len(plan), size)]
    for index, call in enumerate(message.get("tool_calls") or []):
        arguments = call["function"]["arguments"]
        opening = {**call, "function": {**call["function"], "arguments": ""}}
        found.append(event("tool-call-start", index, tool_calls=opening))
        found += [written(index, arguments[at : at + size]) for at in range(0, len(arguments), size)]
        found.append(event("tool-call-end", index))
    for index, citation in enumerate(message.get("citations") or []):
        found += [event("citation-start", index, citations=citation), event("citation-end", index)]
    end = {name: body[name] for name in ("finish_reason", "usage") if name in body}
    return [*found, {"type": "message-end", "delta": end}]


# --- recordings -------------------------------------------------------------------------------------------------------


def test_every_recording_is_here():
    """Chat, embeddings and rankings: sixteen files."""
    assert len(CHATS) == 9
    assert len(STREAMS) == 4
    assert len(recordings("json", "cohere")) == 12


@pytest.mark.parametrize("name", CHATS)
def test_a_recorded_answer_says_what_the_vendors_sdk_says(name: str):
    """Text, thinking, plan, calls and counts, as the SDK's own model of the answer reads them."""
    theirs = V2ChatResponse.model_validate(load(name)["json"])
    ours = COHERE.parse_response(answer(name))
    message = ours["choices"][0]["message"]
    blocks = theirs.message.content or []
    assert ours["id"] == theirs.id
    assert (message["content"] or "") == "".join(block.text for block in blocks if block.type == "text")
    thought = "".join(block.thinking for block in blocks if block.type == "thinking")
    assert message.get("reasoning_content", "") == (theirs.message.tool_plan or "") + thought
    functions: list[Any] = [(call.id, call.function) for call in theirs.message.tool_calls or []]
    calls = [(call_id, function.name, json.loads(function.arguments) or {}) for call_id, function in functions]
    assert [
        (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in message.get("tool_calls", [])
    ] == calls
    assert theirs.usage is not None
    assert theirs.usage.tokens is not None
    assert ours["usage"].shown["prompt_tokens"] == theirs.usage.tokens.input_tokens
    assert ours["usage"].shown["completion_tokens"] == theirs.usage.tokens.output_tokens
    cached = ours["usage"].shown.get("prompt_tokens_details", {}).get("cached_tokens")
    assert cached == theirs.usage.cached_tokens
    assert ours["choices"][0]["native_finish_reason"] == theirs.finish_reason  # type: ignore[typeddict-item]


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("size", [1, 4, 1000])
def test_a_whole_answer_folds_from_its_stream(name: str, size: int):
    """The fold law: streamed in pieces of any size, an answer folds to what parse_response says of it."""
    body = load(name)["json"]
    assert streamed(*as_stream(body, size)) == COHERE.parse_response(answer(name))


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_folds_to_the_answer_its_texts_spell(name: str):
    """The fold law on recorded streams: put together by hand, they are a whole answer that parses to the same."""
    body: dict[str, Any] = {"id": None, "message": {"role": "assistant"}}
    blocks: dict[int, dict[str, str]] = {}
    calls: dict[int, dict[str, Any]] = {}
    plan = ""
    for each in load(name)["events"]:
        inner = each.get("delta", {}).get("message", {})
        match each["type"]:
            case "message-start":
                body["id"] = each["id"]
            case "content-start":
                blocks[each["index"]] = dict(inner["content"])
            case "content-delta":
                [(kind, piece)] = inner["content"].items()
                blocks[each["index"]][kind] += piece
            case "tool-plan-delta":
                plan += inner["tool_plan"]
            case "tool-call-start":
                calls[each["index"]] = inner["tool_calls"]
            case "tool-call-delta":
                calls[each["index"]]["function"]["arguments"] += inner["tool_calls"]["function"]["arguments"]
            case "message-end":
                body |= each["delta"]
    message = {"content": list(blocks.values()), "tool_plan": plan, "tool_calls": list(calls.values())}
    body["message"] |= {field: value for field, value in message.items() if value}
    assert folded(events(name)) == whole(body)


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.sampled(3)
def test_a_stream_may_be_cut_at_every_byte(name: str):
    """Two reads instead of one, at any offset, give the same events."""
    data = framed(load(name)["events"])
    expected = EventFraming().feed(data)
    for cut in range(len(data)):
        framing = EventFraming()
        assert framing.feed(data[:cut]) + framing.feed(data[cut:]) == expected
    assert folded(expected) == folded(events(name))


@pytest.mark.parametrize("name", [*CHATS, *STREAMS])
def test_the_parts_of_usage_sum_to_what_the_vendor_bills(name: str):
    """The usage law: the answer shows the model's real counts, the parts are of the bill."""
    if name in STREAMS:
        usage: Any = folded(events(name))["usage"]
        [said] = [
            body["delta"]["usage"]
            for body in (json.loads(each.data) for each in events(name))
            if body["type"] == "message-end"
        ]
    else:
        usage, said = COHERE.parse_response(answer(name))["usage"], json.loads(answer(name).body)["usage"]
    tokens, billed = usage.billed, said["billed_units"]
    assert (tokens.prompt, tokens.output) == (billed["input_tokens"], billed["output_tokens"])
    assert tokens.total == billed["input_tokens"] + billed["output_tokens"]
    shown = usage.shown
    assert shown["prompt_tokens"] + shown["completion_tokens"] == shown["total_tokens"] >= tokens.total


def test_the_cost_is_of_the_billed_units():
    """119 of 1,549 input tokens and 52 of 103 output tokens are billed (recorded): 119 * 2.5 + 52 * 10 micro-USD."""
    usage = COHERE.parse_response(answer("cohere/pair_cohere-tool-call.json.json"))["usage"]
    assert (usage.shown["prompt_tokens"], usage.shown["completion_tokens"]) == (1549, 103)
    cost = prices.cost(ModelPrice(input=2.5, output=10), usage.billed)
    assert cost is not None
    assert cost.total == 119 * 2_500 + 52 * 10_000


@pytest.mark.parametrize("name", CHATS)
def test_an_answer_with_calls_can_be_sent_back(name: str):
    """The next request holds the same calls, and the plan that led to them."""
    message: Any = COHERE.parse_response(answer(name))["choices"][0]["message"]
    calls = message.get("tool_calls", [])
    messages = [user(), message, *[result(call["id"]) for call in calls]]
    body = json.dumps({"model": "x", "messages": messages, "tools": [tool()]}).encode()
    turn = json.loads(COHERE.build_request(decode_chat(body), "command-a-plus-05-2026").http.body)["messages"][1]
    assert turn.get("tool_calls", []) == calls
    if calls:
        assert turn["tool_plan"] == message["reasoning_content"]


# --- what an answer may hold ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("COMPLETE", "stop"),
        ("STOP_SEQUENCE", "stop"),
        ("MAX_TOKENS", "length"),
        ("ERROR_LIMIT", "length"),
        ("ERROR_TOXIC", "content_filter"),
        ("TOOL_CALL", "stop"),
        ("SOMETHING_NEW", "stop"),
    ],
)
def test_a_finish_reason_is_one_of_openais_words_with_the_vendors_beside_it(theirs: str, ours: str):
    """Without calls nobody can be told to run tools."""
    block = {"type": "text", "text": "x"}
    body = said(content=[block], finish_reason=theirs)
    choice: Any = whole(body)["choices"][0]
    assert (choice["finish_reason"], choice["native_finish_reason"]) == (ours, theirs)
    assert streamed(*as_stream(body)) == whole(body)


@pytest.mark.parametrize(
    ("theirs", "ours"), [("COMPLETE", "tool_calls"), ("TOOL_CALL", "tool_calls"), ("MAX_TOKENS", "length")]
)
def test_an_answer_with_calls_says_so(theirs: str, ours: str):
    """Unless it was cut in the middle of them."""
    calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    assert whole(said(tool_calls=calls, finish_reason=theirs))["choices"][0]["finish_reason"] == ours


@pytest.mark.parametrize(
    ("delta", "status", "code"),
    [
        ({"finish_reason": "ERROR"}, 502, "upstream_error"),
        ({"finish_reason": "TIMEOUT"}, 504, "upstream_timeout"),
        ({"finish_reason": "ERROR", "error": "it broke"}, 502, "upstream_error"),
        ({"error": "it broke"}, 502, "upstream_error"),
    ],
)
def test_an_answer_that_ended_in_an_error_is_one(delta: dict[str, Any], status: int, code: str):
    """With text before it or without: a finish_reason is never invented."""
    with pytest.raises(UpstreamError) as caught:
        streamed(event("content-delta", 0, content={"text": "x"}), {"type": "message-end", "delta": delta})
    assert (caught.value.status, caught.value.code, caught.value.retryable) == (status, code, True)
    if "error" not in delta:
        with pytest.raises(UpstreamError) as caught:
            whole(said(content=[{"type": "text", "text": "x"}], **delta))
        assert (caught.value.status, caught.value.code) == (status, code)


@pytest.mark.parametrize("pieces", [["null"], ["nu", "ll"], [" null "], [""], [], ["{", "}"], ["{}"]])
def test_a_call_without_arguments_has_an_empty_object(pieces: list[str]):
    """The vendor says `null`, or says nothing at all (recorded); the call may end without its event."""
    body = [started(0, "now"), *[written(0, piece) for piece in pieces]]
    for end in ([event("tool-call-end", 0)], []):
        calls = streamed(*body, *end, ended("TOOL_CALL"))["choices"][0]["message"]["tool_calls"]
        assert calls == [{"id": "now_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}]
    call = {"id": "a", "type": "function", "function": {"name": "now", "arguments": "".join(pieces)}}
    assert whole(said(tool_calls=[call]))["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == "{}"


def test_arguments_that_only_begin_like_null_are_kept():
    """Held back until they are known, then said in full."""
    made = streamed(started(0, "f"), written(0, "nu"), written(0, "mber"), ended("TOOL_CALL"))
    assert made["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == "number"
    cut = streamed(started(0, "f"), written(0, "nu"), ended("MAX_TOKENS"))
    assert cut["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == "nu"


def test_parallel_calls_get_dense_indexes_whatever_the_vendors_are():
    """And keep their fragments apart when they take turns."""
    made = streamed(
        started(3, "a"),
        started(7, "b"),
        written(7, '{"x":'),
        written(3, '{"y":'),
        written(7, "1}"),
        written(3, "2}"),
        ended("TOOL_CALL"),
    )
    calls = made["choices"][0]["message"]["tool_calls"]
    assert [call["function"] for call in calls] == [
        {"name": "a", "arguments": '{"y":2}'},
        {"name": "b", "arguments": '{"x":1}'},
    ]


def test_a_call_without_an_id_gets_one_from_the_answers():
    """The same for whole and streamed answers."""
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    body = said(tool_calls=[call, call], finish_reason="TOOL_CALL")
    assert [call["id"] for call in whole(body)["choices"][0]["message"]["tool_calls"]] == ["call_a_0", "call_a_1"]
    assert streamed(*as_stream(body)) == whole(body)


def test_thinking_and_plan_are_the_reasoning():
    """In this order, apart from each other."""
    blocks = [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "So."}]
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    body = said(content=blocks, tool_plan="I will ask.", tool_calls=[call], finish_reason="TOOL_CALL")
    message = whole(body)["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("So.", "Hm.\n\nI will ask.")
    assert streamed(*as_stream(body)) == whole(body)


WEB = {"type": "document", "id": "1", "document": {"url": "https://example.com/a", "title": "A", "text": "x"}}
CITED = {"start": 4, "end": 7, "text": "sky", "sources": [WEB], "type": "TEXT_CONTENT", "content_index": 1}
BLOCKS = [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "The sky is blue."}]


def test_citations_are_kept_and_those_with_a_link_are_annotations():
    """In the vendor's form under its own name, in OpenAI's where a source has a URL."""
    plain = {**CITED, "sources": [{"type": "document", "id": "2", "document": {"text": "no link"}}]}
    by_tool = {
        **CITED,
        "sources": [{"type": "tool", "id": "f:0", "tool_output": {"url": "https://example.com/b"}}, WEB],
    }
    plan = {**CITED, "type": "PLAN"}
    body = said(content=BLOCKS, citations=[CITED, plain, by_tool, plan])
    message: Any = whole(body)["choices"][0]["message"]
    assert message["citations"] == [CITED, plain, by_tool, plan]
    place = {"start_index": 4, "end_index": 7}
    assert message["annotations"] == [
        {"type": "url_citation", "url_citation": {**place, "title": "A", "url": "https://example.com/a"}},
        {"type": "url_citation", "url_citation": {**place, "title": "", "url": "https://example.com/b"}},
        {"type": "url_citation", "url_citation": {**place, "title": "A", "url": "https://example.com/a"}},
    ]
    assert streamed(*as_stream(body)) == whole(body)


def test_places_of_citations_count_from_the_start_of_the_content():
    """The vendor's count from the start of their block."""
    blocks = [{"type": "text", "text": "Look: "}, {"type": "text", "text": "the sky"}]
    body = said(content=blocks, citations=[CITED])
    message = whole(body)["choices"][0]["message"]
    cited = message["annotations"][0]["url_citation"]
    assert (message["content"] or "")[cited["start_index"] : cited["end_index"]] == "sky"
    assert streamed(*as_stream(body)) == whole(body)


@pytest.mark.parametrize(
    "citation",
    [
        {},
        {"start": "a"},
        {**CITED, "sources": None},
        {**CITED, "sources": [1, {"document": 2}]},
        {**CITED, "end": None},
    ],
)
def test_a_citation_that_is_odd_is_kept_without_an_annotation(citation: dict[str, Any]):
    """What we cannot read we do not drop."""
    message: Any = whole(said(content=BLOCKS, citations=[citation, "odd"]))["choices"][0]["message"]
    assert (message["citations"], message["annotations"]) == ([citation], [])


def test_log_probabilities_are_openais():
    """A piece of several tokens has the sum of theirs."""
    items = [
        {"text": "The", "token_ids": [1], "logprobs": [-0.5]},
        {"text": "ö", "token_ids": [2, 3], "logprobs": [-1, -2]},
    ]
    body = {**said(content=[{"type": "text", "text": "Theö"}]), "logprobs": items}
    expected = [
        {"token": "The", "logprob": -0.5, "bytes": [84, 104, 101], "top_logprobs": []},
        {"token": "ö", "logprob": -3, "bytes": [195, 182], "top_logprobs": []},
    ]
    assert whole(body)["choices"][0]["logprobs"] == {"content": expected}
    deltas = [{**event("content-delta", 0, content={"text": item["text"]}), "logprobs": item} for item in items]
    assert streamed(*deltas, ended())["choices"][0]["logprobs"] == {"content": expected}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (USAGE, (9, 4, Tokens(input=3, output=2))),
        ({"tokens": {"input_tokens": 9, "output_tokens": 4}}, (9, 4, Tokens(input=9, output=4))),
        ({"billed_units": {"input_tokens": 3.0, "output_tokens": 2.0}}, (3, 2, Tokens(input=3, output=2))),
        (
            {**USAGE, "tokens": {"input_tokens": 9, "output_tokens": 4, "reasoning_tokens": 3}},
            (9, 4, Tokens(input=3, output=2, reasoning=2)),
        ),
    ],
)
def test_usage_is_what_was_read_and_the_bill_stands_beside_it(usage: dict[str, Any], expected: Any):
    """One stands in for the other where the vendor said only one."""
    found = whole({**said(), "usage": usage})["usage"]
    assert (found.shown["prompt_tokens"], found.shown["completion_tokens"], found.billed) == expected


def test_tokens_of_thoughts_are_where_clients_look():
    """Models of 2026 count them among their output."""
    tokens = {"input_tokens": 9, "output_tokens": 4, "reasoning_tokens": 3}
    found = whole({**said(), "usage": {**USAGE, "tokens": tokens}})["usage"]
    assert found.shown["completion_tokens_details"] == {"reasoning_tokens": 3}


@pytest.mark.parametrize(
    "usage",
    [None, {}, [], "x", {"tokens": {}}],
)
def test_usage_that_is_none_is_missing(usage: Any):
    """Then the proxy estimates, and says so."""
    assert "usage" not in whole({**said(), "usage": usage})
    assert "usage" not in streamed({"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage}})


# --- answers that are none --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"message": {}, "finish_reason": null}',
        b'{"message": "internal server error"}',
        b'{"message": {"tool_calls": [1]}, "finish_reason": "TOOL_CALL"}',
        b'{"message": {"tool_calls": [{"function": {"name": 1}}]}, "finish_reason": "TOOL_CALL"}',
        b'{"message": [], "finish_reason": "COMPLETE"}',
        b'{"id": "a", "message": {"content": [{"type": "text", "te',
    ],
)
def test_a_200_that_is_no_answer_is_an_upstream_error(body: bytes):
    """HTML, half JSON, other types: 502, nothing leaks."""
    with pytest.raises(UpstreamError) as caught:
        COHERE.parse_response(HTTPResponse(200, {}, body))
    assert caught.value.status == 502
    assert "html" not in caught.value.message


@pytest.mark.parametrize(
    "message",
    [
        {"content": 1},
        {"content": [1, None, {"type": "text", "text": 1}]},
        {"content": "x", "tool_plan": 1, "citations": 1},
        {"content": None, "tool_calls": None, "tool_plan": None, "citations": None},
    ],
)
def test_parts_of_other_types_are_passed_over(message: dict[str, Any]):
    """A field that is not what it should be does not cost the answer."""
    choice = whole({"id": 5, "message": message, "finish_reason": "COMPLETE", "logprobs": 1})["choices"][0]
    assert isinstance(choice["message"]["content"], str)
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "all_events",
    [
        [],
        [event("message-start")],
        [event("content-delta", 0, content={"text": "x"})],
        [{"type": "message-end"}],
        [event("message-start"), {"type": "message-end", "delta": {"usage": USAGE}}],
    ],
)
def test_a_stream_without_its_finish_is_truncated(all_events: list[dict[str, Any]]):
    """`[DONE]` alone finishes nothing."""
    with pytest.raises(UpstreamTruncated):
        streamed(*all_events)


@pytest.mark.parametrize(
    "all_events",
    [
        [event("tool-call-start", 0, tool_calls={"id": "a"})],
        [event("tool-call-start", 0, tool_calls=[1])],
        [written(0, "{}")],
        [{"type": "error", "message": "it broke"}],
        [{"message": "it broke"}],
    ],
)
def test_a_stream_that_is_broken_is_an_upstream_error(all_events: list[dict[str, Any]]):
    """Calls without a name or a beginning, errors inside a 200."""
    decoder = COHERE.stream_decoder(REQUEST)
    with pytest.raises(UpstreamError) as caught:
        for each in all_events:
            decoder.feed(Event("", json.dumps(each).encode()))
    assert caught.value.status == 502


@pytest.mark.parametrize(
    "each",
    [
        {"type": "debug", "prompt": "x"},
        {"type": "something-new", "delta": 1},
        {"type": 1},
        {"type": "content-delta", "index": "x", "delta": 5},
        {"type": "content-delta", "delta": {"message": {"content": {"text": 1}}}},
        {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": 5}}},
        {"type": "tool-call-end", "index": 9},
        {"type": "citation-start", "delta": {"message": {"citations": 1}}},
        {"type": "message-start", "id": 1},
    ],
)
def test_events_that_say_nothing_are_passed_over(each: dict[str, Any]):
    """Unknown ones by name, odd ones without a crash."""
    decoder = COHERE.stream_decoder(REQUEST)
    assert decoder.feed(Event("", json.dumps(each).encode())) == []
    assert not decoder.finished


def test_the_end_is_the_marker():
    """After message-end nothing but usage can come; after `[DONE]` nothing."""
    decoder = COHERE.stream_decoder(REQUEST)
    decoder.feed(Event("message-end", json.dumps(ended()).encode()))
    assert (decoder.finished, decoder.done) == (True, False)
    assert decoder.feed(Event("", json.dumps(event("content-delta", 0, content={"text": "late"})).encode())) == []
    decoder.feed(Event("", b"[DONE]"))
    assert decoder.done
    assert decoder.feed(Event("", json.dumps(ended()).encode())) == []


# --- errors -----------------------------------------------------------------------------------------------------------

TOO_LONG = "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 4292."
TOO_MUCH = "too many tokens: max tokens must be less than or equal to 4096, the maximum output - received 8192."
MONTH = "You are using a Trial key, which is limited to 1000 API calls / month."
MINUTE = "You are using a Trial key, which is limited to 40 API calls / minute."
REMOVED = "model 'command-r' was removed on September 15, 2025. See https://docs.cohere.com/docs/models#command"


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (400, "invalid request: tools are wrong", (400, "invalid_request_error", "invalid_value", False)),
        (400, TOO_LONG, (400, "invalid_request_error", "context_length_exceeded", False)),
        (
            400,
            "too many tokens: size limit exceeded by 11326 tokens.",
            (400, "invalid_request_error", "context_length_exceeded", False),
        ),
        (400, TOO_MUCH, (400, "invalid_request_error", "invalid_value", False)),
        (401, "invalid api token", (401, "authentication_error", "invalid_api_key", False)),
        (402, "billing limit reached", (429, "insufficient_quota", "insufficient_quota", False)),
        (403, "no", (403, "permission_error", "permission_denied", False)),
        (404, REMOVED, (404, "invalid_request_error", "model_not_found", False)),
        (422, "invalid type", (400, "invalid_request_error", "invalid_value", False)),
        (429, MINUTE, (429, "rate_limit_error", "rate_limit_exceeded", True)),
        (429, MONTH, (429, "insufficient_quota", "insufficient_quota", False)),
        (498, "invalid token", (401, "authentication_error", "invalid_api_key", False)),
        (498, "the output was blocked", (400, "invalid_request_error", "content_filter", False)),
        (499, "request cancelled", (502, "server_error", "upstream_error", True)),
        (500, "internal server error", (502, "server_error", "upstream_error", True)),
        (501, "not implemented", (502, "server_error", "upstream_error", False)),
        (503, "overloaded", (503, "server_error", "upstream_unavailable", True)),
        (504, "timeout", (504, "server_error", "upstream_timeout", True)),
    ],
)
def test_errors_have_openais_status_type_and_code(status: int, message: str, expected: tuple[int, str, str, bool]):
    """The table: by status, by prose where one status says two things."""
    error = COHERE.parse_error(HTTPResponse(status, {}, json.dumps({"id": "x", "message": message}).encode()))
    assert (error.status, error.type, error.code, error.retryable) == expected
    assert error.upstream_status == status
    assert error.message == message


@pytest.mark.parametrize(
    ("status", "kind", "message", "expected"),
    [
        (400, "TOO_MANY_TOKENS", "size limit exceeded", (400, "context_length_exceeded", False)),
        (400, "TOO_MANY_TOKENS", TOO_MUCH, (400, "invalid_value", False)),
        (422, "INVALID_TOOL_GENERATION", "invalid tool generation", (400, "tool_use_failed", True)),
        (422, "HALLUCINATED_ALL_TOOL_CALLS", "no such tool", (400, "tool_use_failed", True)),
        (422, "NO_VALID_RESPONSE_GENERATED", "no valid response", (502, "upstream_error", True)),
        (422, "SOMETHING_NEW", "no", (400, "invalid_value", False)),
    ],
)
def test_the_type_of_an_error_says_what_its_words_do_not(
    status: int, kind: str, message: str, expected: tuple[int, str, bool]
):
    """A call that the model got wrong is worth another try, whole or at the end of a stream."""
    body = json.dumps({"error_type": kind, "id": "x", "message": message}).encode()
    error = COHERE.parse_error(HTTPResponse(status, {}, body))
    assert (error.status, error.code, error.retryable) == expected
    if status == 422 and error.retryable:
        with pytest.raises(UpstreamError) as caught:
            delta = {"finish_reason": "ERROR", "error": message, "error_type": kind}
            streamed({"type": "message-end", "delta": delta})
        assert (caught.value.status, caught.value.code, caught.value.retryable) == expected


def test_a_limit_of_output_names_its_field():
    """It is no overflow of the context: another model would not help."""
    error = COHERE.parse_error(HTTPResponse(400, {}, json.dumps({"message": TOO_MUCH}).encode()))
    assert error.param == "max_tokens"


@pytest.mark.parametrize(
    "body", [b"", b"<html>secret</html>", b'{"message": ', b"[]", b'{"id": "x"}', b'{"message": 5}']
)
def test_an_error_without_words_leaks_nothing(body: bytes):
    """HTML, nothing, half JSON: the status is all there is to say."""
    error = COHERE.parse_error(HTTPResponse(500, {"content-type": "text/html; charset=x"}, body))
    assert (error.status, error.code, error.upstream_status) == (502, "upstream_error", 500)
    assert "secret" not in error.message
    assert error.message


def test_limits_and_ids_have_openais_names_and_keys_are_hidden():
    """Trial keys tell their limits; a key that the vendor repeats does not get out."""
    headers = {
        "x-trial-endpoint-call-limit": "40",
        "x-trial-endpoint-call-remaining": "3",
        "x-debug-trace-id": "abc",
        "retry-after": "7",
        "set-cookie": "x",
    }
    message = f"invalid api token: {'aB3' * 13}x"
    error = COHERE.parse_error(HTTPResponse(429, headers, json.dumps({"message": message}).encode()))
    assert error.headers == {
        "x-ratelimit-limit-requests": "40",
        "x-ratelimit-remaining-requests": "3",
        "x-upstream-request-id": "abc",
        "retry-after": "7",
    }
    assert error.retry_after_s == 7
    assert "aB3" not in error.message


# --- embeddings and rankings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [name for name in recordings("json", "cohere") if "embedding" in name or "truncate" in name]
)
def test_recorded_embeddings_are_the_sdks(name: str):
    """The same vectors in the same order; metered by what is billed."""
    theirs = EmbedByTypeResponse.model_validate(load(name)["json"])
    ours: Any = COHERE.parse_embeddings(answer(name))
    assert ours["embeddings"] == theirs.embeddings.float_
    assert theirs.meta is not None
    assert theirs.meta.billed_units is not None
    assert ours["usage"].billed == Tokens(input=int(theirs.meta.billed_units.input_tokens or 0))
    shown = ours["usage"].shown
    assert shown["prompt_tokens"] == shown["total_tokens"] == theirs.meta.billed_units.input_tokens


@pytest.mark.parametrize("name", [name for name in recordings("json", "cohere") if "rerank" in name])
def test_a_recorded_ranking_is_the_sdks(name: str):
    """The most relevant first, with the units that are billed."""
    theirs = V2RerankResponse.model_validate(load(name)["json"])
    ours = COHERE.parse_rerank(answer(name))
    assert [(each["index"], each["relevance_score"]) for each in ours["results"]] == [
        (each.index, each.relevance_score) for each in theirs.results
    ]
    assert (ours["id"], ours["searches"]) == (theirs.id, 1)
    assert ours["usage"].shown["total_tokens"] == 0
    assert ours["usage"].billed == Tokens(searches=1)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"{}",
        b'{"message": "it broke"}',
        b'{"embeddings": {"float": [1]}, "results": [1]}',
        b'{"embeddings": {"float": [["a"]]}, "results": [{"index": "0", "relevance_score": 1}]}',
        b'{"embeddings": {"int8": [[1]]}, "results": {}}',
        b'{"embeddings": {"float": [[]]}, "results": [{"index": 0}]}',
    ],
)
def test_embeddings_and_rankings_that_are_none_are_upstream_errors(body: bytes):
    """As answers of chat are."""
    for parse in (COHERE.parse_embeddings, COHERE.parse_rerank):
        with pytest.raises(UpstreamError) as caught:
            parse(HTTPResponse(200, {}, body))
        assert caught.value.status == 502
