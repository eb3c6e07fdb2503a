"""Translates: tool calls into votes: the name of the tool, and its arguments as canonical JSON.

Several calls of one message run side by side, so their order does not matter. Texts in arguments stay exact: a program
reads them. Arguments that are not JSON agree only with the same text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from typing import Any, cast

from proxy.ensembles.canonical_json import MAX_JSON, canonical_text
from proxy.schema.chat import ChatRequest, FunctionCall, ResponseMessage, ToolCall


def offered(request: ChatRequest) -> list[dict[str, Any]]:
    """The definitions of the client's tools, custom ones and functions of the older API included."""
    tools = [tool for tool in request.fields.get("tools") or () if isinstance(tool, dict)]
    inner = [tool.get(str(tool.get("type", "function"))) for tool in tools]
    return [each for each in [*inner, *(request.fields.get("functions") or ())] if isinstance(each, dict)]


def calls_of(message: ResponseMessage) -> list[ToolCall]:
    """The calls of a message, the single one of the older API included."""
    older = message.get("function_call")
    return message.get("tool_calls") or (
        [ToolCall(function=cast(FunctionCall, older))] if isinstance(older, dict) else []
    )


def calls_key(calls: Sequence[ToolCall]) -> str:
    """A key that is equal for the same calls, whatever their ids and order."""
    return json.dumps(sorted(_call(each) for each in calls))


def calls_label(calls: Sequence[ToolCall]) -> str:
    """The calls as a reader writes them: `get_weather({"city":"Paris"})`."""
    return ", ".join(f"{name}({arguments})" for name, arguments in sorted(_call(each) for each in calls))


def are_valid(calls: Sequence[ToolCall], offered: Collection[str]) -> bool:
    """True if a client can run all of them: each names a tool that it offered, with a JSON object as arguments."""
    return all(
        name in offered and (kind == "custom" or _is_object(arguments))
        for kind, name, arguments in map(parts_of, calls)
    )


def _call(call: ToolCall) -> tuple[str, str]:
    kind, name, arguments = parts_of(call)
    if kind == "custom":
        name = f"custom {name}"
    if len(arguments) > MAX_JSON:
        return name, hashlib.sha256(arguments.encode("utf-8", "surrogatepass")).hexdigest()
    if kind == "custom":
        return name, arguments
    return name, canonical_text(arguments.strip() or "{}") or arguments


def parts_of(call: ToolCall) -> tuple[str, str, str]:
    """The type, the name and the arguments."""
    custom = call.get("custom")
    if isinstance(custom, dict):
        return "custom", str(custom.get("name") or ""), str(custom.get("input") or "")
    function = call.get("function") or {}
    return "function", str(function.get("name") or ""), str(function.get("arguments") or "")


def _is_object(arguments: str) -> bool:
    if len(arguments) > MAX_JSON:  # would take too long to check
        return True
    try:
        return isinstance(json.loads(arguments.strip() or "{}"), dict)
    except (ValueError, RecursionError):
        return False
