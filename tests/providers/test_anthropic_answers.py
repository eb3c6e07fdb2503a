"""Rules of Anthropic's answers: whole and streamed ones agree, and hold what the vendor's own SDK reads in them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import Message as SDKMessage

from proxy.providers.anthropic import Anthropic
from proxy.providers.base.contract import HTTPResponse
from proxy.schema.chat import ChatRequest, ChatResponse
from proxy.schema.errors import UpstreamError, UpstreamTruncated
from proxy.schema.fold import Fold
from proxy.schema.json import encode
from proxy.schema.records import Tokens
from proxy.schema.sse import Event, EventFraming
from proxy.server.formats.chat import decode_chat
from tests.providers.corpus import SCHEMA, tool, user
from tests.providers.recordings import FIXTURES
from tests.upstream import anthropic_wire
from tests.upstream.anthropic_wire import AnthropicWire
from tests.upstream.http1 import Request
from tests.upstream.wire import Said

ANTHROPIC = Anthropic()
ALL = {path.name: json.loads(path.read_text())["response"] for path in sorted((FIXTURES / "anthropic").glob("*.json"))}
WHOLE = [name for name, response in ALL.items() if "content" in response.get("json", {})]
STREAMED = [name for name, response in ALL.items() if "stream" in response or "events" in response]
COUNTS = {"input_tokens": 3, "output_tokens": 2}
FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}
JSON_TOOL = "json_tool_call"


def request(**fields: Any) -> ChatRequest:
    return decode_chat(encode({"model": "x", "messages": [user("hi")], "tools": [tool()], **fields}))


def parsed(body: Any, asked: ChatRequest | None = None, status: int = 200) -> ChatResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ANTHROPIC.parse_response(HTTPResponse(status, {"content-type": "application/json"}, data), asked)


def decoded(events: list[Any], asked: ChatRequest | None = None) -> ChatResponse:
    decoder, fold = ANTHROPIC.stream_decoder(asked or request()), Fold()
    for event in events:
        framed = event if isinstance(event, Event) else Event("", json.dumps(event).encode())
        for chunk in decoder.feed(framed):
            fold.add(chunk)
    decoder.close()
    assert decoder.finished
    return fold.response()


def message(*content: dict[str, Any], stop: str | None = "end_turn", **more: Any) -> dict[str, Any]:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m"}
    return {**head, "content": list(content), "stop_reason": stop, "stop_sequence": None, "usage": COUNTS, **more}


def words(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": text, **more}


def use(name: Any = "weather", arguments: Any = None, **more: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": "toolu_1", "name": name, "input": arguments or {}, **more}


def pieces(text: str) -> list[str]:
    return [text[at : at + 5] for at in range(0, len(text), 5)]


def restreamed(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The answer as the vendor would have streamed it: everything in pieces, its counts at the start and corrected."""
    start = {**body, "content": [], "stop_reason": None, "usage": {**body["usage"], "output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for index, block in enumerate(body["content"]):
        empty, deltas = dict(block), []
        if block["type"] == "text":
            empty |= {"text": "", **({"citations": []} if block.get("citations") else {})}
            deltas += [{"type": "citations_delta", "citation": each} for each in block.get("citations") or []]
            deltas += [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
        elif block["type"] == "thinking":
            empty |= {"thinking": "", "signature": ""}
            deltas += [{"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"])]
            deltas += [{"type": "signature_delta", "signature": block["signature"]}]
        elif block["type"].endswith("tool_use"):
            empty["input"] = {}
            given = encode(block["input"]).decode() if block["input"] else ""
            deltas += [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *pieces(given)]]
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    end = {name: body[name] for name in ("stop_reason", "stop_sequence", "stop_details", "container") if name in body}
    beside = {name: body[name] for name in ("context_management",) if name in body}
    events.append({"type": "message_delta", "delta": end, "usage": body["usage"], **beside})
    return [*events, {"type": "message_stop"}]


# --- the recordings ---------------------------------------------------------------------------------------------------


def test_the_recordings_are_there():
    """All of them: an empty folder would test nothing."""
    assert len(WHOLE) >= 130
    assert len(STREAMED) >= 20


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", WHOLE)
def test_a_recorded_answer_and_its_stream_are_the_same(name: str):
    """The fold law, over everything that was recorded."""
    body = ALL[name]["json"]
    assert decoded(restreamed(body)) == parsed(body)


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", WHOLE)
def test_the_vendors_sdk_reads_the_same_in_an_answer(name: str):
    """Text, thoughts, calls and counts."""
    body = ALL[name]["json"]
    theirs = SDKMessage.model_validate(_known(body))
    ours: Any = parsed(body)
    said = ours["choices"][0]["message"]
    blocks = list(theirs.content)
    assert (said["content"] or "") == "".join(block.text for block in blocks if block.type == "text")
    thoughts = [block.thinking for block in blocks if block.type == "thinking"]
    assert said.get("reasoning_content", "") == "\n\n".join(filter(None, thoughts))
    calls = [(block.id, block.name, block.input) for block in blocks if block.type == "tool_use"]
    assert calls == [
        (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in said.get("tool_calls", [])
    ]
    cached = (theirs.usage.cache_read_input_tokens or 0) + (theirs.usage.cache_creation_input_tokens or 0)
    assert ours["usage"].shown["prompt_tokens"] == theirs.usage.input_tokens + cached
    assert ours["usage"].shown["completion_tokens"] == theirs.usage.output_tokens


def _known(body: dict[str, Any]) -> dict[str, Any]:
    """What the SDK has types for: beta blocks are left out."""
    kinds = ("text", "thinking", "redacted_thinking", "tool_use")
    content = [
        {name: value for name, value in block.items() if name != "citations"}
        for block in body["content"]
        if block["type"] in kinds
    ]
    usage = {name: value for name, value in body["usage"].items() if name != "server_tool_use"}
    return {**body, "content": content, "usage": usage, "stop_sequence": body.get("stop_sequence"), "container": None}


@pytest.mark.parametrize("name", [name for name in STREAMED if len(json.dumps(ALL[name])) < 8000])
@pytest.mark.sampled(4)
def test_a_recorded_stream_may_be_cut_at_every_byte(name: str):
    """The same events, and so the same answer."""
    response = ALL[name]
    data = response["stream"].encode() if "stream" in response else _frames(response["events"])
    framing = EventFraming()
    expected = decoded(framing.feed(data) + framing.close())
    for cut in range(1, len(data), 7):
        framing = EventFraming()
        assert decoded([*framing.feed(data[:cut]), *framing.feed(data[cut:]), *framing.close()]) == expected


def _frames(events: list[dict[str, Any]]) -> bytes:
    return b"".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in events)


def test_counts_of_the_end_correct_those_of_the_start():
    """They are cumulative: nothing is added up."""
    for name, prompt, output in (
        ("pair_anthropic-message-delta-input-tokens.events.json", 61, 2),
        ("pair_duplicate-message-start.events.json", 17, 227),
    ):
        usage: Any = decoded(ALL[name]["events"])["usage"]
        assert (usage.shown["prompt_tokens"], usage.shown["completion_tokens"]) == (prompt, output)


# --- what is said -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stop", "content", "reason"),
    [
        ("end_turn", [words("a")], "stop"),
        ("stop_sequence", [words("a")], "stop"),
        ("pause_turn", [words("a")], "stop"),
        ("max_tokens", [words("a")], "length"),
        ("model_context_window_exceeded", [words("a")], "length"),
        ("compaction", [words("a")], "length"),
        ("tool_use", [use()], "tool_calls"),
        ("end_turn", [use()], "tool_calls"),
        ("max_tokens", [use()], "length"),
        ("refusal", [], "content_filter"),
        ("something_new", [words("a")], "stop"),
    ],
)
def test_the_reason_to_stop_is_one_of_openais_words(stop: str, content: list[Any], reason: str):
    """The vendor's own stands beside it."""
    body = message(*content, stop=stop)
    for answer in (parsed(body), decoded(restreamed(body))):
        choice: Any = answer["choices"][0]
        assert (choice["finish_reason"], choice["native_finish_reason"]) == (reason, stop)


def test_an_answer_without_words_is_empty_text_unless_it_calls_or_refuses():
    """Refusals say why."""
    details = {"type": "refusal", "category": "bio", "explanation": "Blocked."}
    for content, more, expected in (
        ([], {}, ("", None)),
        ([use()], {"stop": "tool_use"}, (None, None)),
        ([], {"stop": "refusal", "stop_details": details}, (None, "Blocked.")),
        ([], {"stop": "refusal", "stop_details": {"type": "refusal", "explanation": None}}, ("", None)),
    ):
        body = message(*content, **more)
        for answer in (parsed(body), decoded(restreamed(body))):
            said: Any = answer["choices"][0]["message"]
            assert (said["content"], said["refusal"]) == expected
    refused: Any = parsed(message(stop="refusal", stop_details=details))
    assert refused["choices"][0]["stop_details"] == details
    stopped: Any = parsed(message(words("a"), stop="stop_sequence", stop_sequence="END"))
    assert stopped["choices"][0]["stop_sequence"] == "END"


def test_thoughts_are_told_and_kept_as_they_are():
    """One after the other, signed or redacted; without a signature nobody takes them back."""
    first = {"type": "thinking", "thinking": "One.", "signature": "a"}
    silent = {"type": "thinking", "thinking": "", "signature": "b"}
    redacted = {"type": "redacted_thinking", "data": "c"}
    unsigned = {"type": "thinking", "thinking": "Two.", "signature": ""}
    body = message(first, silent, redacted, unsigned, words("So."), use(), stop="tool_use")
    for answer in (parsed(body), decoded(restreamed(body))):
        said: Any = answer["choices"][0]["message"]
        assert said["reasoning_content"] == "One.\n\nTwo."
        assert said["thinking_blocks"] == [first, silent, redacted]
        assert ANTHROPIC.reasoning_state(said) == {"toolu_1": {"thinking_blocks": [first, silent, redacted]}}


def test_a_call_without_arguments_has_an_empty_object():
    """No piece arrives for it; what stood at its start counts else."""
    for given, expected in (({}, "{}"), ({"a": 1}, '{"a":1}')):
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": message()},
            {"type": "content_block_start", "index": 0, "content_block": use(arguments=given)},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": ""}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": COUNTS},
        ]
        for said in (events, [each for each in events if each["type"] != "content_block_stop"]):
            [call] = decoded(said)["choices"][0]["message"]["tool_calls"]
            assert call["function"]["arguments"] == expected


def test_calls_are_counted_by_themselves_whatever_stands_between_them():
    """Not by block; what the vendor's own tools did is not told."""
    server = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}}
    found = {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}
    body = message(words("a"), server, found, use(id="1"), words("b"), use("time", {"x": 2}, id="2"), stop="tool_use")
    decoder = ANTHROPIC.stream_decoder(request())
    chunks: Any = [each for event in restreamed(body) for each in decoder.feed(Event("", json.dumps(event).encode()))]
    indexes = [
        call["index"]
        for chunk in chunks
        for choice in chunk["choices"]
        for call in choice["delta"].get("tool_calls", [])
        if "id" in call
    ]
    assert indexes == [0, 1]
    assert decoded(restreamed(body)) == parsed(body)
    assert [call["id"] for call in parsed(body)["choices"][0]["message"]["tool_calls"]] == ["1", "2"]


def test_names_come_back_as_the_client_knows_them():
    """Whole and streamed, by the same request."""
    asked = request(tools=[tool("a.b"), tool("n" * 130)])
    sent = [each["name"] for each in json.loads(ANTHROPIC.build_request(asked, "m").http.body)["tools"]]
    body = message(*[use(name, id=str(place)) for place, name in enumerate(sent)], stop="tool_use")
    for answer in (parsed(body, asked), decoded(restreamed(body), asked)):
        calls = answer["choices"][0]["message"]["tool_calls"]
        assert [call["function"]["name"] for call in calls] == ["a.b", "n" * 130]


def test_what_a_text_rests_on_is_annotated():
    """With a link as OpenAI does it, by place in the whole content; else as the vendor says it."""
    found = {"type": "web_search_result_location", "url": "https://a.example/", "title": "A", "cited_text": "x"}
    page = {"type": "page_location", "document_index": 0, "start_page_number": 1, "cited_text": "y"}
    source = {"type": "search_result_location", "source": "https://b.example/", "title": None, "cited_text": "z"}
    body = message(words("So: "), words("it rains", citations=[found, page, source]), words("."))
    for answer in (parsed(body), decoded(restreamed(body))):
        said: Any = answer["choices"][0]["message"]
        where = {"start_index": 4, "end_index": 12}
        assert said["annotations"] == [
            {"type": "url_citation", "url_citation": {**where, "title": "A", "url": "https://a.example/"}},
            {"type": "url_citation", "url_citation": {**where, "title": "", "url": "https://b.example/"}},
        ]
        assert said["citations"] == [page]


def test_json_by_tool_is_the_content():
    """Whatever the model wrapped it in; with other calls beside it, those are for the client."""
    asked = request(response_format=FORMAT, tools=None)
    person = {"name": "Ada", "age": 36}
    for given in (person, {"values": person}, {"parameters": person}):
        body = message(use(JSON_TOOL, given), stop="tool_use")
        for answer in (parsed(body, asked), decoded(restreamed(body), asked)):
            choice: Any = answer["choices"][0]
            assert json.loads(choice["message"]["content"]) == person
            assert choice["finish_reason"] == "stop"
            assert "tool_calls" not in choice["message"]
    both = message(use(JSON_TOOL, person), use(id="2"), stop="tool_use")
    choice = parsed(both, asked)["choices"][0]
    assert (choice["finish_reason"], len(choice["message"]["tool_calls"])) == ("tool_calls", 1)
    own = request(response_format={"type": "json_schema", "json_schema": {"schema": {"properties": {"values": {}}}}})
    kept = parsed(message(use(JSON_TOOL, {"values": {}}), stop="tool_use"), own)
    assert kept["choices"][0]["message"]["content"] == '{"values":{}}'
    named = request(tools=[tool(JSON_TOOL)])  # a tool of the client's that is called so
    assert parsed(message(use(JSON_TOOL), stop="tool_use"), named)["choices"][0]["finish_reason"] == "tool_calls"


def test_what_stands_beside_the_answer_stays():
    """The tier in OpenAI's words, the container of code."""
    container = {"id": "container_1", "expires_at": "2026-11-22T10:00:00Z"}
    body = message(words("a"), container=container, usage={**COUNTS, "service_tier": "standard"})
    for answer in (parsed(body), decoded(restreamed(body))):
        whole: Any = answer
        assert (whole["id"], whole["service_tier"], whole["container"]) == ("msg_1", "default", container)


# --- usage ------------------------------------------------------------------------------------------------------------


def test_usage_holds_what_was_cached_thought_and_searched():
    """The vendor's input excludes the cache, OpenAI's includes it."""
    raw = {
        "input_tokens": 10,
        "cache_creation_input_tokens": 30,
        "cache_read_input_tokens": 50,
        "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 10},
        "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 4},
        "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 0},
    }
    body = message(words("a"), usage=raw)
    for answer in (parsed(body), decoded(restreamed(body))):
        usage = answer["usage"]
        assert usage.shown == {
            "prompt_tokens": 90,
            "completion_tokens": 9,
            "total_tokens": 99,
            "prompt_tokens_details": {"cached_tokens": 50, "cache_write_tokens": 30},
            "completion_tokens_details": {"reasoning_tokens": 4},
        }
        tokens = usage.billed
        assert tokens == Tokens(
            input=10, cache_read=50, cache_write=30, output=9, reasoning=4, cache_write_1h=10, searches=2
        )
        assert tokens.total == 99


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        {},
        {"input_tokens": 0, "output_tokens": None},
    ],
)
def test_usage_that_is_none_is_not_made_up(raw: Any):
    """The proxy estimates, and says so."""
    assert "usage" not in parsed(message(words("a"), usage=raw))


def test_odd_counts_beside_the_two_count_as_none():
    """Null, negative, words."""
    odd = {"cache_read_input_tokens": None, "cache_creation": 3, "server_tool_use": {"web_search_requests": "two"}}
    usage = parsed(message(words("a"), usage={**COUNTS, **odd, "output_tokens_details": []}))["usage"]
    assert usage.billed == Tokens(input=3, output=2)


def test_a_stream_tells_its_prompt_from_the_start():
    """A client that goes away is charged what is known of its call."""
    decoder = ANTHROPIC.stream_decoder(request())
    start = {"type": "message_start", "message": message(usage={**COUNTS, "cache_read_input_tokens": 7})}
    chunk: Any = decoder.feed(Event("", json.dumps(start).encode()))[0]
    assert chunk["usage"].shown["prompt_tokens"] == 10


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'"x"',
        {},
        {"content": None, "stop_reason": "end_turn"},
        {"content": 5, "stop_reason": "end_turn"},
        message(use(name=None), stop="tool_use"),
        message(use(name=""), stop="tool_use"),
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        {"type": "error"},
        {"error": {"message": "x"}},
    ],
)
def test_what_is_no_answer_is_the_providers_fault(body: Any):
    """A 5xx with its status; nothing crashes."""
    with pytest.raises(UpstreamError) as caught:
        parsed(body)
    assert caught.value.status >= 502
    assert caught.value.upstream_status in (200, 502, 529)


@pytest.mark.parametrize("stop", [None, "", 7, [], {}])
def test_an_answer_of_nothing_without_a_reason_to_stop_is_truncated(stop: Any):
    """Whole and streamed; so is a stream that broke off before its end."""
    with pytest.raises(UpstreamTruncated):
        parsed(message(stop=stop))
    with pytest.raises(UpstreamTruncated):
        decoded(restreamed(message(stop=stop)))
    with pytest.raises(UpstreamTruncated):
        decoded(restreamed(message(words("a"), stop=stop))[:-1])


def test_odd_blocks_are_skipped():
    """Blocks of types that nobody knows, and what is no block."""
    odd: Any = [None, 1, "x", [], {}, {"type": 7}, {"type": "text"}, {"type": "text", "text": 3}, {"type": "thinking"}]
    body = message(*odd, words("a"), {"type": "hologram", "data": {}}, {"type": "text", "citations": [1, {}]})
    assert parsed(body)["choices"][0]["message"]["content"] == "a"
    broken = message(use(arguments=[1]), use(id=7), stop="tool_use")
    calls = parsed(broken)["choices"][0]["message"]["tool_calls"]
    assert [(call["id"], call["function"]["arguments"]) for call in calls] == [
        ("toolu_1", "[1]"),
        ("7", "{}"),
    ]


def test_odd_events_are_skipped():
    """Pings, new types, empty ones, a second start in the middle, what comes after the end."""
    events: list[Any] = restreamed(message(words("Hello.")))
    again = {"type": "message_start", "message": message(usage={"input_tokens": 99, "output_tokens": 99})}
    odd = [{"type": "ping"}, {"type": "news", "index": []}, Event("", b""), Event("x", b"{}"), again]
    late = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "more"}}
    answer = decoded([*events[:3], *odd, *events[3:], late, Event("", b"nonsense")])
    assert answer == parsed(message(words("Hello.")))
    unknown = {"type": "content_block_delta", "index": 0, "delta": {"type": "hologram_delta"}}
    assert decoded([*events[:4], unknown, *events[4:]]) == answer
    unended = [*events[:-1], late, Event("", b"[DONE]")]
    assert decoded(unended) == answer


def test_a_piece_of_a_block_that_never_began_is_an_error():
    """As is an event that is no JSON."""
    delta = {"type": "content_block_delta", "index": 3, "delta": {"type": "text_delta", "text": "a"}}
    for event in (delta, {**delta, "index": [3]}, Event("", b"{"), Event("", b"[1]")):
        with pytest.raises(UpstreamError):
            decoded([{"type": "message_start", "message": message()}, event])


def test_a_stream_that_breaks_off_is_truncated():
    """At every event before its end."""
    events = restreamed(message(words("Hello."), use(), stop="tool_use"))
    for end in range(len(events) - 2):
        with pytest.raises(UpstreamTruncated):
            decoded(events[:end])
    assert decoded(events[:-1]) == decoded(events)


@pytest.mark.parametrize(
    ("kind", "upstream_status", "status", "code", "retryable"),
    [
        ("invalid_request_error", 400, 400, "invalid_value", False),
        ("authentication_error", 401, 401, "invalid_api_key", False),
        ("billing_error", 402, 429, "insufficient_quota", False),
        ("permission_error", 403, 403, "permission_denied", False),
        ("not_found_error", 404, 404, "model_not_found", False),
        ("conflict_error", 409, 409, "conflict", True),
        ("request_too_large", 413, 413, "request_too_large", False),
        ("rate_limit_error", 429, 429, "rate_limit_exceeded", True),
        ("api_error", 500, 502, "upstream_error", True),
        ("timeout_error", 504, 504, "upstream_timeout", True),
        ("overloaded_error", 529, 503, "overloaded", True),
    ],
)
def test_errors_are_told_apart_by_their_type(kind: str, upstream_status: int, status: int, code: str, retryable: bool):
    """As answers, and in the middle of a stream, where only the type is said."""
    body = {"type": "error", "error": {"type": kind, "message": "No."}, "request_id": "req_1"}
    response = HTTPResponse(upstream_status, {"request-id": "req_1"}, json.dumps(body).encode())
    error = ANTHROPIC.parse_error(response)
    assert error.headers["x-upstream-request-id"] == "req_1"
    with pytest.raises(UpstreamError) as caught:
        decoded([{"type": "message_start", "message": message()}, body])
    for found in (error, caught.value):
        assert (found.status, found.code, found.retryable) == (status, code, retryable)
        assert (found.upstream_status, found.message) == (upstream_status, "No.")
    bare = ANTHROPIC.parse_error(HTTPResponse(upstream_status, {"content-type": "text/html"}, b"<html>secret</html>"))
    assert (bare.status, bare.code) == (status, code)
    assert "secret" not in bare.message


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        ("prompt is too long: 207791 tokens > 200000 maximum", 400, "context_length_exceeded"),
        (
            "input length and `max_tokens` exceed context limit: 182831 + 64000 > 200000, decrease input length",
            400,
            "context_length_exceeded",
        ),
        ("Your credit balance is too low to access the Anthropic API.", 429, "insufficient_quota"),
        ("messages: at least one message is required", 400, "invalid_value"),
    ],
)
def test_a_400_is_told_apart_by_its_words(said: str, status: int, code: str):
    """The vendor has one type for all of them."""
    body = {"type": "error", "error": {"type": "invalid_request_error", "message": said}}
    error = ANTHROPIC.parse_error(HTTPResponse(400, {}, json.dumps(body).encode()))
    assert (error.status, error.code, error.retryable, error.upstream_status) == (status, code, False, 400)


def test_the_vendors_wish_to_be_asked_again_counts():
    """But never where the money is gone."""
    for status, wish, retryable in ((500, "false", False), (400, "true", True), (402, "true", False)):
        assert ANTHROPIC.parse_error(HTTPResponse(status, {"x-should-retry": wish}, b"{}")).retryable is retryable


def test_limits_are_told_under_openais_names():
    """A reset is how long it takes from the answer's own date: no clock is read. Without a date it is left out."""
    headers = {
        "retry-after": "7",
        "date": "Tue, 29 Jul 2025 09:53:33 GMT",
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2025-07-29T09:59:33Z",
        "anthropic-ratelimit-tokens-remaining": "10",
        "anthropic-ratelimit-tokens-reset": "2025-07-29T11:53:34+00:00",
        "anthropic-ratelimit-input-tokens-limit": "1",
        "anthropic-organization-id": "org-secret",
    }
    error = ANTHROPIC.parse_error(HTTPResponse(429, headers, b"{}"))
    assert error.retry_after_s == 7
    assert error.headers == {
        "retry-after": "7",
        "x-ratelimit-limit-requests": "50",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "6m0s",
        "x-ratelimit-remaining-tokens": "10",
        "x-ratelimit-reset-tokens": "2h0m1s",
    }
    for odd in (
        {**headers, "date": ""},
        {**headers, "date": "x"},
        {**headers, "anthropic-ratelimit-requests-reset": "x"},
    ):
        assert "x-ratelimit-reset-requests" not in ANTHROPIC.parse_error(HTTPResponse(429, odd, b"{}")).headers
    soon = {"date": headers["date"], "anthropic-ratelimit-tokens-reset": "2025-07-29T09:53:34"}
    assert ANTHROPIC.parse_error(HTTPResponse(429, soon, b"{}")).headers["x-ratelimit-reset-tokens"] == "1s"


def test_no_key_leaves_with_an_error():
    """Vendors quote what they were sent."""
    body = {"type": "error", "error": {"type": "authentication_error", "message": "invalid sk-ant-api03-abcdef"}}
    assert "abcdef" not in ANTHROPIC.parse_error(HTTPResponse(401, {}, json.dumps(body).encode())).message


# --- there and back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        Said(tokens=["a", " b"], finish="stop"),
        Said(tokens=["a"], reasoning=["x ", "y"], finish="length"),
        Said(reasoning=["x"], calls=[("weather", '{"city":"Köln 漢"}'), ("weather", "{}")], finish="tool_calls"),
        Said(tokens=["No."], refusal=True, finish="content_filter"),
    ],
)
def test_an_answer_comes_back_and_can_be_sent_back(said: Said):
    """Written by another hand in both forms: they are the same, and the vendor takes the next turn."""
    ids = ["msg_1", *(f"toolu_{place}" for place in range(len(said.calls)))]
    body = anthropic_wire.whole(said, ids, said.finish) | {"usage": COUNTS}
    framing = EventFraming()
    events = [
        event for frame in anthropic_wire.stream(said, ids, said.finish, COUNTS) for event in framing.feed(frame.data)
    ]
    answer = parsed(body)
    assert decoded(events) == answer
    message: Any = answer["choices"][0]["message"]
    results = [{"role": "tool", "tool_call_id": each, "content": "done"} for each in ids[1:]]
    history = [user("hi"), message, *results, user("And?")]
    http = ANTHROPIC.build_request(request(messages=history), "claude-opus-5").http
    AnthropicWire().ask(Request("POST", http.path, {}, http.headers, http.body), 1)
    blocks = json.loads(http.body)["messages"][1]["content"]
    assert [block["input"] for block in blocks if block["type"] == "tool_use"] == [
        json.loads(arguments) for _, arguments in said.calls
    ]
