"""Translates: Anthropic's tools, tool choice and thinking into OpenAI's words."""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct, field

from proxy.schema.errors import BadRequest

_SEARCH = re.compile(r"web_search_\d{8}")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_SEARCH_OPTIONS = ("max_uses", "allowed_domains", "blocked_domains")
_PLACE = ("city", "country", "region", "timezone")
_FUNCTION = ("name", "description", "input_schema", "strict", "type", "cache_control")
_SILENT = ("eager_input_streaming",)  # only affects how the vendor streams: nothing is lost without it
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
# Token budgets and the efforts they correspond to, matching this proxy's conversion of efforts into budgets.
_EFFORTS = ((16_384, "max"), (8192, "xhigh"), (4096, "high"), (2048, "medium"), (0, "low"))
_KINDS = ("enabled", "disabled", "adaptive", "between_tools")
_LEVELS = ("low", "medium", "high", "xhigh", "max")


class Translated(Struct):
    """A body translated into OpenAI's fields. `lost`: fields that no other vendor has. `only_here`: path of a field ->
    the feature it requests, without which the answer would be different. `needed`: the same by the translated field.
    `loaded`: tools that the conversation has looked up or called. `places`: the position of each tool.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    lost: dict[str, None] = field(default_factory=dict)
    only_here: dict[str, str] = field(default_factory=dict)
    needed: dict[str, tuple[str, str]] = field(default_factory=dict)
    loaded: set[str] = field(default_factory=set)
    places: list[str] = field(default_factory=list)

    def lose(self, name: str) -> None:
        self.lost[name[:96]] = None


def add_tools(found: Translated, tools: list[dict[str, Any]], choice: dict[str, Any] | None) -> None:
    """Sets `tools`, `tool_choice`, `parallel_tool_calls` and `web_search_options`. Raises BadRequest.

    Models do not see deferred tools before a search has found them; one of them, a placeholder, cannot even be called.
    """
    made, names, searches = [], set(), []
    forced = choice.get("name") if choice is not None else None
    for place, tool in enumerate(tools):
        where, kind = f"tools.{place}", tool.get("type")
        if kind is None or kind == "custom":
            function = _function(found, tool, where)
            if tool.get("defer_loading") is not True or tool["name"] in found.loaded or tool["name"] == forced:
                made.append(function)
                found.places.append(where)
                names.add(tool["name"])
        elif not isinstance(kind, str):
            raise BadRequest("Expected a text.", param=f"{where}.type")
        elif _SEARCH.fullmatch(kind):
            found.fields["web_search_options"] = _search(tool, where)
            found.needed["web_search_options"] = (where, "web search")
            searches.append(tool.get("name"))
        else:
            made.append(tool)
            found.places.append(where)
            found.only_here[where] = f"tool of the type {kind[:64]!r}"
    if made:
        found.fields["tools"] = made
    if choice is not None and choice.get("type") == "tool" and choice.get("name") in searches:
        found.lose("tool_choice")  # there is no tool to force: the vendor searches when it needs to
    elif choice is not None:
        _choose(found, choice, names)


def _function(found: Translated, tool: dict[str, Any], where: str) -> dict[str, Any]:
    name, schema, description = tool.get("name"), tool.get("input_schema"), tool.get("description")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadRequest("Expected 1 to 128 letters, digits, `_` or `-`.", param=f"{where}.name")
    if not isinstance(schema, dict):
        raise BadRequest("Expected a JSON schema: an object.", param=f"{where}.input_schema")
    if description is not None and not isinstance(description, str):
        raise BadRequest("Expected a text.", param=f"{where}.description")
    function: dict[str, Any] = {"name": name, "parameters": schema}
    if description:
        function["description"] = description
    if isinstance(tool.get("strict"), bool):
        function["strict"] = tool["strict"]
    for other, value in tool.items():
        if other not in _FUNCTION and other not in _SILENT and value not in (None, False):
            found.lose(f"tools.{other}")
    made = {"type": "function", "function": function}
    return {**made, "cache_control": tool["cache_control"]} if tool.get("cache_control") is not None else made


def _search(tool: dict[str, Any], where: str) -> dict[str, Any]:
    options = {name: tool[name] for name in _SEARCH_OPTIONS if tool.get(name) is not None}
    place = tool.get("user_location")
    if place is not None and not isinstance(place, dict):
        raise BadRequest("Expected an object.", param=f"{where}.user_location")
    if place:
        known = {name: place[name] for name in _PLACE if isinstance(place.get(name), str)}
        options["user_location"] = {"type": "approximate", "approximate": known}
    return options


def _choose(found: Translated, choice: dict[str, Any], names: set[str]) -> None:
    kind, name = choice.get("type"), choice.get("name")
    if choice.get("disable_parallel_tool_use") is True and kind != "none":
        found.fields["parallel_tool_calls"] = False
    if isinstance(kind, str) and kind in _CHOICES:
        if names or kind != "auto":
            found.fields["tool_choice"] = _CHOICES[kind]
    elif kind != "tool":
        raise BadRequest("Expected auto, any, tool or none.", param="tool_choice.type")
    elif not isinstance(name, str):
        raise BadRequest("Expected the name of a tool.", param="tool_choice.name")
    elif name in names:
        found.fields["tool_choice"] = {"type": "function", "function": {"name": name}}
    else:  # perhaps one of the vendor's own
        found.only_here["tool_choice"] = f"client tool {name[:64]!r} that could be forced"


def add_thinking(found: Translated, thinking: dict[str, Any] | None, output: dict[str, Any]) -> None:
    """Sets `reasoning_effort`. Raises BadRequest."""
    effort = output.get("effort")
    if effort is not None and effort not in _LEVELS:
        raise BadRequest(f"Expected one of {', '.join(_LEVELS)}.", param="output_config.effort")
    if thinking is None:
        if effort is not None:
            found.fields["reasoning_effort"] = effort
        return
    kind, budget = thinking.get("type"), thinking.get("budget_tokens")
    if kind not in _KINDS:
        raise BadRequest(f"Expected one of {', '.join(_KINDS)}.", param="thinking.type")
    if kind == "disabled":
        effort = "none"
    elif kind == "enabled":
        if isinstance(budget, bool) or not isinstance(budget, int) or budget < 0:
            raise BadRequest("Expected a number of tokens.", param="thinking.budget_tokens")
        effort = effort or next(level for least, level in _EFFORTS if budget >= least)
    found.fields["reasoning_effort"] = effort or "medium"


def add_format(found: Translated, form: object, where: str) -> None:
    """Sets `response_format`. Raises BadRequest."""
    if form is None:
        return
    if not isinstance(form, dict) or form.get("type") != "json_schema" or not isinstance(form.get("schema"), dict):
        raise BadRequest("Expected an object {type: json_schema, schema}.", param=where)
    schema = {"name": "answer", "schema": form["schema"], "strict": True}
    found.fields["response_format"] = {"type": "json_schema", "json_schema": schema}
