"""Translates: `/v1/chat/completions`: bodies into checked ChatRequests, answers into OpenAI's bytes."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import msgspec
from msgspec import Struct

from proxy.pipeline.call import Call
from proxy.pipeline.format import StreamWriter
from proxy.pipeline.trace import trace
from proxy.providers.base.fields import LIMITS
from proxy.schema.chat import NO_LIMIT, ChatRequest, ChatResponse, Message, StreamOptions
from proxy.schema.endpoints import AnyResponse
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.json import encode, encode_sized
from proxy.schema.prompts import PromptUse
from proxy.schema.records import MAX_TOKENS
from proxy.server.formats.body import check_model, in_range, request_fields, view_of, without_nulls
from proxy.server.formats.chat_answer import ChunkWriter, whole
from proxy.server.formats.responses import RESPONSES
from proxy.server.formats.stored_prompt import taken

MAX_CHOICES = 128


class ChatBody(Struct, frozen=True):
    """The fields of a chat request that the proxy reads. Optional fields may be null, because some SDKs send nulls."""

    model: str
    messages: list[Message]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    seed: int | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None


KNOWN_FIELDS = frozenset(field.name for field in msgspec.structs.fields(ChatBody)) | {
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "modalities",
    "moderation",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "safety_identifier",
    "service_tier",
    "store",
    "top_logprobs",
    "verbosity",
    "web_search_options",
}


class ChatFormat:
    """`/v1/chat/completions`: the canonical shape. Some clients (Cursor) send the bodies of `/v1/responses` here, and
    read its answers.
    """

    paths = ("/v1/chat/completions", "/chat/completions")

    def decode(self, body: bytes) -> ChatRequest:
        return decode_chat(body)

    def unread(self, model: str) -> ChatRequest:
        return ChatRequest(model=model, messages=[], fields={})

    def whole(self, call: Call, answer: AnyResponse) -> bytes:
        if type(call.request) is not ChatRequest:
            return RESPONSES.whole(call, answer)
        model = call.shown_model
        shown = cast(ChatResponse, {**answer, **trace(call)})
        body = whole(shown, completion_id(call), model, call.created, call.usage())
        return encode_sized(body, call.answer_bytes)

    def writer(self, call: Call) -> StreamWriter:
        request = cast(ChatRequest, call.request)
        if type(request) is not ChatRequest:
            return RESPONSES.writer(call)
        include_usage = request.include_usage or request.hints.trace
        model, end = lambda: call.shown_model, partial(trace, call)
        return ChunkWriter(completion_id(call), call.created, model, include_usage, end)

    def error(self, error: ProxyError) -> bytes:
        return encode(error.body())


CHAT = ChatFormat()


def completion_id(call: Call) -> str:
    """The id of a chat answer, as OpenAI forms it."""
    return f"chatcmpl-{call.id}"


def decode_chat(body: bytes, translated: dict[str, Any] | None = None, stored: PromptUse | None = None) -> ChatRequest:
    """Decodes and checks a chat request. Raises BadRequest, which names the field.

    `translated`: its fields if `body` belongs to another endpoint; `stored`: the stored prompt that it uses.
    """
    fields = request_fields(body, KNOWN_FIELDS) if translated is None else translated
    if translated is None and ("messages" in fields or "input" not in fields):
        fields, stored = taken(fields)
    try:
        view = view_of(fields, ChatBody)
    except BadRequest:
        if "input" in fields and "messages" not in fields:
            return RESPONSES.decode(body)
        raise
    _check(view, needs_messages=stored is None)
    max_tokens, unlimited = view.max_completion_tokens or view.max_tokens, False
    if NO_LIMIT in (view.max_completion_tokens, view.max_tokens):
        fields = {name: value for name, value in fields.items() if name not in LIMITS or value != NO_LIMIT}
        max_tokens = next((fields[name] for name in LIMITS if fields.get(name) is not None), None)
        unlimited = max_tokens is None
    return ChatRequest(
        model=view.model,
        size=len(body),
        messages=view.messages,
        stream=bool(view.stream),
        include_usage=bool(view.stream_options and view.stream_options.include_usage),
        max_tokens=max_tokens,
        unlimited=unlimited,
        n=view.n or 1,
        stored=stored,
        fields=without_nulls(fields, KNOWN_FIELDS),
    )


def _check(view: ChatBody, *, needs_messages: bool) -> None:
    """Checks the rules that types cannot express. Raises BadRequest."""
    check_model(view.model)
    if not view.messages and needs_messages:
        raise BadRequest("messages: expected at least one message, got an empty list.", param="messages")
    for index, message in enumerate(view.messages):
        if not message.role:
            raise BadRequest("A message needs a role.", param=f"messages.{index}.role")
        if message.role == "tool" and not message.tool_call_id:
            raise BadRequest(
                "A message with role `tool` needs the tool_call_id it answers.", param=f"messages.{index}.tool_call_id"
            )
    if view.tool_choice is not None:
        _check_choice(view)
    if view.stream_options is not None and not view.stream:
        raise BadRequest("stream_options is only allowed when stream is true.", param="stream_options")
    in_range("n", view.n, MAX_CHOICES)
    if view.max_tokens is None and view.max_completion_tokens is None:
        return
    for name in LIMITS:
        limit = getattr(view, name)
        in_range(name, None if limit == NO_LIMIT else limit, MAX_TOKENS)


def _check_choice(view: ChatBody) -> None:
    """Checks that `tool_choice` names one of `tools`. No vendor can call another, and some ignore the choice."""
    name = _tool_name(view.tool_choice)
    if name is not None and name not in map(_tool_name, view.tools or []):
        raise BadRequest(f"tool_choice names {name[:64]!r}, which is not among the tools.", param="tool_choice")


def _tool_name(tool: object) -> str | None:
    """The name of a function, a custom tool or a vendor's own tool."""
    kind = (tool.get("function") or tool.get("custom") or tool) if isinstance(tool, dict) else None
    name = kind.get("name") if isinstance(kind, dict) else None
    return name if isinstance(name, str) else None
