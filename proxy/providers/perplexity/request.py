"""Translates: a chat request into one of the Agent API: input items, instructions, flat tools, one web search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.providers.base.content import ECHOES, Part, parts, refuse, thoughts_in
from proxy.providers.base.contract import Built, post_json
from proxy.providers.base.fields import LEVELS, NEUTRAL, Fields, stop_list
from proxy.providers.base.tools import allowed_tools, tool_name
from proxy.schema.chat import ChatRequest, Message
from proxy.schema.errors import BadRequest

SEARCHING = "perplexity/sonar"
# The models of the API that ended: the one model that replaced them, and how hard it is to try.
_SONAR = {
    "sonar": None,
    "sonar-pro": "fast",
    "sonar-reasoning": "low",
    "sonar-reasoning-pro": "low",
    "sonar-deep-research": "high",
}
_SAME = ("temperature", "top_p", "store", "prompt_cache_key")
# Fields of its own, and types of tools, that make sense behind a chat request.
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
_FILTERS = (  # the same names in the older API
    *("search_domain_filter", "search_recency_filter", "search_after_date_filter", "search_before_date_filter"),
    *("last_updated_after_filter", "last_updated_before_filter"),
)
_PLACE = ("city", "region", "country", "latitude", "longitude")
_MESSAGE = ("role", "content", "tool_calls", "tool_call_id", "refusal")
_FUNCTION = ("name", "description", "parameters", "strict")
_JSON = "Answer with one JSON object and nothing else."


def build(path: str, request: ChatRequest, model: str, parameters: Mapping[str, Any]) -> Built:
    """The request for the upstream model `model`; model names of the older API are translated."""
    fields = Fields(request.fields, parameters)
    for name, value in NEUTRAL.items():
        if name not in _SAME and request.fields.get(name) == value:
            fields.take(name)
    fields.take("model", "messages", "stream", "stream_options", "n")
    unwanted = fields.take("disable_search")
    wants_search = (model in _SONAR or model == SEARCHING) and not unwanted
    effort = _SONAR.get(model)
    body: dict[str, Any] = {"model": SEARCHING if model in _SONAR else model}
    instructions, body["input"] = _input(request, body["model"])
    _report(request, fields)
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
    effort = fields.take("reasoning_effort")
    if effort == "max":
        effort = _EFFORTS[-1]
        fields.adapt("reasoning_effort")
    reasoning = fields.take("reasoning") or ({"effort": effort} if effort is not None else None)
    if reasoning is not None:
        body["reasoning"] = reasoning
    tier = fields.tier(_TIERS)
    if tier is not None:
        body["service_tier"] = tier


# --- messages ---------------------------------------------------------------------------------------------------------


def _input(request: ChatRequest, model: str) -> tuple[list[str], list[dict[str, Any]]]:
    """The system messages at the start, as texts, and the rest as items."""
    messages = request.messages
    first = next((place for place, each in enumerate(messages) if each.role not in ("system", "developer")), None)
    instructions = []
    for place, message in enumerate(messages[: first or 0]):
        instructions.append(_plain(message.content, f"messages.{place}.content", model))
    items: list[dict[str, Any]] = []
    for place, message in list(enumerate(messages))[first or 0 :]:
        items += _items(request, message, f"messages.{place}", model)
    if not items:
        raise BadRequest(f"{model} needs a message that says something.", param="messages")
    return [text for text in instructions if text], items


def _report(request: ChatRequest, fields: Fields) -> None:
    """Reports fields of messages and parts without a place in an item."""
    for message in request.fields["messages"]:
        for name, value in message.items():
            if name not in _MESSAGE and name not in ECHOES and value is not None:
                fields.drop(f"messages.{name}")
        content = message.get("content")
        for part in content if isinstance(content, list) else []:
            for name in part:
                if name not in ("type", part["type"]) or name == "thinking":
                    fields.drop(f"messages.content.{name}")


def _items(request: ChatRequest, message: Message, where: str, model: str) -> list[dict[str, Any]]:
    role = message.role
    if role == "tool":
        output = _plain(message.content, f"{where}.content", model)
        return [{"type": "function_call_output", "call_id": message.tool_call_id, "output": output}]
    if role == "assistant":
        text = _plain(message.content, f"{where}.content", model) or _refusal(request, where)
        items: list[dict[str, Any]] = [{"type": "message", "role": role, "content": text}] if text else []
        calls = message.tool_calls or []
        return items + [_call(request, call, f"{where}.tool_calls.{i}", model) for i, call in enumerate(calls)]
    if role not in ("user", "system", "developer"):
        raise BadRequest(f"{model} knows no messages with role {role[:64]!r}.", param=f"{where}.role")
    if isinstance(message.content, str) or role != "user":
        return [{"type": "message", "role": role, "content": _plain(message.content, f"{where}.content", model)}]
    content = [_part(part, model) for part in parts(_with_files(message.content), f"{where}.content")]
    return [{"type": "message", "role": role, "content": content}]


def _refusal(request: ChatRequest, where: str) -> str:
    """A refusal of the assistant; the API has no field for it."""
    refusal = request.fields["messages"][int(where.rpartition(".")[2])].get("refusal")
    return refusal if isinstance(refusal, str) else ""


def _plain(content: str | list[dict[str, Any]] | None, where: str, model: str) -> str:
    """The text of a message that supports nothing else."""
    found = parts(thoughts_in(content)[1], where)
    for part in found:
        if part.kind not in ("text", "refusal"):
            raise refuse(part, model)
    return "\n".join(part.text for part in found)


def _with_files(content: Any) -> Any:
    """The older API's parts for files, `{"file_url": {"url"}}`, as OpenAI's."""
    if not isinstance(content, list):
        return content
    older = [isinstance(raw, dict) and raw.get("type") == "file_url" and "file_url" in raw for raw in content]
    return [{"type": "file", "file": raw["file_url"]} if old else raw for raw, old in zip(content, older, strict=True)]


def _part(part: Part, model: str) -> dict[str, Any]:
    if part.kind in ("text", "refusal"):
        return {"type": "input_text", "text": part.text}
    url = part.url or f"data:{part.media_type};base64,{part.data}"
    if part.kind == "image" and part.file_id is None:
        return {"type": "input_image", "image_url": url}
    if part.kind == "file" and part.file_id is None:
        file = {"type": "input_file", "file_url" if part.url else "file_data": url}
        return {**file, "filename": part.filename} if part.filename else file
    raise refuse(part, model)


def _call(request: ChatRequest, call: dict[str, Any], where: str, model: str) -> dict[str, Any]:
    function, identity = call.get("function"), call.get("id")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not isinstance(identity, str):
        raise BadRequest(f"{model} takes calls of functions only, with an id.", param=where)
    arguments = function.get("arguments")
    item = {
        "type": "function_call",
        "call_id": identity,
        "name": function["name"],
        "arguments": arguments if isinstance(arguments, str) and arguments else "{}",
    }
    kept = request.kept.get(identity)
    signature = _signature(call.get("extra_content"))
    if signature is None and kept is not None and kept.model == model:
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


def _tool(fields: Fields, tool: dict[str, Any], where: str) -> dict[str, Any]:
    if tool.get("type") in _NATIVE_TOOLS:
        return tool
    function = tool.get("function")
    if tool.get("type", "function") != "function" or not isinstance(function, dict) or "name" not in function:
        message = f"Perplexity takes functions and tools of its own only: {where} is something else."
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
