"""Translates: OpenAI's tools and tool_choice into Cohere's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.providers.base.fields import Fields
from proxy.providers.base.names import NameRule, ToolNames
from proxy.providers.base.names import names_of as names_by
from proxy.providers.base.tools import allowed_tools, chosen_name, function_of
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import BadRequest

_RULE = NameRule(64, "a-zA-Z0-9_", first="a-zA-Z_")  # the vendor's API reference
MAX_STRICT_FIELDS = 200  # over all tools (the vendor's guide to structured outputs)
_FIELDS = ("type", "function", "name", "description", "parameters", "strict")
_NO_PARAMETERS = {"type": "object", "properties": {}}
_CHOICES = {"none": "NONE", "required": "REQUIRED", "any": "REQUIRED", "NONE": "NONE", "REQUIRED": "REQUIRED"}


def names_of(request: ChatRequest, defaults: Mapping[str, Any]) -> ToolNames:
    return names_by(request, defaults, _RULE)


def tool_fields(fields: Fields) -> dict[str, Any]:
    """`tools`, `tool_choice` and `strict_tools` in the vendor's form. Raises BadRequest for an invalid tool."""
    given, choice = fields.take("tools"), fields.take("tool_choice")
    strict_tools = fields.take("strict_tools")
    if not given:
        if choice not in (None, "none", "auto"):
            fields.drop("tool_choice")
        return {}
    tools = [_tool(raw, f"tools.{place}", fields) for place, raw in enumerate(given)]
    allowed, said = _choice(choice)
    if allowed is not None:
        known = {tool["function"]["name"] for tool in tools}
        missing = next((name for name in allowed if name not in known), None)
        if missing is not None:
            raise BadRequest(f"tool_choice names {missing[:64]!r}, which is not in `tools`.", param="tool_choice")
        if len(allowed) < len(tools) or said == "REQUIRED":
            fields.adapt("tool_choice")  # the model does not see the others at all
        tools = [tool for tool in tools if tool["function"]["name"] in allowed]
    found: dict[str, Any] = {"tools": tools}
    if _is_strict(given, tools, fields) or strict_tools is True:
        found["strict_tools"] = True
    if said is not None:
        found["tool_choice"] = said
    return found


def _tool(raw: Any, where: str, fields: Fields) -> dict[str, Any]:
    if raw.get("type", "function") != "function":
        message = f"Cohere supports only function tools, not {str(raw.get('type'))[:64]!r}."
        raise BadRequest(message, param=f"{where}.type", code="unsupported_parameter")
    function, name, parameters = function_of(raw, where)
    for key, value in [*raw.items(), *function.items()]:
        if value is not None and key not in _FIELDS:
            fields.drop(f"tools.{key}")
    built: dict[str, Any] = {"name": name}
    if isinstance(function.get("description"), str):
        built["description"] = function["description"]
    return {"type": "function", "function": built | {"parameters": parameters or _NO_PARAMETERS}}


def _choice(choice: Any) -> tuple[dict[str, None] | None, str | None]:
    """The names of the tools that may be called (None: all), and the vendor's word for whether one must be."""
    if choice is None or choice == "auto":
        return None, None
    if isinstance(choice, str) and choice in _CHOICES:
        return None, _CHOICES[choice]
    if isinstance(choice, dict):
        if choice.get("type") == "allowed_tools":
            allowed, is_forced = allowed_tools(choice)
            if allowed:
                return {chosen_name(each): None for each in allowed}, "REQUIRED" if is_forced else None
        elif "function" in choice:
            return {chosen_name(choice): None}, "REQUIRED"
    raise BadRequest("tool_choice: expected auto, none, required, a function or allowed_tools.", param="tool_choice")


def _is_strict(given: list[Any], tools: list[dict[str, Any]], fields: Fields) -> bool:
    """True if the tools are sent as strict. The vendor is strict about all or none, and each must require a field."""
    strict = [raw["function"].get("strict") is True for raw in given]
    if not any(strict):
        return False
    schemas = [tool["function"]["parameters"] for tool in tools]
    count = sum(_fields_in(schema) for schema in schemas)
    if all(strict) and all(schema.get("required") for schema in schemas) and count <= MAX_STRICT_FIELDS:
        return True
    fields.drop("tools.strict")
    return False


def _fields_in(schema: Any) -> int:
    """The number of properties in a schema, at any depth."""
    if isinstance(schema, list):
        return sum(map(_fields_in, schema))
    if not isinstance(schema, dict):
        return 0
    properties = schema.get("properties")
    own = len(properties) if isinstance(properties, dict) else 0
    return own + sum(map(_fields_in, schema.values()))
