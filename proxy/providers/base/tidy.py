"""Translates: a chat request into the form that all vendors accept, before any vendor's own translation.

Tools and choices are nested, each tool appears once, empty lists are left out, results follow their calls, calls
without arguments have `{}`, and media have the type that their bytes show. None of this changes the meaning of the
request, so nothing is reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from proxy.providers.base.history import media_after_results, order_of, results_beside_calls
from proxy.providers.base.names import ToolNames
from proxy.providers.base.signatures import named_by_bytes
from proxy.providers.base.tools import plain_request
from proxy.schema.chat import ChatRequest, Message
from proxy.schema.json_writing import text_of

_TO_TIDY = frozenset({"tools", "tool_choice", "functions", "function_call", "stop"})


def tidied(request: ChatRequest, names: ToolNames | None = None) -> ChatRequest:
    """The tidied request. `names`: functions get the vendor's names."""
    if request.fields.keys().isdisjoint(_TO_TIDY) and all(map(_is_text, request.messages)):
        return request
    fields = plain_request(request.fields)
    messages = results_beside_calls([_whole_calls(_true_media(message)) for message in fields["messages"]])
    if names is not None and names.changed:
        fields, messages = _named(fields, names), [_named_calls(message, names) for message in messages]
    return _with(request, fields, messages)


def before_tidying(param: str, fields: Mapping[str, Any]) -> str:
    """The path that `param`, a path within the tidied request, had before results were moved to their calls."""
    name, _, rest = param.partition(".")
    place, dot, rest = rest.partition(".")
    if name != "messages" or not place.isdecimal() or int(place) >= len(order := order_of(fields["messages"])):
        return param
    return f"{name}.{order[int(place)]}{dot}{rest}"


def media_apart(request: ChatRequest) -> ChatRequest:
    """The request for vendors whose tool results are text; the same one if its results are."""
    return _with(request, request.fields, media_after_results(request.fields["messages"]))


def _with(request: ChatRequest, fields: Mapping[str, Any], messages: list[dict[str, Any]]) -> ChatRequest:
    before = request.fields["messages"]
    is_same = len(messages) == len(before) and all(map(_is, messages, before))
    if is_same and fields == request.fields:
        return request
    read = request.messages if is_same else msgspec.convert(messages, list[Message])
    return msgspec.structs.replace(
        request, messages=read, fields={**fields, "messages": before if is_same else messages}
    )


def _is_text(message: Message) -> bool:
    """True for a message that is only text, as in most requests."""
    return type(message.content) is str and message.tool_calls is None and message.role != "tool"


def _is(one: object, other: object) -> bool:
    return one is other


def _true_media(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    parts = [named_by_bytes(part) for part in content]
    return message if all(map(_is, parts, content)) else {**message, "content": parts}


def _whole_calls(message: dict[str, Any]) -> dict[str, Any]:
    """The message with complete arguments. Servers parse earlier calls, and refuse an empty text or an object."""
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    whole = [_with_arguments(call) for call in calls]
    return message if all(map(_is, whole, calls)) else {**message, "tool_calls": whole}


def _with_arguments(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    given = function.get("arguments")
    if isinstance(given, str):
        text = "{}" if len(given) < 16 and given.strip() in ("", "null") else given
    else:
        text = "{}" if given is None else text_of(given)
    return call if text is given else {**call, "function": {**function, "arguments": text}}


def _named(fields: dict[str, Any], names: ToolNames) -> dict[str, Any]:
    if isinstance(fields.get("tools"), list):
        fields["tools"] = [names.named(tool) for tool in fields["tools"]]
    choice = fields.get("tool_choice")
    if isinstance(choice, dict) and isinstance(choice.get("allowed_tools"), dict):
        inner = choice["allowed_tools"]
        allowed = inner.get("tools")
        if isinstance(allowed, list):
            fields["tool_choice"] = {**choice, "allowed_tools": {**inner, "tools": [*map(names.named, allowed)]}}
    elif choice is not None:
        fields["tool_choice"] = names.named(choice)
    return fields


def _named_calls(message: dict[str, Any], names: ToolNames) -> dict[str, Any]:
    calls = message.get("tool_calls")
    if message.get("role") == "tool" and message.get("name") in names.changed:
        return {**message, "name": names.sent(message["name"])}
    if not isinstance(calls, list):
        return message
    named = [names.named(call) for call in calls]
    return message if all(map(_is, named, calls)) else {**message, "tool_calls": named}
