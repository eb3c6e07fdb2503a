"""Translates: a `/v1/messages` body into a checked ChatRequest, and the native body for Anthropic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from proxy.providers.anthropic.messages import DIALECT
from proxy.schema.chat import ChatRequest, Message
from proxy.schema.errors import BadRequest
from proxy.schema.origins import Origins
from proxy.schema.records import MAX_TOKENS
from proxy.schema.request import NOBODY, OWN_METADATA, NativeBody
from proxy.server.formats.body import check_model, in_range, request_fields, view_of, without_nulls
from proxy.server.formats.messages.conversation import Conversation
from proxy.server.formats.messages.foreign import without_foreign
from proxy.server.formats.messages.tools import Translated, add_format, add_thinking, add_tools
from proxy.server.formats.stored_prompt import taken

PASSED = ("anthropic-version", "anthropic-beta", "anthropic-workspace-id")  # headers that go to the vendor
MAX_MESSAGES = 100_000
MAX_USER = 64  # characters of an end user's id that other vendors accept
_TIERS = {"auto": "auto", "standard_only": "default"}
_PRICED = ("speed", "inference_geo")  # the vendor's own fields that affect its bill
# Field of a chat -> the client's own field, for errors.
_OWN_WORDS = {
    "max_completion_tokens": "max_tokens",
    "stop": "stop_sequences",
    "response_format": "output_config.format",
    "reasoning_effort": "output_config.effort",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "web_search_options": "tools",
    "user": "metadata.user_id",
}
_SAME = ("temperature", "top_p", "top_k", "stream")


class MessagesBody(Struct, frozen=True):
    """The fields of a request that the proxy reads. Optional fields may be null."""

    model: str
    messages: list[dict[str, Any]]
    max_tokens: int
    system: str | list[dict[str, Any]] | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None


_READ = frozenset(each.name for each in msgspec.structs.fields(MessagesBody))
KNOWN_FIELDS = _READ | {
    *("cache_control", "container", "context_management", "mcp_servers", "output_format", "prompt", "routing"),
}


def decode_messages(body: bytes, headers: Mapping[str, str], path: str, *, needs_limit: bool = True) -> Decoded:
    """The decoded request. `path`: the vendor's path for such a body. Raises BadRequest, which names the field."""
    fields, stored = taken(without_nulls(request_fields(body, KNOWN_FIELDS), KNOWN_FIELDS))
    view = view_of(fields if needs_limit else {"max_tokens": 1, **fields}, MessagesBody)
    check_model(view.model)
    if not (0 if stored is None else -1) < len(view.messages) <= MAX_MESSAGES:
        raise BadRequest(f"messages: expected 1 to {MAX_MESSAGES} messages.", param="messages")
    if view.max_tokens:  # 0 only fills the vendor's cache
        in_range("max_tokens", view.max_tokens, MAX_TOKENS)
    found = Translated()
    conversation = Conversation(found)
    conversation.add_system(view.system)
    for place, message in enumerate(view.messages):
        conversation.add(message, f"messages.{place}")
    _translate(found, view, fields)
    messages = conversation.messages
    raw = {"model": view.model, "messages": messages, **found.fields}
    native = NativeBody(
        dialect=DIALECT if stored is None else NOBODY,
        path=path,
        body=body,
        headers={name: headers[name] for name in PASSED if name in headers},
        lost=tuple(found.lost),
        only_here=found.only_here,
        needed=found.needed,
    ).without_hints(fields)
    if conversation.has_foreign:
        native = without_foreign(native, fields["messages"])
    request = ChatRequest(
        model=view.model,
        size=len(body),
        messages=msgspec.convert(messages, list[Message]),
        stream=bool(view.stream),
        max_tokens=max(1, view.max_tokens) if needs_limit else None,
        native=native,
        origins=Origins(conversation.origins, found.places, _OWN_WORDS),
        stored=stored,
        fields=raw,
    )
    thinking = view.thinking or {}
    hides_thoughts = thinking.get("type") == "disabled" or thinking.get("display") == "omitted"
    return Decoded(request, view.stop_sequences or [], hides_thoughts)


class Decoded(Struct, frozen=True):
    """`stops`: the client's stop sequences. `hides_thoughts`: it wants no thoughts, or none that can be read."""

    request: ChatRequest
    stops: list[str]
    hides_thoughts: bool


def _translate(found: Translated, view: MessagesBody, fields: dict[str, Any]) -> None:
    """Translates the fields besides the messages into OpenAI's."""
    said = found.fields
    if "max_tokens" in fields:
        said["max_tokens"] = max(1, view.max_tokens)
    said |= {name: fields[name] for name in _SAME if name in fields}
    if view.stop_sequences:
        said["stop"] = view.stop_sequences
    add_tools(found, view.tools or [], view.tool_choice)
    output = view.output_config or {}
    add_thinking(found, view.thinking, output)
    where = "output_config.format" if "format" in output else "output_format"
    add_format(found, output.get("format", fields.get("output_format")), where)
    _user(found, view.metadata or {})
    if view.service_tier is not None and view.service_tier in _TIERS:
        said["service_tier"] = _TIERS[view.service_tier]
    elif view.service_tier is not None:
        found.lose("service_tier")
    for name in output:
        if name not in ("effort", "format"):
            found.lose(f"output_config.{name}")
    if fields.get("mcp_servers"):
        found.only_here["mcp_servers"] = "connection to MCP servers"
    if fields.get("thread"):  # its next request has only the new messages
        found.only_here["thread"] = "conversation stored on the server"
    if "routing" in fields:
        said["routing"] = fields["routing"]
    for name in fields:
        if name not in _READ and name not in ("routing", "mcp_servers", "output_format", "thread"):
            found.lose(name)
    said |= {name: fields[name] for name in _PRICED if name in fields}


def _user(found: Translated, metadata: dict[str, Any]) -> None:
    """`metadata.user_id`, and the hints beside it, which the pipeline removes."""
    hints = {name: value for name, value in metadata.items() if name.startswith(OWN_METADATA)}
    if hints:
        found.fields["metadata"] = hints
    user = metadata.get("user_id")
    if isinstance(user, str) and 0 < len(user) <= MAX_USER:
        found.fields["user"] = user
    elif user is not None:
        found.lose("metadata.user_id")
    for name in metadata:
        if name != "user_id" and name not in hints:
            found.lose(f"metadata.{name}")
