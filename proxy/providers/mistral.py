"""Translates: Mistral's dialect, which refuses every field it does not know (facts checked in November 2026)."""

from __future__ import annotations

import hashlib
import re
from typing import Any, ClassVar

from proxy.errors import BadRequest
from proxy.providers.base import Built
from proxy.providers.content import Part, parts, refuse
from proxy.providers.openai import OpenAI, embeddings
from proxy.providers.openai.errors import ErrorRules
from proxy.providers.openai.request import Draft
from proxy.schema import EmbeddingsRequest

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
_DETAILS = ("auto", "low", "high")
_MAX_TEMPERATURE = 1.5
_FILLER = "OK"  # stands between a tool's result and the next words of the user, where some models want an answer
_SWITCHED = re.compile(r"mistral-(medium|small)|mistral-large-4|zai-|glm-|deepseek-")  # think or do not
_ID = re.compile(r"[a-zA-Z0-9]{9}")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_EMBEDDINGS = ("model", "input", "metadata", "output_dimension", "output_dtype", "encoding_format")


class Mistral(OpenAI, frozen=True, kw_only=True):
    base: ClassVar[str | None] = "https://api.mistral.ai/v1"
    key_env: ClassVar[str | None] = "MISTRAL_API_KEY"
    stream_usage: ClassVar[bool] = False
    ranks: ClassVar[bool | None] = False
    reasoning_back: ClassVar[str | None] = None
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

    @property
    def embeddings_batch(self) -> int | None:
        return None

    def shape(self, draft: Draft) -> None:
        draft.name_limit("max_tokens")
        draft.name_roles()
        draft.rename("seed", "random_seed")
        draft.body.pop("stream_options", None)
        draft.narrow_tools()
        draft.only_functions()
        draft.strip_echoes()
        _name_values(draft)
        _level_effort(draft)
        draft.plain_tools()
        for tool in draft.tools():
            tool["function"].setdefault("parameters", {"type": "object", "properties": {}})
        draft.keep_only(_FIELDS)
        draft.keep_message_fields(_MESSAGES)
        for index, message in enumerate(draft.messages):
            content = _content(draft, message, f"messages.{index}.content")
            draft.put_message(index, {**message, "content": content})
        _shorten_ids(draft)
        _order(draft)

    def build_embeddings(self, request: EmbeddingsRequest, model: str) -> Built:
        """Vectors of whole numbers (`output_dtype`) are asked as numbers: base64 holds floats only for us."""
        embeddings.texts_only(request, model)
        body = {
            ("output_dimension" if name == "dimensions" else name): value
            for name, value in request.fields.items()
            if name in _EMBEDDINGS or name == "dimensions"
        }
        floats = body.get("output_dtype") in (None, "float")
        body |= {"model": model, "encoding_format": "base64" if floats else "float"}
        dropped = [name for name in request.fields if name not in (*_EMBEDDINGS, "dimensions")]
        return embeddings.built("/embeddings", body, dropped)


def _name_values(draft: Draft) -> None:
    """Values that have other words, or other limits."""
    body = draft.body
    if body.get("tool_choice") == "required":
        body["tool_choice"] = "any"
    tier = body.get("service_tier")
    if isinstance(tier, str) and tier in _TIERS:
        body["service_tier"] = _TIERS[tier]
    else:
        draft.drop("service_tier")
    temperature = body.get("temperature")
    if isinstance(temperature, int | float) and temperature > _MAX_TEMPERATURE:
        body["temperature"] = _MAX_TEMPERATURE
        draft.adapt("temperature")
    prediction = body.get("prediction")
    if isinstance(prediction, dict) and isinstance(prediction.get("content"), list):
        text = "".join(part.text for part in parts(prediction["content"], "prediction.content"))
        body["prediction"] = {**prediction, "content": text}


def _level_effort(draft: Draft) -> None:
    """Its models think or do not; Magistral always does, and the others cannot."""
    effort = draft.body.get("reasoning_effort")
    if effort is None:
        return
    if not _SWITCHED.match(draft.model):
        draft.drop("reasoning_effort")
    elif effort == "minimal":
        draft.body["reasoning_effort"] = "none"
        draft.adapt("reasoning_effort")
    elif effort not in ("none", "high"):
        draft.body["reasoning_effort"] = "high"
        draft.adapt("reasoning_effort")


def _content(draft: Draft, message: dict[str, Any], where: str) -> Any:
    """Texts as they are, other parts as its own chunks."""
    content = message.get("content")
    if not isinstance(content, list):
        return content or ""
    return [_chunk(draft, part) for part in parts(content, where)]


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
    """Ids of tool calls are nine letters or digits; the same id always becomes the same one within a request."""
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
    """An assistant's message must say something; a user cannot speak right after a tool; the last word cannot be the
    assistant's unless it is to be continued.
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
        raise BadRequest(f"{draft.model} needs a message that says something.", param="messages")
    if ordered[-1]["role"] == "assistant" and not ordered[-1].get("tool_calls") and "prefix" not in ordered[-1]:
        ordered[-1] = {**ordered[-1], "prefix": True}
        draft.adapt("messages")
    draft.body["messages"] = ordered
