"""Translates: a whole OpenAI-shaped answer into the canonical one, with pieces that streams share."""

from __future__ import annotations

import re
from typing import Any, cast

from proxy.providers.base.answers import listed, mapping, objects, tool_call, whole
from proxy.providers.base.contract import HTTPResponse
from proxy.providers.base.errors import ErrorRules, scrub
from proxy.providers.compatible.errors import body_of
from proxy.schema.chat import FINISH_REASONS, ChatResponse, Choice, Usage
from proxy.schema.errors import UpstreamError, UpstreamTruncated

_NO_LETTER = re.compile(r"[^a-zA-Z0-9]")
_FINISH = {"eos": "stop", "model_length": "length", "max_tokens": "length", "tool_use": "tool_calls"}
_TIERS = {"on_demand": "default", "performance": "default"}  # Groq's words
_KNOWN_TIERS = ("auto", "default", "flex", "scale", "priority", "fast")
# Additions of no use to clients: Together's echoes and seeds above 2**53, Groq's own usage, a stream's padding.
PADDING = frozenset({"prompt", "x_groq", "obfuscation", "p"})
CHOICE_PADDING = frozenset({"text", "seed", "delta", "message", "prompt_token_ids", "token_ids"})
# Where vendors count cached tokens outside `prompt_tokens_details`: Together, Mistral, DeepSeek.
_CACHED = ("cached_tokens", "num_cached_tokens", "prompt_cache_hit_tokens")


def parse(response: HTTPResponse, rules: ErrorRules) -> ChatResponse:
    """Raises UpstreamError when the answer is an error in a 200, or has no choices, or a choice never finished."""
    body = body_of(response, rules)
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise UpstreamError("The provider's answer has no choices.", retryable=True)
    answer = {
        **envelope(body),
        "object": "chat.completion",
        "choices": [_choice(raw, place, body.get("id")) for place, raw in enumerate(choices)],
    }
    usage = usage_of(body)
    if usage is not None:
        answer["usage"] = usage
    return cast(ChatResponse, answer)


def envelope(body: dict[str, Any]) -> dict[str, Any]:
    """The fields beside choices and usage in an answer or a chunk, without those of no use to clients."""
    kept = {name: value for name, value in body.items() if name not in PADDING and name not in ("choices", "usage")}
    tier = kept.get("service_tier")
    if isinstance(tier, str) and tier not in _KNOWN_TIERS:
        known = _TIERS.get(tier)
        kept |= {"service_tier": known} | ({} if known or not tier else {"native_service_tier": tier})
    return kept


def _choice(raw: dict[str, Any], place: int, answer_id: object) -> Choice:
    message = raw.get("message")
    if message is None and raw.get("finish_reason") == "content_filter":
        message = {}  # Azure sends none where its filter took the whole answer
    if not isinstance(message, dict):
        raise UpstreamError("The provider's answer has a choice without a message.", retryable=True)
    told = listed(message.get("tool_calls"))
    calls = [tool_call(call, spare_id(answer_id, place, i)) for i, call in enumerate(told)]
    clean = {"role": "assistant", "content": None, "refusal": None, "annotations": [], **plain(message)}
    clean["role"], clean["annotations"] = "assistant", objects(message.get("annotations"))
    clean.pop("tool_calls", None)
    if clean.get("function_call") is None:
        clean.pop("function_call", None)
    if calls:
        clean["tool_calls"] = calls
        clean["content"] = clean["content"] or None
    elif clean["content"] is None and not any(clean.get(name) for name in ("refusal", "function_call", "audio")):
        clean["content"] = ""
    reason, native = finish_reason(raw.get("finish_reason"), bool(calls))
    if reason is None:
        raise UpstreamTruncated("The provider's answer has no finish_reason.")
    choice = {name: value for name, value in raw.items() if name not in CHOICE_PADDING}
    index = raw.get("index")
    choice |= {"index": index if isinstance(index, int) else place, "message": clean, "finish_reason": reason}
    choice["logprobs"] = logprobs(raw.get("logprobs"))
    return cast(Choice, choice | native)


def logprobs(value: object, token: object = None) -> dict[str, Any] | None:
    """OpenAI's `{"content": [...]}`; Together's older `{"tokens", "token_logprobs", "top_logprobs"}` and, in streams,
    its bare number for the `token` beside it, become that.
    """
    if isinstance(value, int | float) and isinstance(token, str) and token:
        return {"content": [_token(token, value, None)]}
    if not isinstance(value, dict):
        return None
    if not isinstance(value.get("tokens"), list):
        return {name: part for name, part in value.items() if part is not None} or None
    numbers, tops = listed(value.get("token_logprobs")), listed(value.get("top_logprobs"))
    tokens = [
        _token(text, numbers[place] if place < len(numbers) else None, tops[place] if place < len(tops) else None)
        for place, text in enumerate(value["tokens"])
        if isinstance(text, str)
    ]
    return {"content": tokens}


def _token(text: str, number: object, top: object) -> dict[str, Any]:
    """-9999.0 is OpenAI's word for very unlikely."""
    likely = number if isinstance(number, int | float) else -9999.0
    others = [_token(each, value, None) for each, value in top.items()] if isinstance(top, dict) else []
    for other in others:
        del other["top_logprobs"]
    return {"token": text, "logprob": likely, "bytes": list(text.encode(errors="replace")), "top_logprobs": others}


def plain(part: dict[str, Any]) -> dict[str, Any]:
    """A message or delta with plain texts: `reasoning` (vLLM, Groq, Ollama) becomes `reasoning_content`, and content
    parts (Mistral's thinking models) are joined.
    """
    if "reasoning" in part:
        part = dict(part)
        reasoning = part.pop("reasoning")
        part["reasoning_content"] = part.get("reasoning_content") or reasoning
    if isinstance(part.get("content"), list):
        thinking = "".join(_texts([piece.get("thinking") for piece in part["content"] if isinstance(piece, dict)]))
        part = {**part, "content": "".join(_texts(part["content"]))}
        if thinking:
            part["reasoning_content"] = thinking
    for name in ("content", "refusal", "reasoning_content"):
        if name in part and not isinstance(part[name], str):
            part = {**part, name: None}
    return part


def _texts(value: object, depth: int = 4) -> list[str]:
    """The texts in a text, a text part, or a list of these; no vendor nests them deeper."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return _texts(value.get("text"), depth - 1) if depth else []
    return [text for piece in value for text in _texts(piece, depth - 1)] if depth and isinstance(value, list) else []


def finish_reason(value: object, has_calls: bool) -> tuple[str | None, dict[str, Any]]:
    """One of OpenAI's five words, with the vendor's own word beside it if it differs. None stays None: a finish is
    never invented.
    """
    if not isinstance(value, str) or not value:
        return None, {}
    if value == "error":
        raise UpstreamError("The provider stopped with an error in the middle of its answer.", retryable=True)
    reason = value if value in FINISH_REASONS else _FINISH.get(value, "stop")
    if has_calls and reason in ("stop", "function_call"):
        reason = "tool_calls"
    return reason, {} if value in FINISH_REASONS else {"native_finish_reason": scrub(value)[:64]}


def spare_id(answer_id: object, choice: int, call: int) -> str:
    """An id for a tool call without one. It differs between answers, since clients look up results by it, and is the
    same for whole and streamed answers. OpenAI accepts 40 characters.
    """
    own = _NO_LETTER.sub("", answer_id)[-24:] if isinstance(answer_id, str) else ""
    return f"call_{own}_{choice}_{call}" if own else f"call_{choice}_{call}"


def usage_of(body: dict[str, Any]) -> Usage | None:
    """Usage with its three integers, wherever the vendor put it; None if there is none to trust."""
    for raw in (body.get("usage"), mapping(body.get("x_groq")).get("usage")):
        if isinstance(raw, dict):
            prompt, output = whole(raw.get("prompt_tokens")), whole(raw.get("completion_tokens"))
            if prompt is not None and output is not None:
                prompt += _audio_beside(raw, prompt + output)
                output += _reasoning_beside(raw, prompt + output)
                counted = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
                rest = {name: value for name, value in raw.items() if name != "cost" and _is_sound(name, value)}
                return cast(Usage, {**rest, **counted, **_details(raw)})
    return None


def _is_sound(name: str, value: object) -> bool:
    return isinstance(value, dict) or not name.endswith("_tokens_details")


def _details(raw: dict[str, Any]) -> dict[str, Any]:
    """Cached and reasoning tokens in the place where clients look for them."""
    found: dict[str, Any] = {}
    inside = mapping(raw.get("prompt_tokens_details"))
    cached = next((raw[name] for name in _CACHED if whole(raw.get(name)) is not None), None)
    if cached is not None and inside.get("cached_tokens") is None:
        found["prompt_tokens_details"] = {**inside, "cached_tokens": cached}
    reasoning = whole(raw.get("reasoning_tokens"))
    if reasoning is not None and not isinstance(raw.get("completion_tokens_details"), dict):
        found["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    cost = raw.get("cost")
    cost = cost.get("total_cost") if isinstance(cost, dict) else cost
    if isinstance(cost, int | float):
        found["provider_cost"] = cost  # USD; `cost` is what it costs by pricing.yaml
    return found


def _reasoning_beside(raw: dict[str, Any], counted: int) -> int:
    """Reasoning tokens that a vendor counts in the total but not in completion_tokens (seen at xAI): they bill as
    output.
    """
    details, total = raw.get("completion_tokens_details"), raw.get("total_tokens")
    reasoning = details.get("reasoning_tokens") if isinstance(details, dict) else raw.get("reasoning_tokens")
    if isinstance(total, int) and isinstance(reasoning, int) and 0 < reasoning == total - counted:
        return reasoning
    return 0


def _audio_beside(raw: dict[str, Any], counted: int) -> int:
    """Likewise audio input tokens, which Mistral counts in the total but not in prompt_tokens."""
    details, total = raw.get("prompt_tokens_details"), raw.get("total_tokens")
    audio = details.get("audio_tokens") if isinstance(details, dict) else None
    return audio if isinstance(total, int) and isinstance(audio, int) and 0 < audio == total - counted else 0
