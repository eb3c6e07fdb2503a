"""Translates: tools, the choice among them, and web search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from proxy.providers.base.fields import Fields
from proxy.providers.base.json_schema import Subset, down_level
from proxy.providers.base.names import NameRule, ToolNames
from proxy.providers.base.names import names_of as names_by
from proxy.providers.base.tools import allowed_tools, chosen_name, function_of, only_once
from proxy.providers.google.models import Traits
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import BadRequest

_RULE = NameRule(64, "a-zA-Z0-9_.:-", first="a-zA-Z_")
# The documented schema subset of `parametersJsonSchema` and `responseJsonSchema`. Answers may have references without
# siblings or recursion; models refuse them in parameters.
JSON_SCHEMA = Subset(
    keywords=frozenset({"format", "title", "items", "prefixItems", "minItems", "maxItems", "minimum", "maximum"})
    | {"anyOf", "properties", "additionalProperties", "required", "propertyOrdering"},
    declared=True,
)
ANSWER_SCHEMA = replace(JSON_SCHEMA, refs=True)
_NATIVE = {
    "googleSearch": "googleSearch",
    "google_search": "googleSearch",
    "codeExecution": "codeExecution",
    "code_execution": "codeExecution",
    "urlContext": "urlContext",
    "url_context": "urlContext",
    "googleMaps": "googleMaps",
    "google_maps": "googleMaps",
    "computerUse": "computerUse",
    "computer_use": "computerUse",
    "fileSearch": "fileSearch",
    "file_search": "fileSearch",
}
_MODES = {"none": "NONE", "auto": "AUTO", "required": "ANY"}


def names_of(request: ChatRequest, defaults: Mapping[str, Any]) -> ToolNames:
    return names_by(request, defaults, _RULE)


def tool_fields(fields: Fields, traits: Traits) -> dict[str, Any]:
    """`tools` and `toolConfig`. Raises BadRequest for tools and choices that the vendor cannot express."""
    declared, native, strict = _declared(fields, traits)
    choice, parallel = fields.take("tool_choice"), fields.take("parallel_tool_calls")
    search = fields.take("web_search_options")
    config = fields.take("toolConfig", "tool_config")
    config = dict(config) if isinstance(config, dict) else {}
    if search is not None and declared and not traits.joins_tools:
        fields.drop("web_search_options")
    elif search is not None:
        native.setdefault("googleSearch", {})
        for name in search if isinstance(search, dict) else ():
            fields.drop(f"web_search_options.{name}")
    if declared:
        config |= _choice(choice, strict)
        if parallel is False:
            fields.drop("parallel_tool_calls")
        if native and traits.joins_tools:
            config.setdefault("includeServerSideToolInvocations", True)
    elif choice not in (None, "none", "auto"):
        fields.drop("tool_choice")
    tools = [{"functionDeclarations": declared}] if declared else []
    tools += [{name: options} for name, options in native.items()]
    return ({"tools": tools} if tools else {}) | ({"toolConfig": config} if config else {})


def _declared(fields: Fields, traits: Traits) -> tuple[list[dict[str, Any]], dict[str, Any], bool]:
    """Functions, the vendor's own tools by name, and whether calls must match their schemas."""
    functions: list[dict[str, Any]] = []
    native: dict[str, Any] = {}
    strict = False
    for place, tool in enumerate(fields.take("tools") or []):
        own = next((name for name in tool if name in _NATIVE), None)
        if tool.get("type") == "function":
            functions.append(_function(tool, f"tools.{place}", fields))
            wanted = tool["function"].get("strict") is True
            if wanted and not traits.validates_tools:
                fields.drop("tools.strict")
            strict = strict or (wanted and traits.validates_tools)
            if tool.get("cache_control") is not None:
                fields.drop("tools.cache_control")
        elif own is not None and isinstance(tool[own], dict):
            native[_NATIVE[own]] = tool[own]
        else:
            known = ", ".join(dict.fromkeys(_NATIVE.values()))
            message = f"{traits.model} accepts function tools and the provider's own ({known})."
            raise BadRequest(message, param=f"tools.{place}.type", code="unsupported_parameter")
    only_once([function["name"] for function in functions], "Google")
    return functions, native, strict


def _function(tool: dict[str, Any], where: str, fields: Fields) -> dict[str, Any]:
    function, name, parameters = function_of(tool, where)
    declared: dict[str, Any] = {"name": name}
    if isinstance(function.get("description"), str):
        declared["description"] = function["description"]
    if parameters is not None:
        levelled = down_level(parameters, JSON_SCHEMA, f"{where}.function.parameters")
        if levelled.changes:
            fields.adapt("tools.parameters")
        if not _says_nothing(levelled.schema):
            declared["parametersJsonSchema"] = levelled.schema
    return declared


def _says_nothing(schema: dict[str, Any]) -> bool:
    """True for an object without properties: some models refuse it, so it is left out."""
    return not any(schema.get(name) for name in ("properties", "anyOf", "additionalProperties", "items", "prefixItems"))


def _choice(choice: Any, strict: bool) -> dict[str, Any]:
    """The tool config. Names are allowed only with forced or validated calls."""
    mode, names = _wanted(choice)
    if mode == "AUTO" and (names or strict):
        mode = "VALIDATED"
    if choice is None and not strict:
        return {}
    config: dict[str, Any] = {"mode": mode}
    if names:
        config["allowedFunctionNames"] = names
    return {"functionCallingConfig": config}


def _wanted(choice: Any) -> tuple[str, list[str]]:
    if choice is None:
        return "AUTO", []
    if isinstance(choice, str) and choice in _MODES:
        return _MODES[choice], []
    if isinstance(choice, dict) and choice.get("type") == "function":
        return "ANY", [chosen_name(choice)]
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed, is_forced = allowed_tools({"allowed_tools": choice, **choice})  # or flat, as in the Responses API
        return "ANY" if is_forced else "AUTO", [chosen_name(tool) for tool in allowed]
    raise BadRequest("tool_choice: expected none, auto, required, a function, or allowed_tools.", param="tool_choice")
