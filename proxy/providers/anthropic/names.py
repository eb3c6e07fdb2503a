"""Translates: the names of one request for Anthropic, its own tools and the forced tool for JSON among them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from proxy.providers.base.answers import mapping, objects
from proxy.providers.base.names import NameRule, ToolNames

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
    answer.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        tools = objects(fields.get("tools"))
        # The client runs some of the vendor's own tools: their calls stand in its history.
        native = {name for tool in tools if is_native(tool) and isinstance(name := tool.get("name"), str)}
        super().__init__(fields, _RULE, native, {WEB_SEARCH} if fields.get("web_search_options") is not None else ())
        self.json_tool = self.free.take(_JSON_TOOL)
        self.json_fields = _json_fields(fields.get("response_format"))


def _json_fields(wanted: object) -> frozenset[str]:
    schema = mapping(mapping(mapping(wanted).get("json_schema")).get("schema"))
    return frozenset(mapping(schema.get("properties")))
