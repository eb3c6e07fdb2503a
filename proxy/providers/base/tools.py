"""Translates: tools and the choice among them as OpenAI's clients write them, for vendors with other words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.schema.errors import BadRequest


def function_of(raw: Mapping[str, Any], where: str) -> tuple[dict[str, Any], str, dict[str, Any] | None]:
    """The function of a tool, its name and the schema of its parameters (None: it has none).

    Raises BadRequest for a function without a name, and for parameters that are no schema.
    """
    function = raw.get("function")
    name = tool_name(raw)
    if not isinstance(function, dict) or not name:
        raise BadRequest("A tool needs the name of its function.", param=f"{where}.function.name")
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise BadRequest("The parameters of a tool are a JSON schema.", param=f"{where}.function.parameters")
    return function, name, parameters


def called_function(call: Mapping[str, Any], where: str) -> str:
    """The name of the function that a tool call of the history names. Raises BadRequest where it names none."""
    name = tool_name(call)
    if not name:
        raise BadRequest("A tool call needs the name of its function.", param=f"{where}.function.name")
    return name


def needed_id(call: Mapping[str, Any], where: str) -> str:
    """The id of a tool call of the history. Raises BadRequest where it has none."""
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
    """The name of the function that a choice names. Raises BadRequest where it names none."""
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
