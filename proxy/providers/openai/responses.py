"""Translates: a chat request into one of the Responses API, and OpenAI's own parts of the answers.

Nothing is stored at the vendor unless the client asks for it: reasoning comes back encrypted and is sent again with the
history. `input` is the last field, so that a longer conversation only adds bytes at the end.
"""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec.structs import replace

from proxy.providers.base.answers import mapping
from proxy.providers.base.content import Part, parts, thoughts_in
from proxy.providers.base.contract import Built
from proxy.providers.base.errors import ErrorRules
from proxy.providers.base.tools import allowed_tools
from proxy.providers.base.usage import read
from proxy.providers.compatible.request import Draft
from proxy.providers.compatible.responses.answer import Reader, shown_alone
from proxy.providers.compatible.responses.items import Item, Items
from proxy.providers.openai.call_ids import short
from proxy.providers.openai.reasoning import details_of, put_back
from proxy.schema.chat import Message
from proxy.schema.errors import BadRequest
from proxy.schema.usage import NOTHING, UsageReport, counted

LEAST_OUTPUT = 16  # a smaller `max_output_tokens` is refused
_MAX_CALL_ID = 64
# Codes of failed answers for which the request is at fault.
_REFUSED = (
    *("invalid_prompt", "bio_policy", "misalignment_policy_violation", "data_residency_mismatch", "invalid_image"),
    *("invalid_image_format", "invalid_base64_image", "invalid_image_url", "image_too_large", "image_too_small"),
    *("image_parse_error", "image_content_policy_violation", "invalid_image_mode", "image_file_too_large"),
    *("unsupported_image_media_type", "empty_image_file", "failed_to_download_image", "image_file_not_found"),
)
FAILED = ErrorRules(codes={code: (400, code) for code in _REFUSED} | {"server_error": (502, "upstream_error")})
_SAME = (
    *("temperature", "top_p", "parallel_tool_calls", "service_tier", "metadata", "user", "safety_identifier"),
    *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "moderation", "max_tool_calls"),
    "truncation",
)
_OURS = ("model", "stream", "stream_options", "n")  # expressed in another way
_FUNCTION = ("name", "description", "parameters", "strict")
_CUSTOM = ("name", "description", "format")


def build(draft: Draft, path: str, *, thinks: bool) -> Built:
    """The request. `thinks`: the model can reason, so it has reasoning to give back."""
    for name in _OURS:
        draft.body.pop(name, None)
    draft.cap_stops(0)
    draft.name_limit("max_completion_tokens")
    body: dict[str, Any] = {"model": draft.model, "store": draft.body.pop("store", None) or False}
    body |= {name: value for name in _SAME if (value := draft.body.pop(name, None)) is not None}
    for name in ("temperature", "top_p"):  # refused beside reasoning, even if it changes nothing
        if body.get(name) == 1:
            del body[name]
    _limit(draft, body)
    _reasoning(draft, body)
    _text(draft, body)
    _tools(draft, body)
    _include(draft, body, thinks)
    draft.refuse_parts(("image_url", "input_audio", "file"), roles=("system", "developer", "assistant"))
    if draft.request.stream:
        body["stream"] = True
    items = _Items(draft)
    body["input"] = items.from_message(0)
    items.report(draft.note_dropped)
    draft.body.pop("messages")
    draft.drop(*list(draft.body))
    draft.body = body
    return draft.built(path, stream_usage=False)


def _limit(draft: Draft, body: dict[str, Any]) -> None:
    limit = draft.body.pop("max_completion_tokens", None)
    if limit is None:
        return
    if isinstance(limit, int) and limit < LEAST_OUTPUT:
        limit = LEAST_OUTPUT
        draft.adapt("max_tokens" if "max_tokens" in draft.request.fields else "max_completion_tokens")
    body["max_output_tokens"] = limit


def _reasoning(draft: Draft, body: dict[str, Any]) -> None:
    effort, options = draft.body.pop("reasoning_effort", None), draft.body.pop("reasoning", None)
    reasoning = {**mapping(options), **({"effort": effort} if effort is not None else {})}
    if reasoning:
        body["reasoning"] = reasoning


def _text(draft: Draft, body: dict[str, Any]) -> None:
    text: dict[str, Any] = {}
    wanted, verbosity = draft.body.pop("response_format", None), draft.body.pop("verbosity", None)
    if isinstance(wanted, dict) and wanted.get("type") == "json_schema":
        schema = {name: value for name, value in mapping(wanted.get("json_schema")).items() if value is not None}
        text["format"] = {"type": "json_schema", "schema": {}, **schema}
    elif isinstance(wanted, dict) and wanted.get("type") != "text":
        text["format"] = wanted
    if verbosity is not None:
        text["verbosity"] = verbosity
    if text:
        body["text"] = text


def _include(draft: Draft, body: dict[str, Any], thinks: bool) -> None:
    included = ["reasoning.encrypted_content"] if thinks else []
    top = draft.body.pop("top_logprobs", None)
    if draft.body.pop("logprobs", None) is True:
        included.append("message.output_text.logprobs")
        if top is not None:
            body["top_logprobs"] = top
    if included:
        body["include"] = included


# --- tools ------------------------------------------------------------------------------------------------------------


def _tools(draft: Draft, body: dict[str, Any]) -> None:
    """Flat functions, and a search if requested. Tools that are neither function nor custom are OpenAI's own."""
    choice, search = draft.body.pop("tool_choice", None), draft.body.pop("web_search_options", None)
    tools = [_tool(draft, tool, f"tools.{place}") for place, tool in enumerate(draft.tools())]
    draft.body.pop("tools", None)
    if isinstance(search, dict):
        tools.append(_search(search))
    if tools:
        body["tools"] = tools
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed, is_forced = allowed_tools(choice)
        mode = "required" if is_forced else "auto"
        body["tool_choice"] = {"type": "allowed_tools", "mode": mode, "tools": [_chosen(each) for each in allowed]}
    elif choice is not None:
        body["tool_choice"] = _chosen(choice)


def _tool(draft: Draft, tool: dict[str, Any], where: str) -> Item:
    """One tool. Functions are strict in this API unless stated otherwise."""
    kind = tool.get("type", "function")
    if kind not in ("function", "custom"):
        return tool
    inner = tool.get(kind)
    given: dict[str, Any] = inner if isinstance(inner, dict) else {name: tool[name] for name in tool if name != "type"}
    if not isinstance(given.get("name"), str):
        raise BadRequest(f"A tool of type {kind!r} needs a name.", param=f"{where}.{kind}.name")
    known = _FUNCTION if kind == "function" else _CUSTOM
    beside = [name for name in tool if name not in ("type", kind)] if given is inner else []
    for name in [*beside, *(name for name in given if name not in known)]:
        draft.note_dropped(f"tools.{name}")
    flat = {name: given[name] for name in known if given.get(name) is not None}
    if kind == "function":
        return {"type": kind, "parameters": {"type": "object", "properties": {}}, "strict": False, **flat}
    form = mapping(flat.get("format"))
    if form.get("type") == "grammar":
        flat["format"] = {"type": "grammar", **mapping(form.get("grammar"))}
    return {"type": kind, **flat}


def _chosen(choice: Any) -> Any:
    """`{"type", "name"}` of a choice by name; other choices unchanged."""
    kind = choice.get("type") if isinstance(choice, dict) else None
    inner = mapping(choice.get(kind)) if isinstance(kind, str) else {}
    return {"type": kind, "name": inner["name"]} if "name" in inner else choice


def _search(options: dict[str, Any]) -> Item:
    search = {"type": "web_search", **options}
    place = options.get("user_location")
    if isinstance(place, dict):
        search["user_location"] = {"type": "approximate", **mapping(place.get("approximate"))}
    return search


# --- messages ---------------------------------------------------------------------------------------------------------


class _Items(Items):
    """Content in all its kinds, custom tools, and the reasoning behind earlier calls."""

    part_fields: ClassVar[tuple[str, ...]] = ("prompt_cache_breakpoint",)

    def __init__(self, draft: Draft) -> None:
        super().__init__(draft.request, draft.model)
        calls = [call for message in draft.request.messages for call in message.tool_calls or []]
        self._custom = {call.get("id") for call in calls if isinstance(call.get("custom"), dict)}

    def content(self, message: Message, where: str) -> str | list[Item]:
        if not isinstance(message.content, list):
            return message.content or ""
        return [self.part(part) for part in parts(thoughts_in(message.content)[1], where)]

    def answer(self, message: Message, place: int) -> list[Item]:
        return put_back(super().answer(message, place), self._details(message, place))

    def _details(self, message: Message, place: int) -> object:
        """The stored reasoning, else what the client sent back. Another model could not read it."""
        for call in message.tool_calls or []:
            kept = self.request.kept.get(str(call.get("id")))
            if kept is not None and "reasoning_details" in kept.state:
                return kept.state["reasoning_details"] if kept.model == self.model else None
        return self.request.fields["messages"][place].get("reasoning_details")

    def call(self, call: dict[str, Any], where: str) -> Item:
        custom, identity = call.get("custom"), call.get("id")
        if not isinstance(custom, dict) or not isinstance(custom.get("name"), str) or not isinstance(identity, str):
            item = super().call(call, where)
            return {**item, "call_id": short(item["call_id"], _MAX_CALL_ID)}
        item = {"type": "custom_tool_call", "call_id": short(identity, _MAX_CALL_ID), "name": custom["name"]}
        return {**item, "input": str(custom.get("input") or "")}

    def output(self, message: Message, where: str) -> Item:
        kind = "custom_tool_call_output" if message.tool_call_id in self._custom else "function_call_output"
        item = {"type": kind, "call_id": short(str(message.tool_call_id), _MAX_CALL_ID)}
        return {**item, "output": self.content(message, where)}

    def part(self, part: Part) -> Item:
        item = self._part(part)
        marked = part.raw.get("prompt_cache_breakpoint")
        return {**item, "prompt_cache_breakpoint": marked} if marked is not None else item

    def _part(self, part: Part) -> Item:
        if part.kind == "image":
            detail = mapping(part.raw.get("image_url")).get("detail") or "auto"
            where = {"file_id": part.file_id} if part.file_id else {"image_url": super().part(part)["image_url"]}
            return {"type": "input_image", "detail": detail, **where}
        if part.kind == "file" and part.file_id:
            return {"type": "input_file", "file_id": part.file_id}
        return super().part(part)


# --- answers ----------------------------------------------------------------------------------------------------------


class OpenAIReader(Reader):
    def more_of(self, items: list[Item]) -> dict[str, Any]:
        """The encrypted reasoning, for the next turn."""
        details = details_of(items)
        return {"reasoning_details": details} if details else {}

    def usage_of(self, body: dict[str, Any], items: list[Item]) -> UsageReport | None:
        """Web searches are billed separately."""
        requests = counted(mapping(mapping(body.get("tool_usage")).get("web_search")).get("num_requests"))
        searches = sum(map(_is_search, items)) if requests is None else requests
        report = shown_alone(read(body.get("usage")) or (NOTHING if searches else None))
        if report is None or not searches:
            return report
        return replace(report, billed=replace(report.billed, searches=searches))


def _is_search(item: Item) -> bool:
    """True for a search, but not for pages that it opens afterwards."""
    return item.get("type") == "web_search_call" and mapping(item.get("action")).get("type", "search") == "search"
