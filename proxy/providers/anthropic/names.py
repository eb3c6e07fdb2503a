"""Translates: the names of tools into ones that the vendor takes, and back. A function of the request alone, so that
whoever reads the answer finds the same names as whoever built the request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

MAX_NAME = 128
WEB_SEARCH = "web_search"
_JSON_TOOL = "json_tool_call"
_RIGHT = re.compile(rf"[a-zA-Z0-9_-]{{1,{MAX_NAME}}}")
_WRONG = re.compile(r"[^a-zA-Z0-9_-]")
_NATIVE = re.compile(r"[a-z][a-z0-9_]*_\d{8}|mcp_toolset|tool_search_tool_(?:bm25|regex)")


def is_native(tool: Mapping[str, Any]) -> bool:
    """One of the vendor's own tools: most of their types are dated, such as `web_search_20250305`."""
    kind = tool.get("type")
    return isinstance(kind, str) and _NATIVE.fullmatch(kind) is not None


class Names:
    """The names of one request. `fields`: its body, over the provider's defaults.

    Names that the vendor takes stay as they are. `json_tool` is one that no tool of the request has; `json_fields` are
    the properties of the JSON answer that is wanted.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        tools = _objects(fields.get("tools"))
        native = {name for tool in tools if is_native(tool) and isinstance(name := tool.get("name"), str)}
        reserved = native | ({WEB_SEARCH} if fields.get("web_search_options") is not None else set())
        calls = [call for message in _objects(fields.get("messages")) for call in _objects(message.get("tool_calls"))]
        # The client runs some of the vendor's own tools: their calls stand in its history.
        called = (name for name in _function_names(calls) if name not in native)
        given = list(dict.fromkeys([*_function_names(tools), *called]))
        self._sent = {name: name for name in given if _RIGHT.fullmatch(name) and name not in reserved}
        taken = reserved | set(self._sent)
        for name in given:
            if name not in self._sent:
                self._sent[name] = _free(_WRONG.sub("_", name) or "_", taken)
                taken.add(self._sent[name])
        self._given = {sent: name for name, sent in self._sent.items()}
        self.json_tool = _free(_JSON_TOOL, taken)
        self.json_fields = _json_fields(fields.get("response_format"))

    def sent(self, name: str) -> str:
        """The vendor's name for one of the client's."""
        return self._sent.get(name, name)

    def given(self, name: str) -> str:
        """The client's name for one of the vendor's."""
        return self._given.get(name, name)


def _free(wanted: str, taken: set[str]) -> str:
    name, count = wanted[:MAX_NAME], 2
    while name in taken:
        suffix = f"_{count}"
        name, count = wanted[: MAX_NAME - len(suffix)] + suffix, count + 1
    return name


def _function_names(carriers: list[dict[str, Any]]) -> Iterator[str]:
    """Those of tools, or of calls."""
    for carrier in carriers:
        function = carrier.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(name, str) and name:
            yield name


def _json_fields(wanted: object) -> frozenset[str]:
    inner = wanted.get("json_schema") if isinstance(wanted, dict) else None
    schema = inner.get("schema") if isinstance(inner, dict) else None
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return frozenset(properties) if isinstance(properties, dict) else frozenset()


def _objects(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
