"""Translates: the tools of a Responses request into functions, and the names of their calls back.

A `namespace` groups functions: each gets a name of its own, `group__function`. A custom tool takes free text: it
becomes a function with one text, `input`. Coding agents offer the vendor's own (hosted) tools beside functions,
for any model: those are left out. If nothing else is offered, or one is demanded, a web search becomes a chat's web
search, and the others work only with the vendor.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from proxy.providers.base.answers import json_or_none, mapping
from proxy.schema.errors import BadRequest
from proxy.schema.json import encode

_FUNCTION = ("name", "description", "parameters", "strict")
_MARKS = ("cache_control",)
_WORDS = ("auto", "none", "required")
_SEARCH = "web_search"
# Tools that the client runs itself; the others run at the vendor.
OF_CLIENTS = (
    *("function", "custom", "namespace", "local_shell", "shell", "apply_patch", "computer", "computer_use_preview"),
    "tool_search",
)
INPUT = "input"  # the one argument of a custom tool
_FREE = {
    "type": "object",
    "properties": {INPUT: {"type": "string"}},
    "required": [INPUT],
    "additionalProperties": False,
}


class Named(Struct, frozen=True):
    """The tool that a function represents: a function of the client or a custom tool, and its group."""

    name: str
    namespace: str | None = None
    is_custom: bool = False


class Tools(Struct):
    """`functions` in the shape of chats; `places`: the position of each; `names`: the tool that each represents.
    `search`: options of a web search. `left_out`: fields that are not translated. `fetches`: a tool runs at the vendor.
    `only_here`: the place of a tool without which the request makes no sense -> its description.
    """

    functions: list[dict[str, Any]] = field(default_factory=list)
    names: dict[str, Named] = field(default_factory=dict)
    search: dict[str, Any] | None = None
    choice: Any = None
    left_out: list[str] = field(default_factory=list)
    fetches: bool = False
    only_here: dict[str, str] = field(default_factory=dict)
    sent: dict[Named, str] = field(default_factory=dict)
    places: list[str] = field(default_factory=list)

    def name_of(self, name: str, namespace: str | None, *, is_custom: bool) -> str:
        """The function's name for a tool of the client, also for one that is only in the history."""
        named = Named(name, namespace, is_custom)
        if (known := self.sent.get(named)) is not None:
            return known
        start = wanted = name if namespace is None else f"{namespace}__{name}"
        count = 2
        while wanted in self.names:
            wanted, count = f"{start}_{count}", count + 1
        self.names[wanted], self.sent[named] = named, wanted
        return wanted


def tools_of(given: list[Any] | None, choice: Any) -> Tools:
    """The translated tools. Raises BadRequest for an invalid tool, and for a choice that names none."""
    tools = Tools()
    hosted: dict[str, tuple[int, dict[str, Any]]] = {}
    for place, tool in enumerate(given or []):
        kind = _add(tools, tool, f"tools.{place}")
        if kind is not None:
            hosted.setdefault(kind, (place, tool))
    demanded = choice.get("type") if isinstance(choice, dict) else None
    if isinstance(demanded, str) and demanded.startswith(_SEARCH):  # with or without a date
        demanded = next((kind for kind in hosted if kind.startswith(_SEARCH)), demanded)
    for kind, (place, tool) in hosted.items():
        tools.fetches = tools.fetches or kind not in OF_CLIENTS
        if tools.functions and kind != demanded:
            tools.left_out.append(f"tools.{kind}"[:96])
        elif kind.startswith(_SEARCH) and tool.get("external_web_access") is not False:
            tools.search = _search(tool)
        else:
            tools.only_here[f"tools.{place}.type"] = f"tool of the type {kind[:64]!r}"
    if isinstance(demanded, str) and demanded in hosted:
        tools.left_out += [] if tools.only_here else ["tool_choice"]
    else:
        tools.choice = _choice(tools, choice)
    return tools


def load(tools: Tools, found: list[dict[str, Any]], where: str) -> None:
    """Adds the tools that a search has found; the vendor's own ones among them stay its own."""
    known = {each["function"]["name"] for each in tools.functions}
    loaded = Tools(names=tools.names, sent=tools.sent)
    for place, tool in enumerate(found):
        _add(loaded, tool, f"{where}.{place}")
    for function, at in zip(loaded.functions, loaded.places, strict=True):
        if function["function"]["name"] not in known:
            tools.functions.append(function)
            tools.places.append(at)


def _add(tools: Tools, tool: Any, where: str) -> str | None:
    """Adds a tool of the client. Returns the type of one that is the vendor's own."""
    if not isinstance(tool, dict):
        raise BadRequest(f"{where}: expected an object.", param=where)
    kind = tool.get("type", "function")
    if not isinstance(kind, str) or not kind:
        raise BadRequest(f"{where}.type: expected a text, such as `function`.", param=f"{where}.type")
    if kind == "namespace":
        _add_group(tools, tool, where)
    elif kind in ("function", "custom"):
        _add_own(tools, tool, where, None)
    else:
        return kind
    return None


def _add_group(tools: Tools, group: dict[str, Any], where: str) -> None:
    name, members = group.get("name"), group.get("tools")
    if not isinstance(name, str) or not name:
        raise BadRequest("A namespace needs a name.", param=f"{where}.name")
    if not isinstance(members, list):
        raise BadRequest("A namespace needs a list of tools.", param=f"{where}.tools")
    for place, tool in enumerate(members):
        at = f"{where}.tools.{place}"
        if not isinstance(tool, dict) or tool.get("type", "function") not in ("function", "custom"):
            raise BadRequest("A namespace holds tools of type `function` and `custom`.", param=f"{at}.type")
        _add_own(tools, tool, at, name)


def _add_own(tools: Tools, tool: dict[str, Any], where: str, namespace: str | None) -> None:
    """A function, flat or nested, or a custom tool."""
    kind = tool.get("type", "function")
    inner = tool.get(kind)
    given: dict[str, Any] = inner if isinstance(inner, dict) else tool
    name = given.get("name")
    if not isinstance(name, str) or not name:
        raise BadRequest(f"A tool of type {kind!r} needs a name.", param=f"{where}.name")
    if not isinstance(given.get("parameters"), dict | None):
        raise BadRequest("The parameters of a tool must be a JSON schema.", param=f"{where}.parameters")
    sent = tools.name_of(name, namespace, is_custom=kind == "custom")
    if kind == "custom":
        function = _free(given)
        tools.left_out += ["tools.format"] if mapping(given.get("format")).get("type") == "grammar" else []
    else:
        function = {each: given[each] for each in _FUNCTION if given.get(each) is not None}
    if tool.get("defer_loading") is True and "tools.defer_loading" not in tools.left_out:
        tools.left_out.append("tools.defer_loading")  # every tool is shown from the start, so none is searched for
    marks = {each: tool[each] for each in _MARKS if tool.get(each) is not None}
    tools.functions.append({"type": "function", "function": {**function, "name": sent}, **marks})
    tools.places.append(where)


def _free(tool: dict[str, Any]) -> dict[str, Any]:
    """A function for a custom tool. A grammar goes into its description, because only its own vendor enforces one."""
    told = [tool["description"]] if isinstance(tool.get("description"), str) else []
    form = mapping(tool.get("format"))
    if form.get("type") == "grammar":
        told.append(f"`{INPUT}` follows this {form.get('syntax', 'lark')} grammar:\n{form.get('definition', '')}")
    return {"description": "\n\n".join(told), "parameters": _FREE}


def _search(tool: dict[str, Any]) -> dict[str, Any]:
    """Its options as `web_search_options` of a chat."""
    options = {name: tool[name] for name in ("search_context_size",) if tool.get(name) is not None}
    place, filters = tool.get("user_location"), mapping(tool.get("filters"))
    if isinstance(place, dict):
        known = {name: value for name, value in place.items() if name != "type" and value is not None}
        options["user_location"] = {"type": "approximate", "approximate": known}
    return options | {name: filters[name] for name in ("allowed_domains", "blocked_domains") if filters.get(name)}


# --- the choice -------------------------------------------------------------------------------------------------------


def _choice(tools: Tools, choice: Any) -> Any:
    if not isinstance(choice, dict):
        if choice is not None and choice not in _WORDS:
            raise BadRequest(f"tool_choice: expected one of {', '.join(_WORDS)}, or a tool.", param="tool_choice")
        return choice if tools.functions or choice == "required" else None
    kind = choice.get("type")
    if kind in _WORDS:
        return kind
    if kind == "allowed_tools":
        inner = mapping(choice.get("allowed_tools")) or choice
        allowed = inner.get("tools")
        if not isinstance(allowed, list):
            raise BadRequest("A choice of allowed_tools needs a list of tools.", param="tool_choice.tools")
        named = [_chosen(tools, each) for each in allowed if mapping(each).get("type") in ("function", "custom")]
        mode = "required" if inner.get("mode") == "required" else "auto"
        return {"type": kind, "allowed_tools": {"mode": mode, "tools": named}} if named else None
    return _chosen(tools, choice)


def _chosen(tools: Tools, choice: dict[str, Any]) -> dict[str, Any]:
    kind = choice.get("type", "function")
    inner = choice.get(kind) if isinstance(kind, str) else None
    given = inner if isinstance(inner, dict) else choice
    name, namespace = given.get("name"), given.get("namespace")
    fits = [each for each, sent in tools.sent.items() if each.name == name and namespace in (None, each.namespace)]
    if kind not in ("function", "custom", "tool") or not fits:
        message = f"tool_choice names {str(name or kind)[:64]!r}, which is not among the tools."
        raise BadRequest(message, param="tool_choice")
    return {"type": "function", "function": {"name": tools.sent[fits[0]]}}


# --- calls ------------------------------------------------------------------------------------------------------------


def free_input(arguments: str) -> str:
    """The input of a custom tool in the arguments of its function; the arguments unchanged if there is none."""
    value = json_or_none(arguments)
    text = value.get(INPUT) if isinstance(value, dict) else None
    return text if isinstance(text, str) else arguments


def free_arguments(text: str) -> str:
    """The arguments of a custom tool's function."""
    return encode({INPUT: text}).decode()
