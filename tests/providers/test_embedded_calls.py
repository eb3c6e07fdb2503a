"""A forced call of the model that comes with the product: asked for as JSON, answered as a call."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from proxy.providers.base.contract import Built, HTTPResponse
from proxy.providers.embedded import DEFAULT_LIMIT, Embedded
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import BadRequest, UpstreamTruncated
from proxy.schema.fold import Fold
from proxy.schema.json import encode
from proxy.schema.sse import Event
from proxy.server.formats.chat import decode_chat
from tests.providers.corpus import user

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
NESTED = {
    "type": "object",
    "properties": {"at": {"$ref": "#/$defs/place"}},
    "required": ["at"],
    "$defs": {"place": CITY},
}


def tool(name: str, parameters: object = None, **more: Any) -> dict[str, Any]:
    function = {"name": name, "description": f"Does {name}.", **more}
    return {"type": "function", "function": function | ({"parameters": parameters} if parameters else {})}


WEATHER, TIME = tool("weather", CITY), tool("time", NESTED)
REQUIRED = {"tools": [WEATHER, TIME], "tool_choice": "required"}
NAMED = {"tools": [WEATHER, TIME], "tool_choice": {"type": "function", "function": {"name": "weather"}}}
ALLOWED = {
    "tools": [WEATHER, TIME],
    "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [WEATHER]}},
}


def request(**fields: Any) -> ChatRequest:
    return decode_chat(encode({"model": "m", "messages": [user()], **fields}))


def built(**fields: Any) -> Built:
    return Embedded().build_request(request(**fields), "smollm2-135m")


def schema_of(built: Built) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(built.http.body)["response_format"]["json_schema"]["schema"]
    return schema


def whole(text: str, fields: dict[str, Any], reason: str = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    body = {"id": "chatcmpl-1", "choices": [{"index": 0, "message": message, "finish_reason": reason}]}
    answer = Embedded().parse_response(HTTPResponse(200, {}, encode(body)), request(**fields))
    return cast(dict[str, Any], answer["choices"][0])


def streamed(texts: list[str], fields: dict[str, Any], reason: str | None = "stop") -> dict[str, Any]:
    decoder = Embedded().stream_decoder(request(**fields, stream=True))
    head: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    deltas: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant", "content": None}, None)]
    deltas += [({"content": text}, None) for text in texts]
    folded = Fold()
    for delta, end in [*deltas, ({}, reason)]:
        said = {"index": 0, "delta": delta, "finish_reason": end}
        for chunk in decoder.feed(Event("", encode({**head, "choices": [said]}))):
            folded.add(chunk)
    decoder.close()
    (choice,) = folded.response()["choices"]
    return cast(dict[str, Any], choice)


@pytest.mark.parametrize("fields", [NAMED, ALLOWED, {"tools": [WEATHER], "tool_choice": "required"}])
def test_one_tool_is_asked_for_by_the_schema_of_its_arguments(fields: dict[str, Any]):
    """The grammar lets nothing else through. The model reads what the function is for."""
    sent = built(**fields)
    body = json.loads(sent.http.body)
    assert schema_of(sent) == CITY
    assert body["messages"][0] == {
        "role": "system",
        "content": "Answer with the arguments of this function:\nweather: Does weather. Arguments: city.",
    }
    assert body.keys().isdisjoint({"tools", "tool_choice"})
    assert (sent.adapted, sent.dropped, body["max_tokens"]) == (["tools"], [], DEFAULT_LIMIT)


def test_several_tools_are_asked_for_by_name_and_arguments():
    """References are inlined: those of two tools may have the same name."""
    one, other = schema_of(built(**REQUIRED))["anyOf"]
    assert one["properties"] == {"name": {"const": "weather"}, "arguments": CITY}
    assert other["properties"]["name"] == {"const": "time"}
    assert "$ref" not in json.dumps(other)
    assert other["properties"]["arguments"]["properties"]["at"]["properties"] == {"city": {"type": "string"}}


def test_a_tool_without_parameters_gets_an_empty_object():
    """As OpenAI writes it."""
    assert schema_of(built(tools=[tool("now")], tool_choice="required"))["properties"] == {}


@pytest.mark.parametrize(
    ("text", "fields", "name"),
    [
        ('{"city":"Oslo"}', NAMED, "weather"),
        ('{"name": "time", "arguments": {"at": {"city": "Oslo"}}}', REQUIRED, "time"),
    ],
)
def test_the_json_is_the_call_whole_and_streamed(text: str, fields: dict[str, Any], name: str):
    """With an id, a finish_reason of `tool_calls`, and no content."""
    answer = whole(text, fields)
    (call,) = answer["message"]["tool_calls"]
    assert (call["function"]["name"], answer["message"]["content"]) == (name, None)
    assert json.loads(call["function"]["arguments"]) == json.loads(text).get("arguments", json.loads(text))
    assert answer["finish_reason"] == "tool_calls"
    for cut in range(1, len(text)):
        folded = streamed([text[:cut], text[cut:]], fields)
        assert folded["message"]["tool_calls"] == [call]
        assert folded["finish_reason"] == "tool_calls"
        assert not folded["message"].get("content")


@pytest.mark.parametrize(
    ("text", "arguments"),
    [('{"name": "time", "arguments": {"at": {"ci', '{"at": {"ci'), ('{"name": "time", "arg', "{}")],
)
def test_a_call_that_a_limit_cuts_says_so(text: str, arguments: str):
    """As at OpenAI: what there is of the arguments, and `length`."""
    answer = whole(text, REQUIRED, "length")
    (call,) = answer["message"]["tool_calls"]
    assert call["function"] == {"name": "time", "arguments": arguments}
    assert answer["finish_reason"] == "length"
    assert streamed([text], REQUIRED, "length")["message"]["tool_calls"] == [call]


def test_a_stream_that_breaks_off_is_an_error():
    """Half a call is none."""
    with pytest.raises(UpstreamTruncated):
        streamed(['{"city'], NAMED, None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tool_choice": "required"}, "no tools"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "not among the tools"),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}], "tool_choice": "required"}, "only function tools"),
    ],
)
def test_a_call_that_nothing_can_make_is_refused(fields: dict[str, Any], message: str):
    """A text in its place would be of no use to a client that forces a call."""
    with pytest.raises(BadRequest, match=message):
        built(**fields)


@pytest.mark.parametrize("choice", ["auto", "none", None])
def test_a_call_that_is_not_forced_is_not_made(choice: str | None):
    """The text of the answer stays text, even if it is JSON; the tools are reported as dropped."""
    fields = {"tools": [WEATHER], "tool_choice": choice}
    assert "response_format" not in json.loads(built(**fields).http.body)
    assert "tools" in built(**fields).dropped
    assert whole('{"city":"Oslo"}', fields)["message"]["content"] == '{"city":"Oslo"}'
