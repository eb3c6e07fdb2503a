"""Translates: tools and tool choices as OpenAI's clients write them, for vendors with other formats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.providers.base.answers import objects
from proxy.schema.errors import BadRequest

_WORDS = ("auto", "none", "required")
_FLAT = ("name", "description", "parameters", "strict")


def plain_request(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with tools and choice in OpenAI's nested form, each tool once, and without empty lists, which mean
    nothing and which servers refuse.
    """
    plain = dict(fields)
    for name in ("tools", "functions", "stop"):
        if plain.get(name) in ([], ""):
            del plain[name]
    if fields.get("functions") == [] and plain.get("function_call") in ("none", "auto"):
        del plain["function_call"]
    if fields.get("tools") == [] and plain.get("tool_choice") in (None, "none", "auto"):
        plain.pop("tool_choice", None)
        plain.pop("parallel_tool_calls", None)
    if isinstance(plain.get("tools"), list):
        plain["tools"] = plain_tools(plain["tools"])
    if isinstance(plain.get("tool_choice"), dict) and plain["tool_choice"].get("disable_parallel_tool_use") is True:
        plain.setdefault("parallel_tool_calls", False)
    if plain.get("tool_choice") is not None:
        plain["tool_choice"] = plain_choice(plain["tool_choice"])
    messages = objects(plain.get("messages"))
    if any(message.get("tool_calls") == [] for message in messages):
        plain["messages"] = [
            {name: value for name, value in message.items() if name != "tool_calls" or value != []}
            for message in messages
        ]
    return plain


def plain_tools(tools: object) -> list[Any]:
    """Tools in the nested form. Clients also write them flat, as the Responses API and Anthropic have them. A function
    that is declared twice identically is sent once.
    """
    found: list[Any] = []
    place_of: dict[str, int] = {}
    for tool in tools if isinstance(tools, list) else []:
        tool = _nested(tool)
        name = tool_name(tool)
        place = place_of.get(name) if name is not None else None
        if place is not None and found[place]["function"] == tool["function"]:
            found[place] = {**tool, **found[place]}
            continue
        if name is not None:
            place_of.setdefault(name, len(found))
        found.append(tool)
    return found


def _nested(tool: Any) -> Any:
    if not isinstance(tool, dict):
        return tool
    kind = tool.get("type")
    if isinstance(tool.get("function"), dict):
        return tool if kind is not None else {"type": "function", **tool}
    is_flat = isinstance(tool.get("name"), str) and (
        kind == "function" or "input_schema" in tool or (kind is None and "parameters" in tool)
    )
    if not is_flat or kind not in (None, "function", "custom"):
        return tool
    function = {name: tool[name] for name in _FLAT if tool.get(name) is not None}
    if "input_schema" in tool:
        function["parameters"] = tool["input_schema"]
    beside = {name: value for name, value in tool.items() if name not in ("type", "input_schema", *_FLAT)}
    return {"type": "function", "function": function, **beside}


def plain_choice(choice: Any) -> Any:
    """A choice in OpenAI's form: `{"type": "auto"}` becomes the word, and a name beside the type is that of a
    function.
    """
    if choice == "any":
        return "required"
    if not isinstance(choice, dict):
        return choice
    kind, name = choice.get("type"), choice.get("name")
    if kind in _WORDS or kind == "any":
        return "required" if kind == "any" else kind
    if kind == "allowed_tools" and isinstance(choice.get("tools"), list) and "allowed_tools" not in choice:
        inner = {"mode": choice.get("mode", "auto"), "tools": choice["tools"]}
        choice = {"type": kind, "allowed_tools": inner}
    if kind == "allowed_tools":
        inner = choice.get("allowed_tools")
        if isinstance(inner, dict) and isinstance(inner.get("tools"), list):
            named = [plain_choice(each) for each in inner["tools"]]
            return {**choice, "allowed_tools": {**inner, "tools": named}}
        return choice
    if kind in (None, "function", "tool") and isinstance(name, str) and "function" not in choice:
        return {"type": "function", "function": {"name": name}}
    return {"type": "function", **choice} if kind is None and tool_name(choice) else choice


def only_once(names: list[str], vendor: str) -> None:
    """Raises BadRequest for two different tools of one name, which the vendor refuses."""
    seen: set[str] = set()
    for place, name in enumerate(names):
        if name in seen:
            message = (
                f"{vendor} accepts one tool per name, and two different ones are called {name[:64]!r}. Rename one."
            )
            raise BadRequest(message, param=f"tools.{place}.function.name")
        seen.add(name)


def function_of(raw: Mapping[str, Any], where: str) -> tuple[dict[str, Any], str, dict[str, Any] | None]:
    """The function of a tool, its name and the schema of its parameters (None: it has none).

    Raises BadRequest for a function without a name, and for parameters that are not a schema.
    """
    function = raw.get("function")
    name = tool_name(raw)
    if not isinstance(function, dict) or not name:
        raise BadRequest("A tool needs the name of its function.", param=f"{where}.function.name")
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise BadRequest("The parameters of a tool must be a JSON schema.", param=f"{where}.function.parameters")
    return function, name, parameters


def called_function(call: Mapping[str, Any], where: str) -> str:
    """The name of the function that a tool call of the history names. Raises BadRequest where it names none."""
    name = tool_name(call)
    if not name:
        raise BadRequest("A tool call needs the name of its function.", param=f"{where}.function.name")
    return name


def needed_id(call: Mapping[str, Any], where: str) -> str:
    """The id of a tool call of the history. Raises BadRequest if it has none."""
    given = call.get("id")
    if not isinstance(given, str) or not given:
        raise BadRequest("A tool call needs an id.", param=f"{where}.id")
    return given


def tool_name(tool: object) -> str | None:
    """The name of the function in a tool, a tool call or a tool choice."""
    function = tool.get("function") if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def chosen_name(choice: object) -> str:
    """The name of the function that a choice names. Raises BadRequest if it names none."""
    name = tool_name(choice)
    if not name:
        raise BadRequest("tool_choice: a function needs its name.", param="tool_choice.function.name")
    return name


def allowed_tools(choice: Mapping[str, Any]) -> tuple[list[Any], bool]:
    """The tools in a choice of type `allowed_tools`, and whether one of them must be called.

    Raises BadRequest for a choice without a list of tools.
    """
    allowed = choice.get("allowed_tools")
    if not isinstance(allowed, dict) or not isinstance(allowed.get("tools"), list):
        raise BadRequest("A choice of allowed_tools needs `allowed_tools.tools`.", param="tool_choice.allowed_tools")
    return allowed["tools"], allowed.get("mode") == "required"
