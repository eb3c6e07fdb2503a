"""Translates: bytes from a client into a checked ChatRequest, values into JSON and event-stream bytes."""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from proxy.errors import BadRequest
from proxy.schema import ChatRequest, Message, StreamOptions

MAX_NAME = 256  # characters of a model name: rows, log lines and answers repeat it
MAX_CHOICES = 128
MAX_TOKENS = 2**31 - 1  # what a bound of cost is made of stays within 64 bits

T = TypeVar("T", bound=Struct)
encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class ChatBody(Struct, frozen=True):
    """The fields of a chat request that the proxy reads; every optional one may be null, as SDKs in the wild send
    it.
    """

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
_PATH = re.compile(r"^(?P<what>.*) - at `\$\.?(?P<path>.*)`$", re.DOTALL)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRequest(f"The key {twice[:64]!r} stands twice in one JSON object. Send it once.", code="invalid_json")
    return found


# msgspec keeps the last of two equal keys, other parsers the first: two readers of one body could see two models (S15).
_scan = json.JSONDecoder(object_pairs_hook=_no_duplicates).decode


def decode_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`; duplicate keys, NaN, invalid UTF-8 and bottomless nesting raise BadRequest
    `invalid_json`.
    """
    try:
        value = _decode(body)
        if isinstance(value, dict):
            _scan(body.decode())
            return value
    except BadRequest:
        raise
    except RecursionError:
        raise BadRequest("The JSON body is nested too deeply.", code="invalid_json") from None
    except (msgspec.DecodeError, UnicodeError, ValueError) as error:
        raise BadRequest(f"The body is not valid JSON: {str(error)[:200]}", code="invalid_json") from None
    raise BadRequest("The body must be a JSON object.", code="invalid_json")


def request_fields(body: bytes, known: frozenset[str]) -> dict[str, Any]:
    """The fields of a request to any of our endpoints; `known`: those that the endpoint has. Raises BadRequest."""
    fields = decode_object(body)
    for name in fields:
        if name not in known and name.casefold() in known:
            raise BadRequest(f"Unknown parameter {name!r}. Did you mean {name.casefold()!r}?", param=name[:64])
    return fields


def view_of(fields: dict[str, Any], kind: type[T]) -> T:
    """The fields that a Struct declares, checked. Raises BadRequest that names the field."""
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None


def without_nulls(fields: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """The fields less nulls of known ones, which SDKs in the wild send and servers refuse."""
    return {name: value for name, value in fields.items() if value is not None or name not in known}


def decode_chat(body: bytes) -> ChatRequest:
    """A chat request from its bytes. Raises BadRequest that names the field."""
    fields = request_fields(body, KNOWN_FIELDS)
    view = view_of(fields, ChatBody)
    _check(view)
    return ChatRequest(
        model=view.model,
        messages=view.messages,
        stream=bool(view.stream),
        include_usage=bool(view.stream_options and view.stream_options.include_usage),
        max_tokens=view.max_completion_tokens or view.max_tokens,
        n=view.n or 1,
        fields=without_nulls(fields, KNOWN_FIELDS),
    )


def named_model(body: bytes) -> str | None:
    """The model that a body names whatever else is wrong with it, cut to MAX_NAME; None where none can be read."""
    try:
        model = decode_object(body).get("model")
    except BadRequest:
        return None
    return model[:MAX_NAME] if isinstance(model, str) else None


def _invalid(text: str) -> BadRequest:
    """msgspec's message with the path of the field in OpenAI's dotted form."""
    match = _PATH.match(text)
    if match is None:
        missing = re.search(r"missing required field `(\w+)`", text)
        return BadRequest(text, param=missing[1] if missing else None)
    path = match["path"].replace("[", ".").replace("]", "").strip(".")
    missing = re.search(r"missing required field `(\w+)`", match["what"])
    if missing:
        path = f"{path}.{missing[1]}"
    return BadRequest(f"{path}: {match['what']}.", param=path)


def check_model(name: str) -> None:
    """A name that rows, log lines and answers can repeat. Raises BadRequest."""
    if not name.strip():
        raise BadRequest("model: name a model, for example `auto`.", param="model")
    if len(name) > MAX_NAME or not name.isprintable():
        raise BadRequest(f"model: expected at most {MAX_NAME} printable characters.", param="model")


def _check(view: ChatBody) -> None:
    """The rules that types cannot say. Raises BadRequest."""
    check_model(view.model)
    if not view.messages:
        raise BadRequest("messages: expected at least one message, got an empty list.", param="messages")
    for index, message in enumerate(view.messages):
        if not message.role:
            raise BadRequest("A message needs a role.", param=f"messages.{index}.role")
        if message.role == "tool" and not message.tool_call_id:
            raise BadRequest(
                "A message with role `tool` needs the tool_call_id it answers.", param=f"messages.{index}.tool_call_id"
            )
    _check_choice(view)
    if view.stream_options is not None and not view.stream:
        raise BadRequest("stream_options is only allowed when stream is true.", param="stream_options")
    in_range("n", view.n, MAX_CHOICES)
    in_range("max_tokens", view.max_tokens, MAX_TOKENS)
    in_range("max_completion_tokens", view.max_completion_tokens, MAX_TOKENS)


def _check_choice(view: ChatBody) -> None:
    """A choice of one tool names one of `tools`: no vendor can call another, and some answer as if nothing was said."""
    name = _tool_name(view.tool_choice)
    if name is not None and name not in map(_tool_name, view.tools or []):
        raise BadRequest(f"tool_choice names {name[:64]!r}, which is none of the tools.", param="tool_choice")


def _tool_name(tool: object) -> str | None:
    """Of a function, of a custom tool, or of a vendor's own."""
    kind = (tool.get("function") or tool.get("custom") or tool) if isinstance(tool, dict) else None
    name = kind.get("name") if isinstance(kind, dict) else None
    return name if isinstance(name, str) else None


def in_range(name: str, value: int | None, most: int) -> None:
    """Raises BadRequest for a number that is below 1 or above `most`."""
    if value is not None and value < 1:
        raise BadRequest(f"{name}: expected at least 1.", param=name)
    if value is not None and value > most:
        raise BadRequest(f"{name}: expected at most {most}.", param=name)


DONE = b"data: [DONE]\n\n"


def sse(value: object) -> bytes:
    """One event of our own streams: a `data:` line with LF ends."""
    return b"data: " + encode(value) + b"\n\n"
