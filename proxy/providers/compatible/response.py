"""Translates: a whole OpenAI-shaped answer into the canonical one, with parts that streams share."""

from __future__ import annotations

from typing import Any, cast

from proxy.providers.base.answers import (
    call_entries,
    choice_index,
    json_text,
    listed,
    mapping,
    objects,
    tool_call,
    whole_arguments,
)
from proxy.providers.base.call_ids import CallIds, Offer
from proxy.providers.base.contract import HTTPResponse
from proxy.providers.base.errors import ErrorRules
from proxy.providers.base.finish import derived_finish, names_finish
from proxy.providers.base.usage import usage_of
from proxy.providers.compatible.errors import body_of
from proxy.providers.compatible.finish import CALLED, finish_reason
from proxy.schema.chat import ChatRequest, ChatResponse
from proxy.schema.errors import UpstreamError
from proxy.schema.long_text import joined

_TIERS = {"on_demand": "default", "performance": "default"}  # Groq's words
_KNOWN_TIERS = ("auto", "default", "flex", "scale", "priority", "fast")
# Additions without use to clients: Together's echoes and seeds above 2**53, Groq's own usage, a stream's padding, and
# empty error objects, which clients would take for errors.
PADDING = frozenset({"prompt", "x_groq", "obfuscation", "p", "error"})
_BESIDE = PADDING | {"choices", "usage"}
TEXTS = ("content", "refusal", "reasoning_content")
_CALLED = frozenset(CALLED)
_PLAIN = frozenset({"role", "content", "refusal", "annotations"})
CHOICE_PADDING = frozenset({"text", "seed", "delta", "message", "prompt_token_ids", "token_ids", "usage", "error"})


def parse(response: HTTPResponse, rules: ErrorRules, request: ChatRequest | None = None) -> ChatResponse:
    """The decoded body, changed in place where it is not in OpenAI's shape. Raises UpstreamError if the answer is an
    error in a 200, or has no choices.
    """
    return parse_body(body_of(response, rules), request)


def parse_body(body: dict[str, Any], request: ChatRequest | None = None) -> ChatResponse:
    """The same for a decoded body that is not an error."""
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        if not (choices := choices_in(body)):
            raise _no_choices()
        body["choices"] = choices
    report = usage_of(body)
    limit = request.max_tokens if request is not None else None
    is_cut = limit is not None and report is not None and report.billed.output >= limit * len(choices)
    offer = Offer(request)
    for place, choice in enumerate(choices):
        if not isinstance(choice, dict):
            raise _no_choices()
        _normalize(choice, place, CallIds(offer, body.get("id"), place), is_cut)
    body["object"] = "chat.completion"
    if not PADDING.isdisjoint(body):
        _remove(body, PADDING)
    if "service_tier" in body:
        _name_tier(body)
    if report is not None:
        body["usage"] = report
    else:
        body.pop("usage", None)
    return cast(ChatResponse, body)


def choices_in(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The choices of an answer or a chunk; some servers send a single one without the list around it."""
    return objects(choices := body.get("choices")) or ([choices] if isinstance(choices, dict) and choices else [])


def bare_message(choice: dict[str, Any]) -> dict[str, Any]:
    """The message of a choice that has a bare text in its place, or in `text`, as plain completions do."""
    said = choice.get("message") or choice.get("text")
    return {"content": said} if isinstance(said, str) else {}


def _no_choices() -> UpstreamError:
    return UpstreamError("The provider's answer has no choices.", retryable=True)


def envelope(body: dict[str, Any]) -> dict[str, Any]:
    """The fields beside choices and usage in a chunk, except those without use to clients."""
    kept = {name: value for name, value in body.items() if name not in _BESIDE}
    if "service_tier" in kept:
        _name_tier(kept)
    return kept


def _name_tier(body: dict[str, Any]) -> None:
    tier = body["service_tier"]
    if isinstance(tier, str) and tier not in _KNOWN_TIERS:
        body["service_tier"] = known = _TIERS.get(tier)
        if tier and (not known or tier == "performance"):  # which has a price of its own
            body["native_service_tier"] = tier


def _remove(body: dict[str, Any], names: frozenset[str]) -> None:
    for name in names.intersection(body):
        del body[name]


def _normalize(choice: dict[str, Any], place: int, ids: CallIds, is_cut: bool) -> None:
    message, word = choice.get("message"), choice.get("finish_reason")
    if message is None and finish_reason(word, None)[0] == "content_filter":
        message = {}  # Azure sends none if its filter removed the whole answer
    if not isinstance(message, dict):
        # Without a finish, a delta is a piece of a stream that broke off.
        message = (mapping(choice.get("delta")) if names_finish(word) else None) or bare_message(choice) or None
    if message is None:
        raise UpstreamError("The provider's answer has a choice without a message.", retryable=True)
    message = _message(message, ids)
    called = None if _CALLED.isdisjoint(message) else next(name for name in CALLED if name in message)
    reason, native = finish_reason(word, called)
    if reason is None:  # the body is complete
        reason, native = derived_finish(called, is_cut, word)
    if not CHOICE_PADDING.isdisjoint(choice):
        _remove(choice, CHOICE_PADDING)
    choice["index"] = choice_index(choice.get("index"), place)
    choice["message"], choice["finish_reason"] = message, reason
    choice["logprobs"] = logprobs(choice.get("logprobs"))
    if native:
        choice |= native


def _message(message: dict[str, Any], ids: CallIds) -> dict[str, Any]:
    content = message.get("content")
    has_more = message.get("refusal") or message.get("annotations") or not message.keys() <= _PLAIN
    if isinstance(content, str) and not has_more:
        return {"role": "assistant", "content": content, "refusal": None, "annotations": []}  # like most answers
    message = plain(message)
    message["role"] = "assistant"
    message.setdefault("content", None)
    message.setdefault("refusal", None)
    message["annotations"] = objects(message.get("annotations"))
    message.pop("usage", None)
    _put_calls(message, ids)
    if "tool_calls" in message:
        message["content"] = message["content"] or None
    elif message["content"] is None and not any(message.get(name) for name in ("refusal", "function_call", "audio")):
        message["content"] = ""
    return message


def _put_calls(message: dict[str, Any], ids: CallIds) -> None:
    """Sets the calls in the client's form: if the request has `tools`, never as the deprecated `function_call`."""
    raw, legacy = message.pop("tool_calls", None), message.pop("function_call", None)
    calls = [call for call in call_entries(raw) if not _says_nothing(call)]
    if isinstance(legacy, dict) and not calls:
        if ids.offer.is_legacy:
            message["function_call"] = {**legacy, "arguments": whole_arguments(legacy.get("arguments"))}
        else:
            calls = [{"function": legacy}]
    if calls:
        found = [tool_call(call, "") for call in calls]
        message["tool_calls"] = [{**call, "id": ids.unique(call["id"], place)} for place, call in enumerate(found)]


def _says_nothing(call: object) -> bool:
    """True for padding in a list of calls."""
    return not call or (
        isinstance(call, dict) and not any(call.get(name) for name in ("id", "function", "custom", "name"))
    )


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
    """One token. OpenAI writes -9999.0 for very unlikely."""
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
        thinking = joined(_texts([piece.get("thinking") for piece in part["content"] if isinstance(piece, dict)]))
        part = {**part, "content": joined(_texts(part["content"]))}
        if thinking:
            part["reasoning_content"] = thinking
    for name in TEXTS:
        if name in part and not isinstance(part[name], str):
            part = {**part, name: None if part[name] is None or name == "refusal" else json_text(part[name])}
    return part


def _texts(value: object, depth: int = 4) -> list[str]:
    """The texts in a text, a text part, or a list of these; no vendor nests them deeper."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return _texts(value.get("text"), depth - 1) if depth else []
    return [text for piece in value for text in _texts(piece, depth - 1)] if depth and isinstance(value, list) else []
