"""Translates: the checks of tools: calls, choices, parallel calls, streamed arguments, results."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import msgspec

from proxy.conformance.base import (
    Steps,
    chat,
    checks,
    expect,
    fail,
    finish_of,
    message_of,
    ok,
    shown,
    text_of,
)
from proxy.conformance.events import Stream, read, stream

_PLACE: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
_NOTHING: dict[str, Any] = {"type": "object", "properties": {}}
_SCHEMAS = {"get_weather": _PLACE, "get_time": _NOTHING}


def _tool(name: str, description: str) -> dict[str, Any]:
    function = {"name": name, "description": description, "parameters": _SCHEMAS[name]}
    return {"type": "function", "function": function}


WEATHER = _tool("get_weather", "The weather of a city now.")
TIME = _tool("get_time", "The time of day where the user is.")
BOTH = [WEATHER, TIME]
ASK = "What is the weather in Paris, in celsius? Call the tool."
ASK_BOTH = "What is the weather in Paris, in celsius, and what time is it here? Call both tools now, at once."


def _named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def called(model: str) -> Steps:
    """A call with an id, a type, a name that was offered; the answer ends with `tool_calls`."""
    answer = ok((yield chat(model, ASK, tools=[WEATHER])), "tools")
    calls = _calls(message_of(answer).get("tool_calls"))
    expect(finish_of(answer) == "tool_calls", f"finish_reason is {finish_of(answer)!r}")
    return _said(calls)


def arguments_fit(model: str) -> Steps:
    """Arguments are JSON text that the tool's schema takes."""
    answer = ok((yield chat(model, ASK, tools=[WEATHER])), "tools")
    calls = _calls(message_of(answer).get("tool_calls"))
    return shown(str(calls[0]["function"]["arguments"]))


def forced_by_name(model: str) -> Steps:
    """The one that nothing was asked of."""
    answer = ok((yield chat(model, ASK, tools=BOTH, tool_choice=_named("get_time"))), "tools", "tool_choice")
    calls = _calls(message_of(answer).get("tool_calls"))
    expect({_name(call) for call in calls} == {"get_time"}, f"called was {_said(calls)}")
    return _said(calls)


def required(model: str) -> Steps:
    """A call, though nothing calls for one."""
    answer = ok((yield chat(model, "Say: ok", tools=BOTH, tool_choice="required")), "tools", "tool_choice")
    return _said(_calls(message_of(answer).get("tool_calls")))


def none(model: str) -> Steps:
    """No call, though one is asked for."""
    message = message_of(ok((yield chat(model, ASK, tools=[WEATHER], tool_choice="none")), "tools", "tool_choice"))
    expect(not message.get("tool_calls"), "a tool was called")
    return shown(str(message.get("content")))


def parallel(model: str) -> Steps:
    """Two calls in one answer, with an id for each."""
    answer = ok((yield chat(model, ASK_BOTH, tools=BOTH)), "tools")
    return _two(_calls(message_of(answer).get("tool_calls")))


def parallel_off(model: str) -> Steps:
    """At most one call, though two are asked for."""
    reply = yield chat(model, ASK_BOTH, tools=BOTH, parallel_tool_calls=False)
    calls = _calls(message_of(ok(reply, "tools", "parallel_tool_calls")).get("tool_calls"))
    expect(len(calls) == 1, f"called was {_said(calls)}")
    return _said(calls)


def no_arguments(model: str) -> Steps:
    """`{}`, not an empty text: clients decode it."""
    answer = ok((yield chat(model, "What time is it?", tools=[TIME], tool_choice=_named("get_time"))), "tools")
    calls = _calls(message_of(answer).get("tool_calls"))
    found = calls[0]["function"]["arguments"]
    expect(found.replace(" ", "") == "{}", f"arguments is {found!r}")
    return "{}"


def streamed(model: str) -> Steps:
    """Id, type and name once, at the call's index; then pieces of its arguments."""
    answer = read((yield stream(model, ASK, tools=[WEATHER])), "tools")
    expect(answer.finishes() == ["tool_calls"], f"the finish reasons are {answer.finishes()}")
    return _said(_calls(_joined(answer)))


def streamed_parallel(model: str) -> Steps:
    return _two(_calls(_joined(read((yield stream(model, ASK_BOTH, tools=BOTH)), "tools"))))


def streamed_none(model: str) -> Steps:
    """A call without arguments says `{}` in a stream too."""
    probe = stream(model, "What time is it?", tools=[TIME], tool_choice=_named("get_time"))
    calls = _joined(read((yield probe), "tools"))
    found = _calls(calls)[0]["function"]["arguments"]
    expect(found.replace(" ", "") == "{}", f"arguments is {found!r}")
    return "{}"


def result(model: str) -> Steps:
    """The call and its result go back; the answer speaks of the result."""
    first = ok((yield chat(model, ASK, tools=[WEATHER])), "tools")
    history = _history(ASK, message_of(first), {"get_weather": "31 degrees, reported by station 7741"})
    answer = ok((yield chat(model, [*history, _TELL], tools=[WEATHER])), "tools")
    return _mentions(answer, ["7741"])


def result_first(model: str) -> Steps:
    """Right behind the result, as agents do it: no user speaks between them. The model answers or calls again."""
    first = ok((yield chat(model, ASK, tools=[WEATHER])), "tools")
    history = _history(ASK, message_of(first), {"get_weather": "31 degrees, reported by station 7741"})
    answer = ok((yield chat(model, history, tools=[WEATHER])), "tools")
    expect(finish_of(answer) in ("stop", "tool_calls"), f"finish_reason is {finish_of(answer)!r}")
    return f"finish_reason {finish_of(answer)}"


def two_results(model: str) -> Steps:
    """Of calls that the client made up: both results are read, whatever the ids look like."""
    calls: list[dict[str, Any]] = [
        {"id": "call_one", "type": "function", "function": {"name": "get_weather", "arguments": _PARIS}},
        {"id": "call_two", "type": "function", "function": {"name": "get_time", "arguments": "{}"}},
    ]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    told = {"get_weather": "31 degrees, reported by station 7741", "get_time": "12:00, told by clock 5938"}
    answer = ok((yield chat(model, [*_history(ASK_BOTH, message, told), _TELL], tools=BOTH)), "tools")
    return _mentions(answer, ["7741", "5938"])


_PARIS = '{"city":"Paris","unit":"celsius"}'
_TELL = {"role": "user", "content": "Tell me now, with the numbers of the station and the clock. Call no tool."}


def _history(asked: str, message: dict[str, Any], results: dict[str, str]) -> list[dict[str, Any]]:
    """The question, the assistant's message with its calls, and a result for each."""
    calls = _calls(message.get("tool_calls"))
    said = {"role": "assistant", "content": message.get("content"), "tool_calls": calls}
    told = [{"role": "tool", "tool_call_id": call["id"], "content": results.get(_name(call), "ok")} for call in calls]
    return [{"role": "user", "content": asked}, said, *told]


def _mentions(answer: dict[str, Any], numbers: list[str]) -> str:
    text = text_of(answer)
    missing = [number for number in numbers if number not in text]
    expect(not missing, f"the result's {', '.join(missing)} is missing in {shown(text)!r}")
    return shown(text)


def _calls(found: Any) -> list[dict[str, Any]]:
    """The calls, each as it must be. Raises Failed for none."""
    if not isinstance(found, list) or not found:
        fail(f"tool_calls is {found!r}")
    ids = [_checked(call) for call in found]
    expect(len(set(ids)) == len(ids), "two calls have one id")
    return found


def _checked(call: Any) -> str:
    """The id of a call whose parts are all there and whose arguments fit."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        fail(f"a call is {call!r}")
    expect(call.get("type") == "function", f"the type of a call is {call.get('type')!r}")
    name, arguments, identity = function.get("name"), function.get("arguments"), call.get("id")
    if not isinstance(identity, str) or not identity:
        fail(f"the id of a call is {identity!r}")
    if name not in _SCHEMAS:
        fail(f"called was {name!r}, which was not offered")
    try:
        value = msgspec.json.decode(str(arguments))
    except msgspec.DecodeError:
        fail(f"arguments is {arguments!r}")
    expect(isinstance(arguments, str), f"arguments is {arguments!r}, not text")
    expect(jsonschema_rs.is_valid(_SCHEMAS[name], value), f"{name} does not take {shown(str(arguments))}")
    return identity


def _two(calls: list[dict[str, Any]]) -> str:
    expect({_name(call) for call in calls} == set(_SCHEMAS), f"called was {_said(calls)}")
    return _said(calls)


def _joined(answer: Stream) -> list[dict[str, Any]]:
    """The calls that the fragments make. Raises Failed where clients would put them together wrongly."""
    calls: list[dict[str, Any]] = []
    fragments = [each for delta in answer.deltas(0) for each in delta.get("tool_calls") or []]
    expect(bool(fragments), "no tool was called")
    for fragment in fragments:
        place, function = fragment.get("index"), fragment.get("function") or {}
        expect(type(place) is int and 0 <= place <= len(calls), f"after {len(calls)} calls the index {place!r}")
        if place == len(calls):
            named = {"name": function.get("name"), "arguments": ""}
            calls.append({"id": fragment.get("id"), "type": fragment.get("type"), "function": named})
        else:
            again = [fragment.get("id"), fragment.get("type"), function.get("name")]
            expect(again == [None] * 3, f"id, type or name of a call come twice: {again}")
        calls[place]["function"]["arguments"] += function.get("arguments") or ""
    return calls


def _name(call: dict[str, Any]) -> str:
    return str(call["function"]["name"])


def _said(calls: list[dict[str, Any]]) -> str:
    return ", ".join(map(_name, calls))


TOOLS = checks(
    "tools",
    called,
    arguments_fit,
    forced_by_name,
    required,
    none,
    parallel,
    parallel_off,
    no_arguments,
    streamed,
    streamed_parallel,
    streamed_none,
    result,
    result_first,
    two_results,
)
