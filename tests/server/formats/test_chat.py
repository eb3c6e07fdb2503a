"""Rules of reading a client's body: everything that is not a clean chat request is a 400 that names the field."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.schema.errors import BadRequest
from proxy.schema.json import decode_object, encode
from proxy.server.formats.chat import decode_chat
from proxy.server.formats.chat_answer import sse
from tests.slowness import usual_s

HELLO = [{"role": "user", "content": "hello"}]


def body(**fields: object) -> bytes:
    return json.dumps({"model": "auto", "messages": HELLO, **fields}).encode()


@pytest.mark.parametrize(
    ("data", "code", "param", "words"),
    [
        (b"", "invalid_json", None, "not valid JSON"),
        (b"[]", "invalid_json", None, "must be a JSON object"),
        (b'{"model": "auto"', "invalid_json", None, "not valid JSON"),
        (b'{"model": NaN}', "invalid_json", None, "not valid JSON"),
        (b'{"a": 1e999}', "invalid_json", None, "not valid JSON"),
        (b'{"a": Infinity}', "invalid_json", None, "not valid JSON"),
        (b'{"a": "\xff"}', "invalid_json", None, "not valid JSON"),
        (b'{"a": "\\ud800"}', "invalid_json", None, "not valid JSON"),
        (b'{"a": "\x00"}', "invalid_json", None, "not valid JSON"),
        (b'{"a": ' + b"1" * 2_000_000 + b"}", "invalid_json", None, "not valid JSON"),
        (b"[" * 100_000, "invalid_json", None, "nested too deeply"),
        (b'{"a":' * 100_000, "invalid_json", None, "nested too deeply"),
        (b'{"a":' * 2_000 + b"1" + b"}" * 2_000, "invalid_json", None, "nested too deeply"),
        (b'{"model":"cheap","model":"dear"}', "invalid_json", None, "'model' appears twice"),
        (b'{"model":"cheap","m\\u006fdel":"dear"}', "invalid_json", None, "'model' appears twice"),
        (body(x={"a": [{"b": 1}]}).replace(b'"b": 1', b'"b": 1, "b": 2'), "invalid_json", None, "'b' appears twice"),
        (body(Model="dear"), "invalid_value", "Model", "Did you mean 'model'"),
        (body(MAX_TOKENS=5), "invalid_value", "MAX_TOKENS", "Did you mean 'max_tokens'"),
        (b'{"messages": []}', "invalid_value", "model", "missing required field"),
        (b'{"model": "auto"}', "invalid_value", "messages", "missing required field"),
        (b'{"model": 5, "messages": []}', "invalid_value", "model", "Expected `str`"),
        (body(model=" "), "invalid_value", "model", "name a model"),
        (body(messages=[]), "invalid_value", "messages", "at least one message"),
        (body(messages=[{"content": "x"}]), "invalid_value", "messages.0.role", "missing required field"),
        (body(messages=[*HELLO, {"role": "user", "content": 5}]), "invalid_value", "messages.1.content", "Expected"),
        (body(messages=[{"role": "tool", "content": "x"}]), "invalid_value", "messages.0.tool_call_id", "tool_call_id"),
        (body(messages="hello"), "invalid_value", "messages", "Expected `array`"),
        (body(stream="yes"), "invalid_value", "stream", "Expected `bool | null`"),
        (body(n=0), "invalid_value", "n", "at least 1"),
        (body(n=1000), "invalid_value", "n", "at most 128"),
        (body(max_tokens=-2), "invalid_value", "max_tokens", "at least 1"),
        (body(max_completion_tokens=0), "invalid_value", "max_completion_tokens", "at least 1"),
        (body(stream_options={"include_usage": True}), "invalid_value", "stream_options", "only allowed when stream"),
    ],
)
def test_a_bad_body_is_a_400_that_names_the_field(data: bytes, code: str, param: str | None, words: str) -> None:
    """Each kind of bad body has its code, its field and a readable cause, in less than 50 ms."""
    failures: list[BadRequest] = []

    def decode() -> None:
        with pytest.raises(BadRequest) as caught:
            decode_chat(data)
        failures.append(caught.value)

    assert usual_s(decode, 1) < 0.05
    (failure,) = failures
    assert (failure.status, failure.code, failure.param) == (400, code, param)
    assert words in failure.message


def test_every_optional_field_may_be_null() -> None:
    """SDKs send null for what the user left out; null is the same as absent, and is not forwarded."""
    names = [
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "n",
        "temperature",
        "top_p",
        "stop",
        "tools",
        "tool_choice",
        "response_format",
        "seed",
        "user",
        "metadata",
        "audio",
        "frequency_penalty",
        "presence_penalty",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "modalities",
        "store",
        "parallel_tool_calls",
        "prediction",
        "reasoning_effort",
        "service_tier",
        "verbosity",
        "web_search_options",
        "functions",
        "function_call",
    ]
    request = decode_chat(body(**dict.fromkeys(names)))
    assert request.fields == {"model": "auto", "messages": HELLO}
    assert (request.stream, request.n, request.max_tokens, request.include_usage) == (False, 1, None, False)


def test_message_fields_may_be_null() -> None:
    """An assistant message of a tool call has null content; null tool_calls come back from some frameworks."""
    messages = [{"role": "assistant", "content": None, "tool_calls": None, "name": None, "tool_call_id": None}]
    assert decode_chat(body(messages=messages)).fields["messages"] == messages


def test_unknown_fields_ride_along_untouched() -> None:
    """What the proxy does not know belongs to the upstream, nulls included."""
    extra = {"chat_template_kwargs": {"enable_thinking": False}, "top_k": None, "x": [1, {"y": "ü"}]}
    request = decode_chat(body(**extra))
    assert {name: request.fields[name] for name in extra} == extra


def test_both_names_of_the_output_limit_are_read() -> None:
    """`max_completion_tokens` wins where a client sends both."""
    assert decode_chat(body(max_tokens=7)).max_tokens == 7
    assert decode_chat(body(max_completion_tokens=9)).max_tokens == 9
    assert decode_chat(body(max_tokens=7, max_completion_tokens=9)).max_tokens == 9


@pytest.mark.parametrize("kind", ["function", "custom"])
def test_a_tool_choice_names_one_of_the_tools(kind: str) -> None:
    """Some servers answer as if it had not been said; the other forms are not looked into."""
    choice = {"type": kind, kind: {"name": "get_time"}}
    offered = [{"type": "web_search"}, {"type": kind, kind: {"name": "get_time"}}]
    assert decode_chat(body(tools=offered, tool_choice=choice)).fields["tool_choice"] == choice
    assert decode_chat(body(tools=offered, tool_choice="required")).fields["tool_choice"] == "required"
    for tools in ([], None, [{"type": kind, kind: {"name": "get_weather"}}], [{"type": kind, kind: None}]):
        with pytest.raises(BadRequest) as caught:
            decode_chat(body(tools=tools, tool_choice=choice))
        assert (caught.value.param, "'get_time'" in caught.value.message) == ("tool_choice", True)


def test_a_stream_event_is_one_data_line_with_lf_ends() -> None:
    """Clients split our frames at LF."""
    assert sse({"a": "x\r\ny"}) == b'data: {"a":"x\\r\\ny"}\n\n'


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=6), JSON, max_size=5))
def test_what_is_encoded_decodes_to_the_same(value: dict[str, object]) -> None:
    """Forwarding re-encodes: nothing may change on the way."""
    assert decode_object(encode(value)) == value


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_decode_or_raise_bad_request(data: bytes) -> None:
    """Whatever a socket brings, the answer is a value or a 400."""
    try:
        assert isinstance(decode_object(data), dict)
    except BadRequest as error:
        assert error.code == "invalid_json"
