"""Translates: a chat request into one of the Agent API: input items, instructions, flat tools, one web search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.providers.base.contract import Built, post_json
from proxy.providers.base.fields import LEVELS, NEUTRAL, Fields, nearest_level, stop_list
from proxy.providers.base.names import names_of
from proxy.providers.base.tidy import media_apart, tidied
from proxy.providers.base.tools import allowed_tools, tool_name
from proxy.providers.compatible.responses.items import Items
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import BadRequest

SEARCHING = "perplexity/sonar"
# Models of the API that ended -> the one model that replaced them, and its effort.
_SONAR = {
    "sonar": None,
    "sonar-pro": "fast",
    "sonar-reasoning": "low",
    "sonar-reasoning-pro": "low",
    "sonar-deep-research": "high",
}
_SAME = ("temperature", "top_p", "store", "prompt_cache_key")
# Its own fields, and types of tools, that make sense in a chat request.
_NATIVE = (
    "models",
    "effort",
    "preset",
    "max_steps",
    "previous_response_id",
    "language_preference",
    "profile",
    "skills",
)
_NATIVE_TOOLS = (
    *("web_search", "image_search", "fetch_url", "people_search", "finance_search", "sandbox", "mcp", "connector"),
)
_TIERS = {tier: tier for tier in ("auto", "default", "flex", "priority", "fast")}
_EFFORTS = LEVELS[:-1]
_FILTERS = (  # they have the same names in the older API
    *("search_domain_filter", "search_recency_filter", "search_after_date_filter", "search_before_date_filter"),
    *("last_updated_after_filter", "last_updated_before_filter"),
)
_PLACE = ("city", "region", "country", "latitude", "longitude")
_FUNCTION = ("name", "description", "parameters", "strict")
_JSON = "Answer with one JSON object and nothing else."


def build(path: str, request: ChatRequest, model: str, parameters: Mapping[str, Any]) -> Built:
    """The request for the upstream model `model`; model names of the older API are translated."""
    with_media = tidied(request, names_of(request, parameters))
    request = media_apart(with_media)
    fields = Fields(request.fields, parameters)
    if request is not with_media:
        fields.adapt("messages.content")
    for name, value in NEUTRAL.items():
        if name not in _SAME and request.fields.get(name) == value:
            fields.take(name)
    fields.take("model", "messages", "stream", "stream_options", "n")
    unwanted = fields.take("disable_search")
    wants_search = (model in _SONAR or model == SEARCHING) and not unwanted
    effort = _SONAR.get(model)
    body: dict[str, Any] = {"model": SEARCHING if model in _SONAR else model}
    items = _Items(request, body["model"])
    instructions, body["input"] = items.instructions(), items.from_message(items.first_turn)
    items.report(fields.drop)
    unchecked = False
    wanted = fields.take("response_format") or {}
    if wanted.get("type") == "json_schema":
        body["response_format"] = wanted
    elif wanted.get("type") == "json_object":
        instructions, unchecked = [*instructions, _JSON], True
        fields.adapt("response_format")
    if instructions:
        body["instructions"] = "\n\n".join(instructions)
    _limits(request, fields, body)
    _tools(fields, body, wants_search)
    body |= {name: value for name in _NATIVE if (value := fields.take(name)) is not None}
    if effort is not None and "effort" not in body and "preset" not in body:
        body["effort"] = effort
    stops = stop_list(fields.take("stop"))
    if request.stream:
        body["stream"] = True
    return Built(post_json(path, body, request), fields.rest(), fields.adapted, stops, unchecked)


def _limits(request: ChatRequest, fields: Fields, body: dict[str, Any]) -> None:
    limit = fields.limit(request)
    if limit is not None:
        body["max_output_tokens"] = limit
    body |= {name: value for name in _SAME if (value := fields.take(name)) is not None}
    effort, reasoning = fields.take("reasoning_effort"), fields.take("reasoning")
    if isinstance(reasoning, dict):
        effort = reasoning.get("effort", effort)
    if effort in LEVELS and effort not in _EFFORTS:
        effort = nearest_level(effort, _EFFORTS)
        fields.adapt("reasoning_effort")
    if effort is not None:
        body["reasoning"] = {**(reasoning or {}), "effort": effort}
    elif reasoning:
        body["reasoning"] = reasoning
    tier = fields.tier(_TIERS)
    if tier is not None:
        body["service_tier"] = tier


# --- messages ---------------------------------------------------------------------------------------------------------


class _Items(Items):
    """The older API's parts for files are read too; Google's models require the signatures of their calls back."""

    def known_parts(self, content: Any) -> Any:
        """The older API's parts for files, `{"file_url": {"url"}}`, as OpenAI's."""
        if not isinstance(content, list):
            return content
        older = [isinstance(raw, dict) and raw.get("type") == "file_url" and "file_url" in raw for raw in content]
        return [
            {"type": "file", "file": raw["file_url"]} if old else raw for raw, old in zip(content, older, strict=True)
        ]

    def call(self, call: dict[str, Any], where: str) -> dict[str, Any]:
        item = super().call(call, where)
        kept = self.request.kept.get(item["call_id"])
        signature = _signature(call.get("extra_content"))
        if signature is None and kept is not None and kept.model == self.model:
            signature = _signature(kept.state.get("extra_content"))
        return {**item, "thought_signature": signature} if signature else item


def _signature(extra: object) -> str | None:
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) else None


# --- tools ------------------------------------------------------------------------------------------------------------


def _tools(fields: Fields, body: dict[str, Any], wants_search: bool) -> None:
    """Functions, native tools unchanged, and one web search: if requested, or if the older API searched by default and
    no function call is forced.
    """
    given = fields.take("tools") or []
    choice = fields.take("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed, is_forced = allowed_tools(choice)
        names = {tool_name(tool) for tool in allowed}
        given = [tool for tool in given if tool_name(tool) in names]
        choice = "required" if is_forced else "auto"
        fields.adapt("tool_choice")
    tools = [_tool(fields, tool, f"tools.{place}") for place, tool in enumerate(given)]
    name = tool_name(choice)
    forced = name is not None or choice == "required"
    search = _search(fields)
    if (search or (wants_search and not forced)) and not any(tool["type"] == "web_search" for tool in tools):
        tools.append({"type": "web_search", **search})
    if tools:
        body["tools"] = tools
    if name is not None:
        body["tool_choice"] = {"type": "function", "name": name}
    elif choice is not None and given:
        body["tool_choice"] = choice
    elif choice not in (None, "none", "auto"):
        fields.drop("tool_choice")


def _tool(fields: Fields, tool: dict[str, Any], where: str) -> dict[str, Any]:
    if tool.get("type") in _NATIVE_TOOLS:
        return tool
    function = tool.get("function")
    if tool.get("type", "function") != "function" or not isinstance(function, dict) or "name" not in function:
        message = f"Perplexity accepts only functions and its own tools: {where} is something else."
        raise BadRequest(message, param=where, code="unsupported_parameter")
    for name in [*(name for name in tool if name not in ("type", "function")), *function]:
        if name not in _FUNCTION:
            fields.drop(f"tools.{name}")
    flat = {name: function[name] for name in _FUNCTION if function.get(name) is not None}
    return {"type": "function", **flat}


def _search(fields: Fields) -> dict[str, Any]:
    """Options of the web search, from OpenAI's `web_search_options` and the older API's own fields; {} if there are
    none.
    """
    options = fields.take("web_search_options")
    search: dict[str, Any] = {}
    filters = {name: value for name in _FILTERS if (value := fields.take(name)) is not None}
    if filters:
        search["filters"] = filters
    if not isinstance(options, dict):
        return search
    for name, value in options.items():
        if name == "search_context_size":
            search[name] = value
        elif name == "search_type" and value in ("fast", "pro", "web"):
            search[name] = "fast" if value == "fast" else "web"
        elif name == "user_location" and isinstance(value, dict):
            inner = value.get("approximate")
            place = inner if isinstance(inner, dict) else value
            search[name] = {key: place[key] for key in _PLACE if key in place}
        else:
            fields.drop(f"web_search_options.{name}")
    return search or {"search_context_size": "medium"}
