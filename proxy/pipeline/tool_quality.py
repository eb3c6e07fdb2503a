"""Translates: the tool calls of an answer, and the offered tools, into the number of broken calls.

Cheap on purpose, since it runs on every answer with tools: only the top level of a schema is checked. The count only
ranks deployments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from proxy.schema.json import decode

MAX_ARGUMENTS = 64 * 1024  # characters; longer ones are not checked
_MAX_CALLS = 64
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def judged(messages: Iterable[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """The number of tool calls, and of those with an unknown name, invalid JSON, or arguments that do not match."""
    calls = [call for message in messages for call in message.get("tool_calls") or ()][:_MAX_CALLS]
    if not calls:
        return 0, 0
    offered = {
        function.get("name"): function.get("parameters")
        for tool in tools
        if isinstance(tool, dict) and isinstance(function := tool.get("function"), dict)
    }
    return len(calls), sum(_is_broken(call.get("function"), offered) for call in calls)


def _is_broken(function: Any, offered: Mapping[Any, Any]) -> bool:
    if not isinstance(function, dict):
        return False  # a custom tool, whose input is free text
    if function.get("name") not in offered:
        return True
    arguments = function.get("arguments") or "{}"
    if len(arguments) > MAX_ARGUMENTS:
        return False
    try:
        values = decode(arguments)
    except (msgspec.DecodeError, RecursionError, UnicodeError, ValueError):
        return True
    schema = offered[function["name"]]
    if not isinstance(values, dict) or not isinstance(schema, dict):
        return not isinstance(values, dict)
    properties, required = schema.get("properties"), schema.get("required")
    if isinstance(required, list) and any(isinstance(name, str) and name not in values for name in required):
        return True
    if not isinstance(properties, dict):
        return False
    if schema.get("additionalProperties") is False and any(name not in properties for name in values):
        return True
    return any(not _has_type(value, properties.get(name)) for name, value in values.items())


def _has_type(value: Any, schema: Any) -> bool:
    kind = schema.get("type") if isinstance(schema, dict) else None
    wanted = _TYPES.get(kind) if isinstance(kind, str) else None
    if wanted is None:
        return True
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, wanted) or (kind == "integer" and isinstance(value, float) and value.is_integer())
