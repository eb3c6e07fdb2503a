"""Translates: tool names into names that the vendor accepts, and back. The mapping depends only on the request, so the
builder of the request and the reader of the answer compute the same one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from proxy.providers.base.answers import mapping, objects
from proxy.providers.base.tools import tool_name

MAX_NAME = 128
WEB_SEARCH = "web_search"
_JSON_TOOL = "json_tool_call"
_RIGHT = re.compile(rf"[a-zA-Z0-9_-]{{1,{MAX_NAME}}}")
_WRONG = re.compile(r"[^a-zA-Z0-9_-]")
_NATIVE = re.compile(r"[a-z][a-z0-9_]*_\d{8}|mcp_toolset|tool_search_tool_(?:bm25|regex)")


def is_native(tool: Mapping[str, Any]) -> bool:
    """True for one of the vendor's own tools. Most of their types are dated, such as `web_search_20250305`."""
    kind = tool.get("type")
    return isinstance(kind, str) and _NATIVE.fullmatch(kind) is not None


class Names:
    """The tool names of one request. `fields`: its body, over the provider's defaults.

    Names that the vendor accepts stay unchanged. `json_tool` is a name that no tool of the request has; `json_fields`
    are the properties of the requested JSON answer.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        tools = objects(fields.get("tools"))
        native = {name for tool in tools if is_native(tool) and isinstance(name := tool.get("name"), str)}
        reserved = native | ({WEB_SEARCH} if fields.get("web_search_options") is not None else set())
        calls = [call for message in objects(fields.get("messages")) for call in objects(message.get("tool_calls"))]
        # The client runs some of the vendor's own tools: their calls stand in its history.
        called = (name for name in _function_names(calls) if name not in native)
        given = list(dict.fromkeys([*_function_names(tools), *called]))
        self._sent = {name: name for name in given if _RIGHT.fullmatch(name) and name not in reserved}
        free = FreeNames(reserved | set(self._sent), MAX_NAME)
        for name in given:
            if name not in self._sent:
                self._sent[name] = free.take(_WRONG.sub("_", name) or "_")
        self._given = {sent: name for name, sent in self._sent.items()}
        self.json_tool = free.take(_JSON_TOOL)
        self.json_fields = _json_fields(fields.get("response_format"))

    def sent(self, name: str) -> str:
        """The vendor's name for one of the client's."""
        return self._sent.get(name, name)

    def given(self, name: str) -> str:
        """The client's name for one of the vendor's."""
        return self._given.get(name, name)


class FreeNames:
    """Hands out each name once; a name that is taken gets a numeric suffix. `longest`: characters, suffix included."""

    def __init__(self, taken: set[str], longest: int) -> None:
        self._taken = taken
        self._longest = longest
        self._next: dict[str, int] = {}  # by the start of a name, so that thousands of one name are not counted anew

    def take(self, wanted: str) -> str:
        name, start = wanted[: self._longest], wanted[: self._longest - 12]
        count = self._next.get(start, 2)
        while name in self._taken:
            suffix = f"_{count}"
            name, count = wanted[: self._longest - len(suffix)] + suffix, count + 1
        if count > 2:
            self._next[start] = count
        self._taken.add(name)
        return name


def _function_names(carriers: list[dict[str, Any]]) -> Iterator[str]:
    """The names in tools, or in tool calls."""
    for carrier in carriers:
        if name := tool_name(carrier):
            yield name


def _json_fields(wanted: object) -> frozenset[str]:
    schema = mapping(mapping(mapping(wanted).get("json_schema")).get("schema"))
    return frozenset(mapping(schema.get("properties")))
