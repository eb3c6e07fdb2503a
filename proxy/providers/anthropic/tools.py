"""Translates: tools, tool choices, and the schemas of arguments."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

from msgspec import Struct, field

from proxy.providers.anthropic.media import cache_mark
from proxy.providers.anthropic.models import Traits
from proxy.providers.anthropic.names import WEB_SEARCH, Names, is_native
from proxy.providers.base.answers import listed, mapping, text
from proxy.providers.base.fields import Fields
from proxy.providers.base.json_schema import Subset, down_level
from proxy.providers.base.tools import allowed_tools, chosen_name, function_of, only_once
from proxy.schema.errors import BadRequest

_SEARCH_TYPE = "web_search_20250305"  # the one that every served model has
_PLACE = ("city", "country", "region", "timezone")
_OPTIONS = ("eager_input_streaming", "defer_loading", "allowed_callers", "input_examples")
AT_TOP = ("anyOf", "oneOf", "allOf")  # refused at the top of `input_schema`
# The schema subset of `output_config.format` and strict tools (the SDK's own transformation, and the vendor's guide).
# The guide lists `$ref` as accepted and recursion as refused.
SUBSET = Subset(
    keywords=frozenset({"properties", "required", "items", "anyOf", "allOf", "const", "title", "format", "minItems"})
    | {"additionalProperties"},
    refs=True,
    closed=True,
    declared=True,
    formats=frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}),
    limits={"minItems": frozenset({0, 1})},
)
_INLINED = Subset(
    keywords=SUBSET.keywords
    | {"oneOf", "default", "examples", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
    | {"multipleOf", "minLength", "maxLength", "maxItems", "uniqueItems", "prefixItems", "patternProperties", "not"}
)


class Tools(Struct):
    """`choice`: auto, any, none, or the vendor's name of the tool that must be called; None if the client set none.
    `functions`: the number of the client's own tools. `instruction`: replaces a choice that the model does not support.
    """

    tools: list[dict[str, Any]] = field(default_factory=list)
    functions: int = 0
    choice: str | None = None
    by_name: bool = False
    parallel: bool = True
    instruction: str | None = None

    @property
    def is_forced(self) -> bool:
        return self.by_name or self.choice == "any"

    def force(self, name: str | None) -> None:
        """Requires a call of the tool with this name, or of any tool."""
        self.choice, self.by_name = name or "any", name is not None

    def body(self) -> dict[str, Any]:
        """The fields of the request."""
        if not self.tools:
            return {}
        choice: dict[str, Any] = {"type": self.choice or "auto"}
        if self.by_name:
            choice = {"type": "tool", "name": self.choice}
        if not self.parallel and (self.by_name or self.choice != "none"):
            choice["disable_parallel_tool_use"] = True
        said = self.choice is not None or not self.parallel
        return {"tools": self.tools, **({"tool_choice": choice} if said else {})}


def tools_of(fields: Fields, traits: Traits, names: Names) -> Tools:
    """The tools and the choice. Raises BadRequest for those that the vendor cannot express."""
    found = Tools()
    for place, raw in enumerate(fields.take("tools") or []):
        if is_native(raw):
            found.tools.append(dict(raw))
        else:
            found.tools.append(_function(raw, f"tools.{place}", (fields, traits, names)))
            found.functions += 1
    only_once([text(tool.get("name")) for tool in found.tools if "input_schema" in tool], "Anthropic")
    search = fields.take("web_search_options")
    if search is not None:
        found.tools.append(_search(search, fields))
    choice, parallel = fields.take("tool_choice"), fields.take("parallel_tool_calls")
    if not found.tools:
        if choice not in (None, "none", "auto"):
            fields.drop("tool_choice")
        return found
    found.parallel = parallel is not False
    _choose(found, choice, names, fields)
    if found.is_forced and not traits.forces_tools:
        fields.adapt("tool_choice")
        called = f"the tool {found.choice}" if found.by_name else "one of the tools"
        found.instruction = f"Call {called} now: an answer without that call cannot be used."
        found.choice, found.by_name = "auto", False
    return found


def stand_in(names: list[str]) -> Tools:
    """Declarations for tools that the history calls and the request omits; the vendor requires them. None of them can
    be called.
    """
    tools = [{"name": name, "input_schema": {"type": "object", "properties": {}}} for name in dict.fromkeys(names)]
    return Tools(tools, choice="none")


# --- tools ------------------------------------------------------------------------------------------------------------


def _function(raw: Mapping[str, Any], where: str, context: tuple[Fields, Traits, Names]) -> dict[str, Any]:
    fields, traits, names = context
    if raw.get("type", "function") != "function":
        message = f"Anthropic supports function tools and its own dated ones, not {str(raw.get('type'))[:64]!r}."
        raise BadRequest(message, param=f"{where}.type", code="unsupported_parameter")
    function, name, parameters = function_of(raw, where)
    tool: dict[str, Any] = {"name": names.sent(name)}
    if isinstance(function.get("description"), str) and function["description"]:
        tool["description"] = function["description"]
    is_strict = function.get("strict") is True
    keys = names.keys_of(name)
    tool["input_schema"] = keys.schema(_input_schema(parameters or {}, is_strict and traits.formats, where, fields))
    if is_strict and traits.formats:
        tool["strict"] = True
    elif is_strict:
        fields.drop("tools.strict")
    tool |= {option: raw[option] for option in _OPTIONS if raw.get(option) is not None}
    if "input_examples" in tool:
        tool["input_examples"] = keys.sent(tool["input_examples"])
    mark = cache_mark({**function, **raw}, fields)
    return {**tool, "cache_control": mark} if mark is not None else tool


def _input_schema(given: dict[str, Any], strict: bool, where: str, fields: Fields) -> dict[str, Any]:
    """An object schema in the form that the vendor requires: with properties, and without alternatives at the top."""
    at = f"{where}.function.parameters"
    schema = given
    if "$ref" in schema or any(name in schema for name in AT_TOP):
        schema = _flat(schema, at)
        fields.adapt("tools.parameters")
    if strict:
        levelled = down_level({"type": "object", "properties": {}, **schema}, SUBSET, at)
        if levelled.changes:
            fields.adapt("tools.parameters")
        schema = levelled.schema
    if schema.get("type", "object") != "object":
        fields.adapt("tools.parameters")
    whole = {**schema, "type": "object"}
    if not isinstance(whole.get("properties"), dict):
        whole["properties"] = {}
    if not whole.get("required", True):
        del whole["required"]  # an empty list is refused
    return whole


def _flat(schema: dict[str, Any], where: str) -> dict[str, Any]:
    """One object schema for alternatives: the properties of all of them; required are those that all require."""
    inlined = down_level(schema, _INLINED, where).schema
    branches = {name: listed(inlined.get(name)) for name in AT_TOP}
    properties = _properties(inlined)
    for branch in chain.from_iterable(branches.values()):
        for name, value in _properties(branch).items():
            properties.setdefault(name, value)
    required = _required(inlined).union(*map(_required, branches["allOf"]))
    for name in ("anyOf", "oneOf"):
        if branches[name]:
            required |= set.intersection(*map(_required, branches[name]))
    flat = {name: value for name, value in inlined.items() if name not in (*AT_TOP, "required")}
    flat |= {"type": "object", "properties": properties}
    return flat | ({"required": [name for name in properties if name in required]} if required else {})


def _properties(schema: object) -> dict[str, Any]:
    return dict(mapping(mapping(schema).get("properties")))


def _required(schema: object) -> set[str]:
    return {name for name in listed(mapping(schema).get("required")) if isinstance(name, str)}


def _search(options: Any, fields: Fields) -> dict[str, Any]:
    tool: dict[str, Any] = {"type": _SEARCH_TYPE, "name": WEB_SEARCH}
    given = options if isinstance(options, dict) else {}
    for name, value in given.items():
        if name == "user_location" and isinstance(value, dict):
            place = value.get("approximate")
            place = place if isinstance(place, dict) else value
            known = {each: place[each] for each in _PLACE if isinstance(place.get(each), str)}
            tool["user_location"] = {"type": "approximate", **known}
        elif name in ("max_uses", "allowed_domains", "blocked_domains") and value is not None:
            tool[name] = value
        elif value is not None:
            fields.drop(f"web_search_options.{name}"[:96])
    return tool


# --- the choice -------------------------------------------------------------------------------------------------------


def _choose(found: Tools, choice: Any, names: Names, fields: Fields) -> None:
    if choice is None:
        return
    if isinstance(choice, str) and choice in ("none", "auto"):
        found.choice = choice
    elif choice in ("required", "any"):
        found.force(None)
    elif isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        _narrow(found, choice, names, fields)
    elif isinstance(choice, dict) and "function" in choice:
        found.force(_declared([choice], found, names)[0])
    else:
        message = "tool_choice: expected auto, none, required, a function or allowed_tools."
        raise BadRequest(message, param="tool_choice")


def _narrow(found: Tools, choice: Mapping[str, Any], names: Names, fields: Fields) -> None:
    """`allowed_tools`: sends only those tools, with its mode as the choice."""
    allowed, is_forced = allowed_tools(choice)
    if not allowed:
        raise BadRequest("A choice of allowed_tools needs at least one tool.", param="tool_choice.allowed_tools")
    wanted = set(_declared(allowed, found, names))
    if len(wanted) < len(found.tools):
        fields.adapt("tool_choice")  # the model does not see the others at all
    found.tools = [tool for tool in found.tools if text(tool.get("name")) in wanted]
    found.choice = "any" if is_forced else "auto"


def _declared(choices: list[Any], found: Tools, names: Names) -> list[str]:
    """The vendor's names of the tools that `choices` name. Raises BadRequest for a name that is not among the tools."""
    declared = {text(tool.get("name")) for tool in found.tools}
    sent = []
    for choice in choices:
        name = chosen_name(choice)
        sent.append(names.sent(name))
        if sent[-1] not in declared:
            raise BadRequest(f"tool_choice names {name[:64]!r}, which is not among the tools.", param="tool_choice")
    return sent
