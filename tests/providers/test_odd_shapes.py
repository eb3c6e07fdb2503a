"""Shapes of answers that no document describes: lists that are none, texts as messages, events framed twice."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.providers import PROVIDERS
from proxy.providers.base.contract import HTTPResponse, Provider
from proxy.providers.base.reading import parse
from proxy.providers.base.usage import usage_of
from proxy.providers.openai import OpenAI
from proxy.schema.errors import UpstreamError
from proxy.schema.sse import Event
from tests.providers.asking import answered, event, folded, request
from tests.providers.mixed_oddities import WHOLES
from tests.upstream.wire import Said

SERVER = OpenAI(base_url="https://other.example/v1")
DONE = Event("", b"[DONE]")
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("look", "count")]


def said(delta: Any, finish: str | None = None, **choice: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, **choice}]}


def call(name: str, arguments: str, **more: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}, **more}


def whole(**choice: Any) -> Any:
    body = {"choices": [{"index": 0, "finish_reason": "stop", **choice}]}
    return SERVER.parse_response(answered(200, body), request(tools=TOOLS))["choices"][0]


def streamed(*bodies: dict[str, Any], **fields: Any) -> Any:
    return folded(SERVER, [*map(event, bodies), DONE], tools=TOOLS, **fields)["choices"][0]


def named(choice: Any) -> list[tuple[str, str]]:
    calls = choice["message"].get("tool_calls", [])
    return [(each["function"]["name"], each["function"]["arguments"]) for each in calls]


# --- calls ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [("0", "1"), ("1", "2"), ("7", "12")])
def test_calls_may_come_as_an_object_by_their_places(keys: tuple[str, str]):
    """In the order of the places, whole and streamed, also in pieces."""
    first, second = keys
    calls = {second: call("count", '{"b":2}', id="b"), first: call("look", '{"a":1}', id="a")}
    expected = [("look", '{"a":1}'), ("count", '{"b":2}')]
    assert named(whole(message={"content": None, "tool_calls": calls})) == expected
    assert named(streamed(said({"tool_calls": calls}), said({}, "tool_calls"))) == expected
    begun = {first: call("look", '{"a"', id="a")}
    rest = {first: {"function": {"arguments": ":1}"}}}
    then = {second: call("count", '{"b":2}', id="b")}
    pieces = [said({"tool_calls": each}) for each in (begun, rest, then)]
    assert named(streamed(*pieces, said({}, "tool_calls"))) == expected


def test_a_single_call_needs_no_list():
    """Its fields are those of a call, not places."""
    one = call("look", "{}", id="a", index=0)
    assert named(whole(message={"tool_calls": one})) == [("look", "{}")]
    assert named(streamed(said({"tool_calls": one}), said({}, "tool_calls"))) == [("look", "{}")]
    assert named(whole(message={"content": "x", "tool_calls": {}})) == []


@pytest.mark.parametrize("value", ["text", "{", "", '"look"'])
def test_calls_may_be_the_json_text_of_their_list(value: str):
    """Or of a single one, whole and streamed. Any other text is no call."""
    two = [call("look", '{"a":1}', id="a"), call("count", '{"b":2}', id="b")]
    for calls, expected in ((two, [("look", '{"a":1}'), ("count", '{"b":2}')]), (two[0], [("look", '{"a":1}')])):
        written = json.dumps(calls)
        assert named(whole(message={"content": None, "tool_calls": written})) == expected
        assert named(streamed(said({"tool_calls": written}), said({}, "tool_calls"))) == expected
    assert named(whole(message={"content": "x", "tool_calls": value})) == []
    assert named(streamed(said({"content": "x", "tool_calls": value}), said({}, "stop"))) == []


def test_a_call_after_the_finish_changes_it():
    """The last finish_reason counts, for the proxy and for OpenAI's SDK: an agent looks for calls only then."""
    late = said({"tool_calls": [call("look", '{"a":1}', index=0, id="a")]})
    for events in ([said({"content": "x"}, "stop"), late], [said({}, "stop"), said({}, "stop"), late]):
        choice = streamed(*events)
        assert (choice["finish_reason"], named(choice)) == ("tool_calls", [("look", '{"a":1}')])
    empty = said({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "look"}}]})
    choice = streamed(said({}, "stop"), empty)
    assert (choice["finish_reason"], named(choice)) == ("tool_calls", [("look", "{}")])
    for word in ("length", "content_filter"):  # the answer was cut, whatever came before
        assert streamed(said({"content": "x"}, word), late)["finish_reason"] == word


# --- choices and messages ---------------------------------------------------------------------------------------------


def test_a_single_choice_needs_no_list():
    """Whole and streamed."""
    body = {"choices": {"message": {"content": "hi"}, "finish_reason": "stop"}}
    assert SERVER.parse_response(answered(200, body), request())["choices"][0]["message"]["content"] == "hi"
    one = {"choices": {"delta": {"content": "hi"}, "finish_reason": "stop"}}
    assert streamed(one)["message"]["content"] == "hi"
    nothing: list[Any] = [{}, None, "x", 5, [5]]
    for none in nothing:
        with pytest.raises(UpstreamError):
            SERVER.parse_response(answered(200, {"choices": none}), request())


@pytest.mark.parametrize("choice", [{"text": "hi"}, {"message": "hi"}, {"delta": {"content": "hi"}}])
def test_a_text_may_stand_in_the_place_of_the_message(choice: dict[str, Any]):
    """As in answers to plain completions, and from servers that send one form for the other."""
    assert whole(**choice)["message"]["content"] == "hi"


def test_streamed_texts_may_stand_in_the_place_of_the_delta():
    """But beside a delta they repeat it."""
    pieces = [{"choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in ("h", "i")]
    assert streamed(*pieces, said({}, "stop"))["message"]["content"] == "hi"
    assert streamed(said({"content": "hi"}, text="hi"), said({}, "stop", text="hi"))["message"]["content"] == "hi"


@pytest.mark.parametrize("kind", WHOLES)
def test_an_answer_in_the_envelope_of_a_gateway_is_read(kind: str):
    """As JSON text, or as one field of an object; an error beside it stays the answer."""
    name = kind.partition(",")[0]
    provider: Provider = OpenAI(api="responses") if "responses" in kind else PROVIDERS[name]()
    answer = WHOLES[kind](Said(tokens=["hi"], reasoning=[], calls=[], finish="stop"))
    text = json.dumps(answer)
    wrapped: list[Any] = [
        *(text, {"code": 0, "message": "ok", "data": answer}, {"result": answer, "success": True}),
        *({"statusCode": 200, "body": text}, {"response": text}),
    ]
    for value in wrapped:
        found: Any = parse(provider, request(), answered(200, value))
        assert found["choices"][0]["message"]["content"] == "hi", value
    said = {"error": {"message": "bad key", "code": 401}}
    for value in ({**said, "data": answer}, {"data": said}, {"data": "hi"}, {"data": {"data": {}}}, "hi", [5]):
        with pytest.raises(UpstreamError):
            parse(provider, request(), answered(200, value))


def test_an_answer_that_comes_twice_counts_once():
    """Two whole answers in a row, as one body or as events."""
    body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
    assert streamed(body, body)["message"]["content"] == "hi"
    twice = (json.dumps(body) + "\n") * 2
    answer: Any = parse(SERVER, request(), HTTPResponse(200, {}, twice.encode()))
    assert answer["choices"][0]["message"]["content"] == "hi"


@pytest.mark.parametrize("kind", ["google", "vllm"])
def test_a_list_of_events_is_a_stream(kind: str):
    """Google's API sends one to who does not ask for events, and so do gateways before it."""
    events: list[dict[str, Any]]
    if kind == "google":
        events = [{"candidates": [{"content": {"parts": [{"text": text}]}}]} for text in ("h", "i")]
        events[-1]["candidates"][0]["finishReason"] = "STOP"
    else:
        events = [said({"content": "h"}), said({"content": "i"}, "stop")]
    for data in (json.dumps(events), json.dumps(events, indent=2), "\n " + json.dumps(events)):
        answer: Any = parse(PROVIDERS[kind](), request(), HTTPResponse(200, {}, data.encode()))
        assert answer["choices"][0]["message"]["content"] == "hi"
    for data in ("[]", "[null]", '[{"error":{"message":"no","code":401}}]', json.dumps(events[:1]), "[1"):
        with pytest.raises(UpstreamError):
            parse(PROVIDERS[kind](), request(), HTTPResponse(200, {}, data.encode()))


# --- other dialects ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [('{"a": 1}', '{"a": 1}'), ({"a": 1}, '{"a":1}'), ("", "{}"), (None, "{}"), ("null", "{}"), ({}, "{}")],
)
def test_input_of_anthropics_tools_may_be_a_text(given: Any, expected: str):
    """As gateways write it that come from OpenAI's shape; whole, and at the start of a streamed block."""
    provider = PROVIDERS["anthropic"]()
    block = {"type": "tool_use", "id": "t", "name": "look", "input": given}
    body = {"id": "m", "content": [block], "stop_reason": "tool_use", "usage": {"input_tokens": 1, "output_tokens": 2}}
    assert named(provider.parse_response(answered(200, body), request(tools=TOOLS))["choices"][0]) == [
        ("look", expected)
    ]
    events = [
        {"type": "message_start", "message": {**body, "content": []}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
        {"type": "message_stop"},
    ]
    assert named(folded(provider, [*map(event, events)], tools=TOOLS)["choices"][0]) == [("look", expected)]


@pytest.mark.parametrize("content", ["hi", {"type": "text", "text": "hi"}])
def test_content_of_anthropics_answers_may_be_a_text_or_one_block(content: Any):
    """Without the list around it."""
    body = {"id": "m", "content": content, "stop_reason": "end_turn"}
    answer = PROVIDERS["anthropic"]().parse_response(answered(200, body), request())
    assert answer["choices"][0]["message"]["content"] == "hi"


@pytest.mark.parametrize(
    "said",
    [{"output": [{"type": "message", "content": "hi"}]}, {"output": [], "output_text": "hi"}],
)
def test_the_text_of_a_response_may_stand_alone(said: dict[str, Any]):
    """Whole and streamed, as servers write it that are like OpenAI's Responses API."""
    provider = OpenAI(base_url="https://other.example/v1", api="responses")
    body = {"id": "r", "status": "completed", **said}
    answer = provider.parse_response(answered(200, body), request())
    assert answer["choices"][0]["message"]["content"] == "hi"
    answer = folded(provider, [event({"type": "response.completed", "response": body})])
    assert answer["choices"][0]["message"]["content"] == "hi"
    delta = event({"type": "response.output_text.delta", "output_index": 0, "delta": "hi"})
    answer = folded(provider, [delta, event({"type": "response.completed", "response": body})])
    assert answer["choices"][0]["message"]["content"] == "hi"


# --- events -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", [b"data: ", b"data:", b"data: data: "])
def test_events_that_were_framed_twice_are_read(prefix: bytes):
    """By a gateway that frames what came framed."""
    bodies = [said({"content": "h"}), said({"content": "i"}, "stop")]
    events = [Event("", prefix + json.dumps(each).encode()) for each in bodies]
    answer = folded(SERVER, [*events, Event("", prefix + b"[DONE]")])
    assert answer["choices"][0]["message"]["content"] == "hi"
    assert folded(SERVER, [Event("", prefix), *map(event, bodies)])["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("mark", [b"[done]", b'"[DONE]"', b"[Done]"])
def test_an_end_marker_may_be_spelled_otherwise(mark: bytes):
    """It says that the answer is complete."""
    answer = folded(SERVER, [event(said({"content": "hi"})), Event("", mark)])
    assert answer["choices"][0]["finish_reason"] == "stop"


# --- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"timings": {"prompt_n": 10, "predicted_n": 5, "prompt_ms": 3.5}}, (10, 5, 0)),
        ({"timings": {"prompt_n": 10, "predicted_n": 5, "cache_n": 90}}, (100, 5, 90)),
        ({"prompt_eval_count": 10, "eval_count": 5, "eval_duration": 10**9}, (10, 5, 0)),
        ({"usage": None, "timings": {"prompt_n": 10, "predicted_n": 5}}, (10, 5, 0)),
        (
            {
                "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
                "timings": {"prompt_n": 10, "predicted_n": 5},
            },
            (1, 2, 0),
        ),
    ],
)
def test_servers_of_ones_own_count_in_their_own_words(body: dict[str, Any], expected: tuple[int, int, int]):
    """llama.cpp and Ollama, where they send no usage; their times are no counts."""
    report = usage_of({"choices": [], **body})
    assert report is not None
    assert (report.billed.prompt, report.billed.output, report.billed.cache_read) == expected
    assert {"prompt_ms", "eval_duration"}.isdisjoint(report.shown)


@pytest.mark.parametrize("body", [{"timings": {}}, {"timings": {"prompt_ms": 3}}, {"timings": None}])
def test_times_alone_are_no_usage(body: dict[str, Any]):
    """Then the tokens are estimated."""
    assert usage_of({"choices": [], **body}) is None


# --- errors -----------------------------------------------------------------------------------------------------------


def test_the_fields_that_a_validator_names_in_a_200_are_an_error():
    """FastAPI's shape, from servers that forget the status."""
    body = {"detail": [{"loc": ["body", "messages"], "msg": "field required", "type": "value_error.missing"}]}
    with pytest.raises(UpstreamError, match="messages: field required"):
        SERVER.parse_response(answered(200, body), request())


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "", "application/octet-stream"])
def test_an_error_that_is_a_mere_text_is_told_whatever_its_content_type(kind: str):
    """A page of HTML or bytes that are no text are not."""
    headers = {"content-type": kind} if kind else {}
    error = SERVER.parse_error(HTTPResponse(429, headers, b"Slow down. Try again in 3s."))
    assert (error.message, error.retry_after_s) == ("Slow down. Try again in 3s.", 3)
    for body in (b"<html>no</html>", b"\xff\xfe\x00", b"", b"x" * 5000, b'{"a":'):
        error = SERVER.parse_error(HTTPResponse(429, headers, body))
        assert error.message.startswith("The provider answered 429")


@pytest.mark.parametrize(
    "text", ["Open api daily request limit reached", "Requests limit exceeded", "qps limit reached"]
)
def test_a_limit_of_requests_inside_a_200_is_a_rate_limit(text: str):
    """Baidu's way."""
    with pytest.raises(UpstreamError) as raised:
        SERVER.parse_response(answered(200, {"error_code": 17, "error_msg": text}), request())
    assert (raised.value.status, raised.value.code) == (429, "rate_limit_exceeded")


def test_the_only_piece_of_a_stream_that_broke_off_is_no_answer():
    """It has a delta and no finish."""
    for piece in (said({"role": "assistant", "content": ""}), said({"content": "hi"})):
        with pytest.raises(UpstreamError):
            SERVER.parse_response(answered(200, piece), request())
