"""Translates: the checks of tools: calls, tool choice, parallel calls, streamed arguments, results."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NoReturn

import jsonschema_rs
import msgspec

from proxy.client.conformance.base import (
    FEW_TOKENS,
    MAX_TOKENS,
    SAY_OK,
    NotShown,
    Probe,
    Reply,
    Steps,
    at_limit,
    chat,
    checks,
    expect,
    fail,
    finish_of,
    message_of,
    not_shown,
    ok,
    shorten,
    text_of,
)
from proxy.client.conformance.events import Stream, read, stream

_Calls = list[dict[str, Any]]

_PLACE: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
_NOTHING: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
_SCHEMAS = {"get_weather": _PLACE, "get_time": _NOTHING}


def _tool(name: str, description: str) -> dict[str, Any]:
    function = {"name": name, "description": description, "parameters": _SCHEMAS[name]}
    return {"type": "function", "function": function}


WEATHER = _tool("get_weather", "The weather of a city now.")
TIME = _tool("get_time", "The time of day where the user is.")
BOTH = [WEATHER, TIME]
ASK = "What is the weather in Paris, in celsius? Call the tool."
ASK_BOTH = "What is the weather in Paris, in celsius, and what time is it here? Call both tools now, at once."


def _force(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def _ask(
    model: str, asked: str, tools: list[dict[str, Any]], **fields: Any
) -> Generator[Probe, Reply, tuple[dict[str, Any], _Calls]]:
    """The whole answer and its calls. Unless `tool_choice` forces a call, a model need not make one, but the tools must
    at least cost prompt tokens.
    """
    probe = chat(model, asked, tools=tools, **fields)
    answer = ok((yield probe), "tools", *fields)
    calls = message_of(answer).get("tool_calls")
    at_limit(finish_of(answer), answer.get("usage"))
    if not calls and "tool_choice" not in fields:
        yield from not_shown("no tool was called", chat(model, asked, max_completion_tokens=FEW_TOKENS), probe)
    return answer, _calls(calls)


def _ask_streamed(
    model: str, asked: str, tools: list[dict[str, Any]], **fields: Any
) -> Generator[Probe, Reply, tuple[Stream, _Calls]]:
    """The same for a stream."""
    answer = read((yield stream(model, asked, tools=tools, **fields)), "tools", *fields)
    calls = _assemble(answer)
    if len(answer.finishes()) == 1:
        at_limit(answer.finish(), answer.usage())
    if not calls and "tool_choice" not in fields:
        few = {"max_completion_tokens": FEW_TOKENS}
        yield from not_shown("no tool was called", chat(model, asked, **few), chat(model, asked, tools=tools, **few))
    return answer, _calls(calls)


def called(model: str) -> Steps:
    """A call has an id, a type and the name of an offered tool. The finish reason is `tool_calls`."""
    answer, calls = yield from _ask(model, ASK, [WEATHER])
    expect(finish_of(answer) == "tool_calls", f"finish_reason is {finish_of(answer)!r}")
    return _names_of(calls)


def arguments_fit(model: str) -> Steps:
    """Arguments are JSON text that fits the tool's schema. The tool is strict, so the server is responsible for it."""
    strict = {**WEATHER, "function": {**WEATHER["function"], "strict": True}}
    _, calls = yield from _ask(model, ASK, [strict])
    return _require_fit(calls[0], fail)


def forced_by_name(model: str) -> Steps:
    """`tool_choice` forces the tool that the question does not call for."""
    _, calls = yield from _ask(model, ASK, BOTH, tool_choice=_force("get_time"))
    expect({_name(call) for call in calls} == {"get_time"}, f"it called {_names_of(calls)}")
    return _names_of(calls)


def required(model: str) -> Steps:
    """With `required` there is a call, although the question needs none."""
    _, calls = yield from _ask(model, SAY_OK, BOTH, tool_choice="required")
    return _names_of(calls)


def none(model: str) -> Steps:
    """With `none` there is no call, although the question asks for one."""
    message = message_of(ok((yield chat(model, ASK, tools=[WEATHER], tool_choice="none")), "tools", "tool_choice"))
    expect(not message.get("tool_calls"), "a tool was called")
    return shorten(str(message.get("content")))


def parallel(model: str) -> Steps:
    """One answer has two calls, each with its own id."""
    _, calls = yield from _ask(model, ASK_BOTH, BOTH)
    return _two(calls)


def parallel_off(model: str) -> Steps:
    """There is at most one call, although the question asks for two."""
    _, calls = yield from _ask(model, ASK_BOTH, BOTH, parallel_tool_calls=False)
    expect(len(calls) == 1, f"it called {_names_of(calls)}")
    return _names_of(calls)


def no_arguments(model: str) -> Steps:
    """A call without arguments has `{}`, not an empty text: clients decode it."""
    _, calls = yield from _ask(model, "What time is it?", [TIME], tool_choice=_force("get_time"))
    return _require_fit(calls[0], _raise_not_shown)


def streamed(model: str) -> Steps:
    """Id, type and name come once, at the call's index; fragments of its arguments follow."""
    answer, calls = yield from _ask_streamed(model, ASK, [WEATHER])
    expect(answer.finishes() == ["tool_calls"], f"the finish reasons are {answer.finishes()}")
    return _names_of(calls)


def streamed_parallel(model: str) -> Steps:
    _, calls = yield from _ask_streamed(model, ASK_BOTH, BOTH)
    return _two(calls)


def streamed_none(model: str) -> Steps:
    """A call without arguments has `{}` in a stream too."""
    _, calls = yield from _ask_streamed(model, "What time is it?", [TIME], tool_choice=_force("get_time"))
    return _require_fit(calls[0], _raise_not_shown)


def result(model: str) -> Steps:
    """The call and its result are sent back, and the answer uses the result."""
    first, _ = yield from _ask(model, ASK, [WEATHER])
    return (yield from _ask_about_results(model, [WEATHER], ASK, message_of(first)))


def result_first(model: str) -> Steps:
    """The result is the last message, as in an agent loop. The model answers or calls again."""
    first, _ = yield from _ask(model, ASK, [WEATHER])
    answer = ok((yield chat(model, _history(ASK, message_of(first), _RESULTS), tools=[WEATHER])), "tools")
    at_limit(finish_of(answer), answer.get("usage"))
    expect(finish_of(answer) in ("stop", "tool_calls"), f"finish_reason is {finish_of(answer)!r}")
    return f"finish_reason {finish_of(answer)}"


def two_results(model: str) -> Steps:
    """Results of calls that the client made up are both read, whatever the ids look like."""
    calls: list[dict[str, Any]] = [
        {"id": "call_one", "type": "function", "function": {"name": "get_weather", "arguments": _PARIS}},
        {"id": "call_two", "type": "function", "function": {"name": "get_time", "arguments": "{}"}},
    ]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    return (yield from _ask_about_results(model, BOTH, ASK_BOTH, message))


_PARIS = '{"city":"Paris","unit":"celsius"}'
_RESULTS = {"get_weather": "31 degrees, reported by station 7741", "get_time": "12:00, told by clock 5938"}
_TELL = {"role": "user", "content": "Tell me now, with the numbers of the station and the clock. Call no tool."}


def _history(asked: str, message: dict[str, Any], results: dict[str, str]) -> list[dict[str, Any]]:
    """The question, the assistant's message with its calls, and a result for each."""
    calls = _calls(message.get("tool_calls"))
    call_message = {"role": "assistant", "content": message.get("content"), "tool_calls": calls}
    answers = [
        {"role": "tool", "tool_call_id": call["id"], "content": results.get(_name(call), "ok")} for call in calls
    ]
    return [{"role": "user", "content": asked}, call_message, *answers]


def _ask_about_results(model: str, tools: list[dict[str, Any]], asked: str, message: dict[str, Any]) -> Steps:
    """The model repeats the number in each result, or at least a longer result costs more prompt tokens."""

    def probe(results: dict[str, str], most: int = MAX_TOKENS) -> Probe:
        history = [*_history(asked, message, results), _TELL]
        return chat(model, history, tools=tools, max_completion_tokens=most)

    answer = ok((yield probe(_RESULTS)), "tools")
    text = "a call" if message_of(answer).get("tool_calls") else text_of(answer)
    for name in map(_name, message["tool_calls"]):
        number = _RESULTS[name][-4:]
        if number not in text:
            longer = {**_RESULTS, name: f"{_RESULTS[name]}. {_RESULTS[name]}"}
            seen = f"{number} is missing in {shorten(text)!r}"
            return (yield from not_shown(seen, probe(_RESULTS), probe(longer, FEW_TOKENS)))
    return shorten(text)


def _calls(found: Any) -> list[dict[str, Any]]:
    """The calls, checked one by one. Raises Failed if there are none."""
    if not isinstance(found, list) or not found:
        fail(f"tool_calls is {found!r}")
    ids = [_check_call(call) for call in found]
    expect(len(set(ids)) == len(ids), "two calls share one id")
    return found


def _check_call(call: Any) -> str:
    """Checks that a call is complete. Returns its id."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        fail(f"a call is {call!r}")
    expect(call.get("type") == "function", f"the type of a call is {call.get('type')!r}")
    name, arguments, identity = function.get("name"), function.get("arguments"), call.get("id")
    if not isinstance(identity, str) or not identity:
        fail(f"the id of a call is {identity!r}")
    if name not in _SCHEMAS:
        fail(f"it called {name!r}, which was not offered")
    expect(isinstance(arguments, str) and isinstance(_decode(arguments), dict), f"arguments is {arguments!r}")
    return identity


def _decode(arguments: str) -> Any:
    try:
        return msgspec.json.decode(arguments)
    except msgspec.DecodeError:
        return None


def _require_fit(call: dict[str, Any], otherwise: Callable[[str], NoReturn]) -> str:
    """The arguments, if they fit the tool's schema."""
    arguments: str = call["function"]["arguments"]
    if not jsonschema_rs.is_valid(_SCHEMAS[_name(call)], _decode(arguments)):
        otherwise(f"{_name(call)} does not accept {shorten(arguments)}")
    return shorten(arguments)


def _raise_not_shown(seen: str) -> NoReturn:
    """The model may call a tool that is not strict with any arguments."""
    raise NotShown(seen)


def _two(calls: list[dict[str, Any]]) -> str:
    if {_name(call) for call in calls} != set(_SCHEMAS):
        raise NotShown(f"it called {_names_of(calls)}")
    return _names_of(calls)


def _assemble(answer: Stream) -> list[dict[str, Any]]:
    """The calls, assembled from fragments. Raises Failed where clients would assemble them wrongly."""
    calls: list[dict[str, Any]] = []
    for fragment in [each for delta in answer.deltas(0) for each in delta.get("tool_calls") or []]:
        place, function = fragment.get("index"), fragment.get("function") or {}
        expect(type(place) is int and 0 <= place <= len(calls), f"after {len(calls)} calls comes the index {place!r}")
        if place == len(calls):
            named = {"name": function.get("name"), "arguments": ""}
            calls.append({"id": fragment.get("id"), "type": fragment.get("type"), "function": named})
        else:
            again = [fragment.get("id"), fragment.get("type"), function.get("name")]
            expect(again == [None] * 3, f"id, type or name of a call is repeated: {again}")
        calls[place]["function"]["arguments"] += function.get("arguments") or ""
    return calls


def _name(call: dict[str, Any]) -> str:
    return str(call["function"]["name"])


def _names_of(calls: list[dict[str, Any]]) -> str:
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
