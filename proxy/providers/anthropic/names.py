"""Translates: the names of one request for Anthropic, including its own tools and the forced tool for JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from proxy.providers.anthropic.keys import NO_KEYS, Keys
from proxy.providers.base.answers import mapping, objects
from proxy.providers.base.names import NameRule, ToolNames
from proxy.providers.base.tools import plain_tools

WEB_SEARCH = "web_search"
_RULE = NameRule(128)
_JSON_TOOL = "json_tool_call"
_NATIVE = re.compile(r"[a-z][a-z0-9_]*_\d{8}|mcp_toolset|tool_search_tool_(?:bm25|regex)")


def is_native(tool: Mapping[str, Any]) -> bool:
    """True for one of the vendor's own tools. Most of their types are dated, such as `web_search_20250305`."""
    kind = tool.get("type")
    return isinstance(kind, str) and _NATIVE.fullmatch(kind) is not None


class Names(ToolNames):
    """`json_tool` is a name that no tool of the request has; `json_fields` are the properties of the requested JSON
    answer, `json_keys` the keys in it.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        tools = objects(fields.get("tools"))
        # The client runs some of the vendor's own tools: their calls are in its history.
        native = {name for tool in tools if is_native(tool) and isinstance(name := tool.get("name"), str)}
        super().__init__(fields, _RULE, native, {WEB_SEARCH} if fields.get("web_search_options") is not None else ())
        self.json_tool = self.free.take(_JSON_TOOL)
        wanted = mapping(mapping(mapping(fields.get("response_format")).get("json_schema")).get("schema"))
        self.json_fields = frozenset(mapping(wanted.get("properties")))
        self.json_keys = Keys(wanted)
        functions = [mapping(tool.get("function")) for tool in objects(plain_tools(fields.get("tools")))]
        self._keys = {
            str(each.get("name")): keys for each in functions if (keys := Keys(each.get("parameters"))).changed
        }

    def keys_of(self, name: str) -> Keys:
        """The keys of the properties of one of the client's tools."""
        return self._keys.get(name, NO_KEYS)
