"""Translates: a whole OpenAI-shaped answer into the canonical one, and the pieces that whole and streamed answers
share.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from proxy.codec import encode
from proxy.errors import UpstreamError, UpstreamTruncated
from proxy.providers.base import HTTPResponse
from proxy.providers.openai.errors import error_in, scrub
from proxy.schema import FINISH_REASONS, ChatResponse, Choice, Usage

_decode = msgspec.json.Decoder().decode
_BROKEN_OFF = "Input data was truncated"  # msgspec's words
_FINISH = {"eos": "stop", "model_length": "length", "max_tokens": "length", "tool_use": "tool_calls"}


def decode(data: bytes) -> dict[str, Any]:
    """One JSON object from a provider. Raises UpstreamTruncated for the start of one, UpstreamError for all else."""
    try:
        value = _decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        if str(error) == _BROKEN_OFF:
            raise UpstreamTruncated("The provider's answer broke off in the middle.") from None
        value = None
    if not isinstance(value, dict):
        raise UpstreamError("The provider's answer is not a JSON object.", retryable=True)
    return value


def parse(response: HTTPResponse) -> ChatResponse:
    """Raises UpstreamError when the answer is an error in a 200, or has no choices, or a choice never finished."""
    body = decode(response.body)
    error = error_in(body)
    if error is not None:
        raise error
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise UpstreamError("The provider's answer has no choices.", retryable=True)
    answer = {
        **body,
        "object": "chat.completion",
        "choices": [_choice(raw, place) for place, raw in enumerate(choices)],
    }
    answer.pop("usage", None)
    usage = usage_of(body)
    if usage is not None:
        answer["usage"] = usage
    return cast(ChatResponse, answer)


def _choice(raw: dict[str, Any], place: int) -> Choice:
    message = raw.get("message")
    if not isinstance(message, dict):
        raise UpstreamError("The provider's answer has a choice without a message.", retryable=True)
    calls = [tool_call(call, f"call_{place}_{i}") for i, call in enumerate(listed(message.get("tool_calls")))]
    clean = {"role": "assistant", "content": None, "refusal": None, "annotations": [], **plain(message)}
    clean["role"], clean["annotations"] = "assistant", listed(message.get("annotations"))
    clean.pop("tool_calls", None)
    if clean.get("function_call") is None:
        clean.pop("function_call", None)
    if calls:
        clean["tool_calls"] = calls
        clean["content"] = clean["content"] or None
    reason, native = finish_reason(raw.get("finish_reason"), bool(calls))
    if reason is None:
        raise UpstreamTruncated("The provider's answer has no finish_reason.")
    choice = {**raw, "index": raw.get("index", place), "message": clean, "finish_reason": reason}
    choice["logprobs"] = raw.get("logprobs")
    return cast(Choice, choice | native)


def listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def plain(part: dict[str, Any]) -> dict[str, Any]:
    """A message or delta whose texts are texts: `reasoning` (vLLM, Groq, Ollama) under the name clients read,
    `reasoning_content`, and content parts (Mistral's thinking models) joined into it and `content`.
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


def _texts(value: object) -> list[str]:
    """The texts inside a value that is a text, a text part, or a list of such."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return _texts(value.get("text"))
    return [text for piece in value for text in _texts(piece)] if isinstance(value, list) else []


def finish_reason(value: object, has_calls: bool) -> tuple[str | None, dict[str, Any]]:
    """One of OpenAI's five words, and the vendor's own beside it where it is none of them. None stays None: never
    invented.
    """
    if not isinstance(value, str) or not value:
        return None, {}
    if value == "error":
        raise UpstreamError("The provider stopped with an error in the middle of its answer.", retryable=True)
    reason = value if value in FINISH_REASONS else _FINISH.get(value, "stop")
    if has_calls and reason == "stop":
        reason = "tool_calls"
    return reason, {} if value in FINISH_REASONS else {"native_finish_reason": scrub(value)[:64]}


def tool_call(raw: object, spare_id: str) -> dict[str, Any]:
    """A whole tool call with id, type and its arguments as a JSON string."""
    call: dict[str, Any] = dict(raw) if isinstance(raw, dict) else {}
    call.pop("index", None)
    function = call.get("function")
    if call.get("type") == "custom" and "custom" in call:
        return {**call, "id": call.get("id") or spare_id}
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise UpstreamError("The provider's answer has a tool call without a function name.", retryable=True)
    function = {**function, "arguments": arguments_text(function.get("arguments")) or "{}"}
    return {**call, "id": call.get("id") or spare_id, "type": "function", "function": function}


def arguments_text(value: object) -> str:
    """Arguments as text; some servers send an object."""
    if value is None:
        return ""
    return value if isinstance(value, str) else encode(value).decode()


def usage_of(body: dict[str, Any]) -> Usage | None:
    """Usage with its three integers, from where vendors put it; None when there is none to trust."""
    extra = body.get("x_groq")
    for raw in (body.get("usage"), extra.get("usage") if isinstance(extra, dict) else None):
        if isinstance(raw, dict):
            prompt, output = raw.get("prompt_tokens"), raw.get("completion_tokens")
            if isinstance(prompt, int) and isinstance(output, int) and prompt >= 0 and output >= 0:
                output += _reasoning_beside(raw, prompt + output)
                counted = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
                return cast(Usage, {**raw, **counted})
    return None


def _reasoning_beside(raw: dict[str, Any], counted: int) -> int:
    """Reasoning tokens that a vendor counts in the total but not in completion_tokens (seen at xAI): they bill as
    output.
    """
    details, total = raw.get("completion_tokens_details"), raw.get("total_tokens")
    reasoning = details.get("reasoning_tokens") if isinstance(details, dict) else None
    if isinstance(total, int) and isinstance(reasoning, int) and 0 < reasoning == total - counted:
        return reasoning
    return 0
