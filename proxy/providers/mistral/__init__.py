"""Translates: Mistral's dialect, which refuses unknown fields (facts checked in November 2026)."""

from __future__ import annotations

import hashlib
import re
from typing import Any, ClassVar

from proxy.providers.base.content import Part, parts, refuse, thoughts_in
from proxy.providers.base.contract import Built, HTTPResponse, StreamDecoder
from proxy.providers.base.errors import ErrorRules
from proxy.providers.base.fields import texts_only
from proxy.providers.base.images import ImageRule, patches
from proxy.providers.base.names import names_of
from proxy.providers.compatible import Compatible, embeddings
from proxy.providers.compatible.request import Draft
from proxy.providers.mistral.continuing import ContinuingDecoder, text_to_continue
from proxy.schema.chat import ChatRequest, ChatResponse
from proxy.schema.embeddings import EmbeddingsRequest
from proxy.schema.errors import BadRequest

_FIELDS = frozenset(
    {
        *("model", "messages", "temperature", "top_p", "max_tokens", "min_tokens", "stream", "stop", "random_seed"),
        *("metadata", "response_format", "tools", "tool_choice", "presence_penalty", "frequency_penalty", "n"),
        *("repetition_penalty", "top_k", "logprobs", "top_logprobs", "prompt_logprobs", "top_prompt_logprobs"),
        *("prediction", "parallel_tool_calls", "reasoning_effort", "prompt_mode", "guardrails", "prompt_cache_key"),
        *("service_tier", "safe_prompt"),
    }
)
_MESSAGES = {
    "system": frozenset({"role", "content"}),
    "user": frozenset({"role", "content"}),
    "assistant": frozenset({"role", "content", "tool_calls", "prefix"}),
    "tool": frozenset({"role", "content", "tool_call_id", "name"}),
}
_TIERS = {"auto": "auto", "default": "standard_only", "standard_only": "standard_only"}
_CHUNKS = {  # its own content chunks: type -> the field with the content, and other fields
    "document_url": (("document_url", "document_name"),),
    "input_audio": (("input_audio",),),
    "file": (("file_id",),),
    "reference": (("reference_ids",),),
}
_NOTHING = {"type": "text", "text": ""}
_DETAILS = ("auto", "low", "high")
_MAX_TEMPERATURE = 1.5
_FILLER = "OK"  # sent between a tool result and the next user message, where some models require an answer
_SWITCHED = re.compile(r"mistral-(medium|small)|mistral-large-4|deepseek-")  # thinking on or off
_LEVELLED = re.compile(r"(zai-)?glm-")  # think at one of the levels that their refusal of another one lists
_LEVELS = ("low", "high", "max")
_ALWAYS_THINKS = re.compile(r"magistral-")
_ID = re.compile(r"[a-zA-Z0-9]{9}")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_EMBEDDINGS = ("model", "input", "metadata", "output_dimension", "output_dtype", "encoding_format")


class Mistral(Compatible, frozen=True, kw_only=True):
    type: ClassVar[str] = "mistral"
    image_rules: ClassVar[tuple[ImageRule, ...]] = (ImageRule(re.compile(""), patches(14, 1)),)
    audio_tokens_per_s: ClassVar[int | None] = 13
    base: ClassVar[str | None] = "https://api.mistral.ai/v1"
    key_env: ClassVar[tuple[str, ...]] = ("MISTRAL_API_KEY",)
    catalogue: ClassVar[str | None] = "mistral"
    telemetry_name: ClassVar[str | None] = "mistral_ai"
    id_headers: ClassVar[tuple[str, ...]] = ("x-request-id", "mistral-correlation-id", "cf-ray")
    embeddings_batch: ClassVar[int | None] = 256  # one more is a 400 (seen in recorded traffic)
    stream_usage: ClassVar[bool] = False
    ranks: ClassVar[bool | None] = False
    error_rules: ClassVar[ErrorRules] = ErrorRules(
        codes={
            "1300": (429, "rate_limit_exceeded"),
            "1500": (404, "model_not_found"),
            "3505": (503, "upstream_unavailable"),
            "invalid_model": (404, "model_not_found"),
            "rate_limited": (429, "rate_limit_exceeded"),
        },
        statuses={402: 403, 422: 400},
        headers={
            "x-ratelimit-limit-req-10-second": "x-ratelimit-limit-requests",
            "x-ratelimit-remaining-req-10-second": "x-ratelimit-remaining-requests",
            "x-ratelimit-limit-tokens-minute": "x-ratelimit-limit-tokens",
            "x-ratelimit-remaining-tokens-minute": "x-ratelimit-remaining-tokens",
            "ratelimitbysize-limit": "x-ratelimit-limit-tokens",
            "ratelimitbysize-remaining": "x-ratelimit-remaining-tokens",
            "ratelimitbysize-reset": "x-ratelimit-reset-tokens",
        },
    )

    def shape(self, draft: Draft) -> None:
        draft.name_limit("max_tokens")
        draft.name_roles()
        draft.rename("seed", "random_seed")
        draft.body.pop("stream_options", None)
        draft.narrow_tools()
        draft.only_functions()
        _level_effort(draft)
        if _thinks(draft):
            draft.give_back_reasoning("reasoning_content")
            _think_back(draft)
        draft.strip_echoes()
        _name_values(draft)
        draft.plain_tools()
        draft.plain_calls()
        for tool in draft.tools():
            tool["function"].setdefault("parameters", {"type": "object", "properties": {}})
        draft.keep_only(_FIELDS)
        draft.keep_message_fields(_MESSAGES)
        for index, message in enumerate(draft.messages):
            content = _content(draft, message, f"messages.{index}.content")
            draft.put_message(index, {**message, "content": content})
        _shorten_ids(draft)
        _order(draft)

    def parse_response(self, response: HTTPResponse, request: ChatRequest | None = None) -> ChatResponse:
        """The answer. A continued message repeats its beginning, which OpenAI's clients already have: it is removed."""
        answer = super().parse_response(response, request)
        begun = text_to_continue(request) if request is not None else ""
        for choice in answer["choices"] if begun else []:
            message = choice["message"]
            message["content"] = message["content"] and message["content"].removeprefix(begun)
        return answer

    def stream_decoder(self, request: ChatRequest) -> StreamDecoder:
        begun = text_to_continue(request)
        if not begun:
            return super().stream_decoder(request)
        return names_of(request, self.parameters).restoring(ContinuingDecoder(request, self.error_rules, begun))

    def build_embeddings(self, request: EmbeddingsRequest, model: str) -> Built:
        """Vectors of whole numbers (`output_dtype`) are requested as numbers: we read only floats from base64."""
        texts_only(request, model)
        body = {
            ("output_dimension" if name == "dimensions" else name): value
            for name, value in request.fields.items()
            if name in _EMBEDDINGS or name == "dimensions"
        }
        floats = body.get("output_dtype") in (None, "float")
        body |= {"model": model, "encoding_format": "base64" if floats else "float"}
        dropped = [name for name in request.fields if name not in (*_EMBEDDINGS, "dimensions")]
        return embeddings.built("/embeddings", body, request, dropped)


def _name_values(draft: Draft) -> None:
    """Converts values with other names or ranges."""
    body = draft.body
    if body.get("tool_choice") == "required":
        body["tool_choice"] = "any"
    draft.name_tier(_TIERS)
    temperature = body.get("temperature")
    if isinstance(temperature, int | float) and temperature > _MAX_TEMPERATURE:
        body["temperature"] = _MAX_TEMPERATURE
        draft.adapt("temperature")
    prediction = body.get("prediction")
    if isinstance(prediction, dict) and isinstance(prediction.get("content"), list):
        text = "".join(part.text for part in parts(prediction["content"], "prediction.content"))
        body["prediction"] = {**prediction, "content": text}


def _level_effort(draft: Draft) -> None:
    """Sets the thinking mode. Some of its own models can switch it, Magistral always thinks, and the others cannot."""
    effort = draft.body.get("reasoning_effort")
    if effort is None:
        return
    if _LEVELLED.match(draft.model) and isinstance(effort, str):
        draft.level_effort(_LEVELS)
    elif _ALWAYS_THINKS.match(draft.model):
        draft.drop("reasoning_effort")
    elif not _SWITCHED.match(draft.model):
        draft.drop_effort()
    elif effort == "minimal":
        draft.body["reasoning_effort"] = "none"
        draft.adapt("reasoning_effort")
    elif effort not in ("none", "high"):
        draft.body["reasoning_effort"] = "high"
        draft.adapt("reasoning_effort")


def _can_think(draft: Draft) -> bool:
    return bool(_SWITCHED.match(draft.model) or _ALWAYS_THINKS.match(draft.model))


def _thinks(draft: Draft) -> bool:
    """True if the model thinks in this request."""
    return _can_think(draft) and (draft.body.get("reasoning_effort") == "high" or not _SWITCHED.match(draft.model))


def _think_back(draft: Draft) -> None:
    """Returns earlier thoughts as chunks of the content to models that think, except in a message to continue."""
    last = len(draft.messages) - 1
    for index, message in enumerate(draft.messages):
        thought, content, calls = (message.get(name) for name in ("reasoning_content", "content", "tool_calls"))
        if message["role"] != "assistant" or not isinstance(thought, str) or not thought or thoughts_in(content)[0]:
            continue
        if calls or (content and index < last):
            said = [{"type": "text", "text": content}] if content and isinstance(content, str) else content or []
            draft.put_message(index, {**message, "content": [{"type": "thinking", "thinking": thought}, *said]})


def _content(draft: Draft, message: dict[str, Any], where: str) -> Any:
    """Plain texts unchanged, other parts as the vendor's chunks."""
    content = message.get("content")
    if not isinstance(content, list):
        return content or ""
    thoughts, rest = thoughts_in(content)
    own = [_own_chunk(raw) for raw in rest]
    asked = [_NOTHING if chunk else raw for raw, chunk in zip(rest, own, strict=True)]
    chunks = [chunk or _chunk(draft, part) for chunk, part in zip(own, parts(asked, where), strict=True)]
    if thoughts and _can_think(draft):
        return [*({"type": "thinking", "thinking": [{"type": "text", "text": text}]} for text in thoughts), *chunks]
    if thoughts:
        draft.note_dropped("messages.content.thinking")
    return chunks or ""


def _own_chunk(raw: Any) -> dict[str, Any] | None:
    """A chunk in the vendor's own form; None for OpenAI's parts."""
    kind = raw.get("type") if isinstance(raw, dict) else None
    for name, *more in _CHUNKS.get(kind, ()) if isinstance(kind, str) else ():
        if isinstance(raw.get(name), str | list):
            return {each: raw[each] for each in ("type", name, *more) if raw.get(each) is not None}
    return None


def _chunk(draft: Draft, part: Part) -> dict[str, Any]:
    for name in part.raw:
        if name not in ("type", part.raw["type"]):
            draft.note_dropped(f"messages.content.{name}")
    if part.kind in ("text", "refusal"):
        return {"type": "text", "text": part.text}
    url = part.url or f"data:{part.media_type};base64,{part.data}"
    if part.kind == "image":
        image: dict[str, Any] = {"url": url}
        given = part.raw["image_url"]
        detail = given.get("detail") if isinstance(given, dict) else None
        if detail is not None:
            image["detail"] = detail if detail in _DETAILS else "high"
            if detail not in _DETAILS:
                draft.adapt("messages.content.image_url.detail")
        return {"type": "image_url", "image_url": image}
    if part.kind == "audio":
        return {"type": "input_audio", "input_audio": part.url or part.data}
    if part.kind == "file":
        if part.file_id is not None:
            return {"type": "file", "file_id": part.file_id}
        chunk = {"type": "document_url", "document_url": url}
        return {**chunk, "document_name": part.filename} if part.filename else chunk
    raise refuse(part, draft.model)


def _shorten_ids(draft: Draft) -> None:
    """Shortens ids of tool calls to nine letters or digits; the mapping is the same throughout a request."""
    names: dict[str, str] = {}
    for message in draft.messages:
        for given in [message.get("tool_call_id"), *(call.get("id") for call in message.get("tool_calls") or [])]:
            if isinstance(given, str) and _ID.fullmatch(given):
                names[given] = given
    taken = set(names)
    for index, message in enumerate(draft.messages):
        changed = dict(message)
        if "tool_calls" in message:
            calls = message["tool_calls"] or []
            changed["tool_calls"] = [_call(call, _short(str(call.get("id")), names, taken)) for call in calls]
            if not calls:
                del changed["tool_calls"]
        if message.get("tool_call_id"):
            changed["tool_call_id"] = _short(message["tool_call_id"], names, taken)
        draft.put_message(index, changed)


def _call(call: dict[str, Any], identity: str) -> dict[str, Any]:
    function = call["function"]
    named = {"name": function.get("name"), "arguments": function.get("arguments") or "{}"}
    return {"id": identity, "type": "function", "function": named}


def _short(given: str, names: dict[str, str], taken: set[str]) -> str:
    salt = 0
    while given not in names:
        number = int.from_bytes(hashlib.sha256(f"{given}{'#' * salt}".encode()).digest())
        short = "".join(_DIGITS[number // 62**place % 62] for place in range(9))
        salt += 1
        if short not in taken:
            names[given] = short
            taken.add(short)
    return names[given]


def _order(draft: Draft) -> None:
    """Puts the messages into the order that the vendor requires. An assistant message must not be empty, a user message
    must not follow a tool message, and the last message must not be from the assistant unless it is to be continued.
    """
    ordered: list[dict[str, Any]] = []
    for message in draft.messages:
        if message["role"] == "assistant" and not message["content"] and not message.get("tool_calls"):
            continue
        if message["role"] == "user" and ordered and ordered[-1]["role"] == "tool":
            ordered.append({"role": "assistant", "content": _FILLER})
            draft.adapt("messages")
        ordered.append(message)
    if not ordered:
        raise BadRequest(f"{draft.model} needs a message with content.", param="messages")
    if ordered[-1]["role"] == "assistant" and not ordered[-1].get("tool_calls") and "prefix" not in ordered[-1]:
        ordered[-1] = {**ordered[-1], "prefix": True}
        draft.adapt("messages")
    draft.body["messages"] = ordered
