"""The tolerant reader: odd frames and odd values of upstream answers, at every dialect: read, or an honest error."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Struct

from proxy.providers import PROVIDERS
from proxy.providers.base.contract import Provider
from proxy.providers.base.reading import parse
from proxy.providers.openai import OpenAI
from proxy.providers.vllm import VLLM
from proxy.schema.errors import UpstreamError, UpstreamTruncated
from proxy.schema.json import encode
from proxy.schema.sse import Event
from tests.providers.asking import answered, event, folded, request
from tests.providers.test_streams_property import WRITERS, decoded, framed
from tests.upstream.wire import Said

TOOLS = [{"type": "function", "function": {"name": "tool_0"}}]
SAID = Said(tokens=["hel", "lo"], reasoning=["hm"], calls=[("tool_0", "{}")], finish="tool_calls")
VLLM_SERVER = VLLM()


def chunk(finish: str | None = None, **delta: Any) -> Event:
    return event({"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def message(content: Any, provider: Provider = VLLM_SERVER, **choice: Any) -> Any:
    whole = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop", **choice}
    body = {"id": "c", "object": "chat.completion", "model": "m", "choices": [whole]}
    return provider.parse_response(answered(200, body))["choices"][0]


@pytest.mark.parametrize("padding", [b"null", b"[]", b'"ping"', b"ping", b"0", b"[null]", b"true"])
@pytest.mark.parametrize("kind", WRITERS)
def test_frames_that_are_no_objects_are_padding(kind: str, padding: bytes):
    """First, last and between all others: the answer goes on after them."""
    events = framed(WRITERS[kind](SAID, []), [])
    padded = [Event("", padding), *(each for one in events for each in (one, Event("", padding)))]
    assert decoded(kind, padded)[0] == decoded(kind, events)[0]


@pytest.mark.parametrize("kind", ["openai", "vllm", "google"])
def test_an_error_in_a_list_or_as_text_is_no_padding(kind: str):
    """With the server's own words."""
    said = json.dumps([{"error": {"message": "too busy", "code": 503}}]).encode()
    for each in (Event("", said), Event("error", b"too busy")):
        with pytest.raises(UpstreamError, match="too busy"):
            decoded(kind, [each])


@pytest.mark.parametrize(
    ("content", "expected"),
    [({"name": "Ann", "age": 3}, '{"name":"Ann","age":3}'), (42, "42"), ("x", "x"), (None, ""), (0.5, "0.5")],
)
def test_content_that_is_no_text_becomes_its_json(content: Any, expected: str):
    """Whole and streamed."""
    assert message(content)["message"]["content"] == expected
    streamed = folded(OpenAI(base_url="https://a.example/v1"), [chunk(content=content), chunk("stop")])
    assert streamed["choices"][0]["message"]["content"] == expected


def test_the_providers_are_all_there():
    """Each dialect has a writer here."""
    assert {kind.partition(",")[0] for kind in WRITERS} == set(PROVIDERS)


# --- frames that no blank line separates, or no field names -----------------------------------------------------------


def wire(events: list[Event]) -> bytes:
    return b"".join(b"data: " + each.data + b"\n\n" for each in events)


def said_by(data: bytes) -> list[Event]:
    """The events, which are the same wherever the bytes are cut."""
    whole = framed(data, [])
    assert framed(data, list(range(1, len(data)))) == whole
    return [each for each in whole if each.data]


A, B = b'{"a": "x: y"}', b'{"b": [1]}'


@pytest.mark.parametrize(
    "data",
    [
        b"data: " + A + b"\n\ndata: " + B + b"\n\n",
        b"data: " + A + b"\ndata: " + B + b"\n\n",
        b"data: " + A + b"\n" + B + b"\n\n",
        b"data:\n " + A + b"\n\ndata: " + B + b"\n\n",
        A + b"\n" + B + b"\n",
        A + b"\r\n" + B,
        b": hi\n" + A + b"\n\n\n" + B + b"\n\n",
    ],
)
def test_every_whole_object_is_an_event(data: bytes):
    """Two objects without a blank line between, JSON lines without a field, an object on the line after `data:`."""
    assert said_by(data) == [Event("", A), Event("", B)]


def test_an_object_over_several_lines_is_one_event():
    """As the standard says of `data:` lines; without a field name too, and the start of one is not lost."""
    assert said_by(b'data: {"a":\ndata: 1}\n\n') == [Event("", b'{"a":\n1}')]
    assert said_by(b"data: {}\ndata: x\n\n") == [Event("", b"{}\nx")]
    assert said_by(b'{\n "error": {"message": "m"}\n}\n\n') == [Event("", b'{\n "error": {"message": "m"}\n}')]
    assert said_by(b'{"choices": [') == [Event("", b'{"choices": [')]


def test_lines_keep_their_names_and_the_end_marker_is_an_event():
    """Also where a value in them is no strict JSON."""
    odd = b'{"a": NaN, "b": "\\ud83d"}'
    data = b"event: a\ndata: " + A + b"\nevent: error\ndata: " + odd + b"\ndata: " + B + b"\ndata: [DONE]\n\n"
    assert said_by(data) == [Event("a", A), Event("error", odd), Event("error", B), Event("error", b"[DONE]")]
    assert said_by(odd + b"\n" + B) == [Event("", odd), Event("", B)]


@pytest.mark.parametrize("data", [b"%b\n\n", b"data: {}\ndata: %b\n\n", b"\n%b\n%b\n"])
def test_lines_that_are_nested_too_deeply_are_an_error(data: bytes):
    """Of ours."""
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    with pytest.raises(UpstreamError, match="nested too deeply"):
        framed(data.replace(b"%b", deep), [])


@pytest.mark.parametrize("text", ['{"error":{"message":"failed to decode"}}', "failed to decode"])
def test_an_error_field_is_an_error(text: str):
    """With the server's own message, after what it had said; llama.cpp writes such lines."""
    events = framed(
        b'data: {"choices":[{"index":0,"delta":{"content":"Its"}}]}\n\nerror: ' + text.encode() + b"\n\n", []
    )
    decoder = VLLM_SERVER.stream_decoder(request(stream=True))
    assert decoder.feed(events[0])
    with pytest.raises(UpstreamError, match="failed to decode"):
        decoder.feed(events[1])


# --- texts and numbers that a strict parser refuses -------------------------------------------------------------------


def streamed_text(*pieces: bytes) -> str:
    """The text of a stream whose pieces are JSON strings."""
    events = [Event("", b'{"choices":[{"index":0,"delta":{"content":%b}}]}' % piece) for piece in pieces]
    return str(
        folded(OpenAI(base_url="https://a.example/v1"), [*events, chunk("stop")])["choices"][0]["message"]["content"]
    )


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ((b'"a\\ud83d"', b'"\\ude00b"'), "a\U0001f600b"),
        ((b'"a\\ud83d"', b'"b"'), "a\ufffdb"),
        ((b'"a\\ud83d"',), "a\ufffd"),
        ((b'"a"', b'"\\ude00b"', b'"c"'), "a\ufffdbc"),
        ((b'"\\ud83d\\ude00"', b'"\\\\ud83d"'), "\U0001f600\\ud83d"),
        ((b'"a\xffb"',), "a\ufffdb"),
    ],
)
def test_halves_that_meet_are_joined_and_lone_ones_replaced(pieces: tuple[bytes, ...], expected: str):
    """Two chunks may share a character."""
    assert streamed_text(*pieces) == expected


@pytest.mark.parametrize("kind", [kind for kind in PROVIDERS if kind not in ("perplexity", "embedded")])
def test_an_odd_text_is_not_lost_at_any_dialect(kind: str):
    """Anywhere in a whole answer; what is repaired can be written again."""
    shapes: dict[str, dict[str, Any]] = {
        "anthropic": {
            "content": [{"type": "text", "text": "HERE"}],
            "stop_reason": "end_turn",
            "id": "x",
            "model": "m",
        },
        "google": {"candidates": [{"content": {"parts": [{"text": "HERE"}]}, "finishReason": "STOP"}]},
        "cohere": {"message": {"content": [{"type": "text", "text": "HERE"}]}, "finish_reason": "COMPLETE", "id": "x"},
    }
    usual = {"choices": [{"index": 0, "message": {"content": "HERE"}, "finish_reason": "stop"}], "id": "x"}
    whole = shapes.get(kind, usual)
    for odd, said in ((rb"a\udcafb", "a\ufffdb"), (b"a\nb", "a\nb"), (rb"\ud83d\ude00", "\U0001f600")):
        body = json.dumps({**whole, "unread": "NUMBER"}).encode().replace(b"HERE", odd)
        for number in (b"NaN", b"-Infinity", b"1e400", b"5"):
            answer = PROVIDERS[kind]().parse_response(answered(200, body.replace(b'"NUMBER"', number)))
            assert answer["choices"][0]["message"]["content"] == said
            encode(answer["choices"])


def test_what_is_no_json_in_any_reading_is_an_error():
    """A broken one, and one that broke off."""
    for body in (b'{"choices": [}', b'{"choices": [', b"<html>", b"'x'"):
        with pytest.raises(UpstreamError):
            VLLM_SERVER.parse_response(answered(200, body))


LINES = (
    b'{"choices":[{"index":0,"delta":{"content":"a"}}]}\n{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n'
)


@pytest.mark.parametrize("start", [b"", b"\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"", b"data: [DONE]\n\n", b'{"error": {"message": "late"}}\n'])
def test_lines_of_json_are_read_for_a_whole_request_too(start: bytes, end: bytes):
    """What follows the finish is no error."""
    answer: Any = parse(VLLM_SERVER, request(), answered(200, start + LINES + end))
    assert answer["choices"][0]["message"]["content"] == "a"


@pytest.mark.slow
def test_a_large_body_that_cannot_be_read_is_told_as_such():
    """It is no event."""
    for body in (b"x" * 9_000_000, b'{"a": [\n' + b"1\n" * 4_500_000):
        with pytest.raises(UpstreamError, match=r"not a JSON object|broke off"):
            parse(VLLM_SERVER, request(), answered(200, body))


@pytest.mark.parametrize("error", [None, {}, "", {"message": "", "code": None}])
@pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind != "embedded"])
def test_an_error_that_says_nothing_is_none(kind: str, error: Any):
    """Some gateways add it to every event."""
    events = framed(WRITERS[kind](SAID, []), [])
    beside = [
        Event(each.name, each.data[:-1] + b',"error":' + json.dumps(error).encode() + b"}")
        if each.data.endswith(b"}")
        else each
        for each in events
    ]
    provider = PROVIDERS[kind.partition(",")[0]]()
    answer = folded(provider, beside, tools=TOOLS)
    assert answer == folded(provider, events, tools=TOOLS)
    assert "error" not in answer


def test_a_call_without_a_name_is_an_error_at_the_end_marker():
    """Not an answer without it."""
    call = {"index": 0, "id": "c", "function": {"arguments": "{}"}}
    with pytest.raises(UpstreamError, match="without a function name"):
        parse(VLLM_SERVER, request(), answered(200, wire([chunk(tool_calls=[call]), Event("", b"[DONE]")])))


@pytest.mark.parametrize("index", [10**30, -1, 5000, True, "x", None])
def test_an_index_that_cannot_be_true_is_the_place(index: Any):
    """Whole and streamed."""
    odd = event({"choices": [{"index": index, "delta": {"content": "x"}, "finish_reason": "stop"}]})
    assert folded(VLLM_SERVER, [odd])["choices"][0]["index"] == message("x", index=index)["index"] == 0


@pytest.mark.parametrize("created", [b"NaN", b"1e400", b"-Infinity", b"1.5"])
def test_a_time_that_is_none_is_left_out(created: bytes):
    """Of answers of the Responses API."""
    events = framed(WRITERS["openai, responses"](SAID, []), [])
    odd = [Event(each.name, each.data.replace(b'"created_at": 1', b'"created_at": ' + created)) for each in events]
    chunks, _ = decoded("openai, responses", odd)
    assert {each.get("created") for each in chunks} <= {None, 1}


def test_halves_of_characters_beside_the_text_are_replaced():
    """In values that become texts, in usage, and in the words of an error."""
    for odd in (
        b'{"content":{"a":"\\ud83d"}}',
        b'{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":{"a":"\\ud83d"}}}]}',
        b'{"function_call":{"name":"f","arguments":{"a":"\\ud83d"}}}',
    ):
        piece = Event("", b'{"choices":[{"index":0,"delta":%b,"finish_reason":"stop"}]}' % odd)
        said = encode(folded(VLLM_SERVER, [piece])["choices"][0]["message"])
        assert '{\\"a\\":\\"\ufffd\\"}' in said.decode()
    usage = b'{"choices":[],"usage":{"prompt_tokens":"\\ud83d","completion_tokens":1}}'
    folded(VLLM_SERVER, [chunk(content="x"), chunk("stop"), Event("", usage)])
    with pytest.raises(UpstreamError) as raised:
        folded(VLLM_SERVER, [Event("", b'{"error":{"message":"a\\ud83d","code":"\\ud83d"}}')])
    encode(raised.value.body())


# --- complete answers without a usable finish -------------------------------------------------------------------------

CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
UNUSABLE: list[Any] = [None, "", "null", "None", 5, {}]


@pytest.mark.parametrize("finish", UNUSABLE)
@pytest.mark.parametrize(
    ("written", "limit", "calls", "expected"),
    [
        (20, None, [], "stop"),
        (20, 30, [], "stop"),
        (30, 30, [], "length"),
        (31, 30, [], "length"),
        (30, 30, [CALL], "tool_calls"),
    ],
)
def test_a_complete_answer_without_finish_gets_one_from_its_content(
    finish: Any, written: int, limit: int | None, calls: list[Any], expected: str
):
    """The same for a body and for a stream with its end marker. That it is ours stands beside it."""
    usage = {"prompt_tokens": 10, "completion_tokens": written, "total_tokens": 10 + written}
    fields: dict[str, Any] = {} if limit is None else {"max_tokens": limit}
    said: dict[str, Any] = {"role": "assistant", "content": "x", **({"tool_calls": calls} if calls else {})}
    body = {
        "id": "c",
        "model": "m",
        "choices": [{"index": 0, "message": said, "finish_reason": finish}],
        "usage": usage,
    }
    whole = VLLM_SERVER.parse_response(answered(200, body), request(**fields))["choices"][0]
    events = [chunk(**said), event({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}], "usage": usage})]
    streamed = folded(VLLM_SERVER, [*events, Event("", b"[DONE]")], **fields)["choices"][0]
    for choice in (whole, streamed):
        assert (choice["finish_reason"], dict(choice)["native_finish_reason"]) == (expected, None)
    with pytest.raises(UpstreamError):
        folded(VLLM_SERVER, events, **fields)


# --- the same in the other dialects -----------------------------------------------------------------------------------


class Dialect(Struct):
    """Of one vendor: the whole answer, and the events of its stream. The last one is the end marker."""

    provider: Provider
    whole: Callable[[Any, int, bool], dict[str, Any]]
    stream: Callable[[Any, int, bool], list[dict[str, Any]]]


def anthropic_whole(finish: Any, written: int, has_call: bool) -> dict[str, Any]:
    blocks: list[Any] = [{"type": "text", "text": "x"}]
    blocks += [{"type": "tool_use", "id": "c", "name": "f", "input": {}}] if has_call else []
    usage = {"input_tokens": 10, "output_tokens": written}
    return {"id": "m", "model": "m", "content": blocks, "stop_reason": finish, "usage": usage}


def anthropic_stream(finish: Any, written: int, has_call: bool) -> list[dict[str, Any]]:
    whole = anthropic_whole(finish, written, has_call)
    events: list[dict[str, Any]] = [{"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}}]
    events += [
        {"type": "content_block_start", "index": index, "content_block": block}
        for index, block in enumerate(whole["content"])
    ]
    delta = {"type": "message_delta", "delta": {"stop_reason": finish}, "usage": {"output_tokens": written}}
    return [*events, delta, {"type": "message_stop"}]


def cohere_whole(finish: Any, written: int, has_call: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"content": [{"type": "text", "text": "x"}], **({"tool_calls": [CALL]} if has_call else {})}
    return {"id": "m", "message": said, "finish_reason": finish, "usage": {"tokens": {"output_tokens": written}}}


def cohere_stream(finish: Any, written: int, has_call: bool) -> list[dict[str, Any]]:
    usage = {"tokens": {"output_tokens": written}}
    start = {"delta": {"message": {"tool_calls": CALL}}}
    return [
        {"type": "message-start", "id": "m"},
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "x"}}}},
        *([{"type": "tool-call-start", "index": 0, **start}] if has_call else []),
        {"type": "message-end", "delta": {"finish_reason": finish, "usage": usage}},
    ]


def google_whole(finish: Any, written: int, has_call: bool) -> dict[str, Any]:
    parts: list[Any] = [{"text": "x"}, *([{"functionCall": {"name": "f", "args": {}}}] if has_call else [])]
    usage = {"promptTokenCount": 10, "candidatesTokenCount": written, "totalTokenCount": 10 + written}
    return {"candidates": [{"content": {"parts": parts}, "finishReason": finish}], "usageMetadata": usage}


def google_stream(finish: Any, written: int, has_call: bool) -> list[dict[str, Any]]:
    return [google_whole(finish, written, has_call), DONE]


def responses_whole(status: Any, written: int, has_call: bool) -> dict[str, Any]:
    items: list[Any] = [{"type": "message", "content": [{"type": "output_text", "text": "x"}]}]
    items += [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}] if has_call else []
    usage = {"input_tokens": 10, "output_tokens": written, "total_tokens": 10 + written}
    return {"id": "r", "model": "m", "status": status, "output": items, "usage": usage}


def responses_stream(status: Any, written: int, has_call: bool) -> list[dict[str, Any]]:
    whole = responses_whole(status, written, has_call)
    done = [
        {"type": "response.output_item.done", "output_index": at, "item": item}
        for at, item in enumerate(whole["output"])
    ]
    return [*done, {"type": "response.completed", "response": whole}]


DONE: dict[str, Any] = {"data": "[DONE]"}
DIALECTS = {
    "anthropic": Dialect(PROVIDERS["anthropic"](), anthropic_whole, anthropic_stream),
    "cohere": Dialect(PROVIDERS["cohere"](), cohere_whole, cohere_stream),
    "google": Dialect(PROVIDERS["google"](), google_whole, google_stream),
    "openai, responses": Dialect(OpenAI(), responses_whole, responses_stream),
    "perplexity": Dialect(PROVIDERS["perplexity"](), responses_whole, responses_stream),
}
ABSENT = "absent"


def without_absent(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_absent(each) for name, each in value.items() if each != ABSENT}
    return [without_absent(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("finish", [*UNUSABLE, ABSENT], ids=str)
@pytest.mark.parametrize(
    ("written", "limit", "has_call", "expected"),
    [(20, None, False, "stop"), (20, 30, False, "stop"), (30, 30, False, "length"), (30, 30, True, "tool_calls")],
)
@pytest.mark.parametrize("kind", DIALECTS)
def test_every_dialect_gets_a_finish_from_its_content(
    kind: str, written: int, limit: int | None, has_call: bool, expected: str, finish: Any
):
    """As above. Without its end marker the stream broke off."""
    dialect = DIALECTS[kind]
    fields: dict[str, Any] = {} if limit is None else {"max_tokens": limit}
    body = without_absent(dialect.whole(finish, written, has_call))
    whole: Any = dialect.provider.parse_response(answered(200, body), request(**fields))["choices"][0]
    said = without_absent(dialect.stream(finish, written, has_call))
    events = [Event("", b"[DONE]") if each == DONE else event(each) for each in said]
    streamed: Any = folded(dialect.provider, events, **fields)["choices"][0]
    for choice in (whole, streamed):
        assert (choice["finish_reason"], choice["native_finish_reason"]) == (expected, None)
        assert choice["message"]["content"] == "x"
    with pytest.raises(UpstreamTruncated):
        folded(dialect.provider, events[:-1], **fields)


@pytest.mark.parametrize("kind", ["anthropic", "cohere", "google"])
def test_a_word_that_nobody_knows_is_no_finish(kind: str):
    """The content says it; the word stands beside it."""
    dialect = DIALECTS[kind]
    for written, has_call, expected in ((20, False, "stop"), (30, False, "length"), (30, True, "tool_calls")):
        body = dialect.whole("BORED", written, has_call)
        choice: Any = dialect.provider.parse_response(answered(200, body), request(max_tokens=30))["choices"][0]
        assert (choice["finish_reason"], choice["native_finish_reason"]) == (expected, "BORED")


def test_the_event_that_ends_a_response_says_what_its_status_does_not():
    """It is over though its status was not brought up to date, and it is cut."""
    provider = DIALECTS["openai, responses"].provider
    for kind, status, expected in (("completed", "queued", "stop"), ("incomplete", None, "length")):
        response = responses_whole(status, 5, False)
        answer = folded(provider, [event({"type": f"response.{kind}", "response": response})])
        assert answer["choices"][0]["finish_reason"] == expected


def spoken(kind: str, *pieces: str) -> list[bytes]:
    """The events of a stream whose pieces are JSON texts."""
    shapes: dict[str, dict[str, Any]] = {
        "anthropic": {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "HERE"}},
        "cohere": {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "HERE"}}}},
        "google": {"candidates": [{"content": {"parts": [{"text": "HERE"}]}}]},
    }
    shape = shapes.get(kind, {"type": "response.output_text.delta", "output_index": 0, "delta": "HERE"})
    events = DIALECTS[kind].stream(None, 5, False)
    if kind == "anthropic":
        events[1]["content_block"] = {"type": "text", "text": ""}
    if kind == "google":
        events[0] = {"candidates": [{"finishReason": "STOP"}]}
    first = {"anthropic": 2, "cohere": 1}.get(kind, 0)
    after = [b"[DONE]" if each == DONE else json.dumps(each).encode() for each in events[first + (kind == "cohere") :]]
    said = [json.dumps(shape).replace("HERE", piece).encode() for piece in pieces]
    return [*(json.dumps(each).encode() for each in events[:first]), *said, *after]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (("a\\ud83d", "\\ude00b"), "a\U0001f600b"),
        (("a\\uD83D", "\\uDE00\\uD83D", "\\uDE01"), "a\U0001f600\U0001f601"),
        (("a\\ud83d", "b"), "a\ufffdb"),
        (("a\\ud83d",), "a\ufffd"),
        (("a", "\\ude00b"), "a\ufffdb"),
        (("a\\\\ud83d", "\\\\ude00b"), "a\\ud83d\\ude00b"),
        (('a\\"\\ud83d', '\\ude00\\"\\ude00'), 'a"\U0001f600"\ufffd'),
    ],
)
@pytest.mark.parametrize("kind", DIALECTS)
def test_halves_that_meet_are_joined_in_every_dialect(kind: str, pieces: tuple[str, ...], expected: str):
    """Lone ones are replaced, and an escaped backslash begins no half."""
    events = [Event("", data) for data in spoken(kind, *pieces)]
    assert folded(DIALECTS[kind].provider, events)["choices"][0]["message"]["content"] == expected
