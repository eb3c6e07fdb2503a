"""Translates: what Mistral and Groq make of OpenAI's wire: what they refuse, and how their answers differ.

Their paths tell them apart: `/mistral/v1` and `/groq/openai/v1` before the names of the endpoints. Requests are checked
against the fields of the packages `mistralai` 3.7 and `groq` 1.7; answers say the same as OpenAI's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from tests.upstream.http1 import Request
from tests.upstream.modes import Script
from tests.upstream.openai_wire import OpenAIWire
from tests.upstream.wire import Ask, Frame, Refused, Strict

MISTRAL, GROQ = "/mistral/v1", "/groq/openai/v1"
_encode = msgspec.json.Encoder().encode
_Share = Annotated[float, Meta(ge=0, le=1)]
_Count = Annotated[int, Meta(ge=1)]
_NINE = re.compile(r"[a-zA-Z0-9]{9}")


class _Named(Strict):
    name: str


class _Choice(Strict):
    type: Literal["function"]
    function: _Named


class _Function(Strict):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _ToolSpec(Strict):
    type: Literal["function"]
    function: _Function


class _CalledFunction(Strict):
    name: str
    arguments: str


class _Call(Strict):
    id: str
    function: _CalledFunction
    type: Literal["function"] = "function"


class _Text(Strict, tag_field="type", tag="text"):
    text: str


class _Link(Strict):
    url: str
    detail: Literal["auto", "low", "high"] | None = None


class _Image(Strict, tag_field="type", tag="image_url"):
    image_url: _Link


# --- Mistral ----------------------------------------------------------------------------------------------------------


class _Document(Strict, tag_field="type", tag="document_url"):
    document_url: str
    document_name: str | None = None


class _Audio(Strict, tag_field="type", tag="input_audio"):
    input_audio: str


class _File(Strict, tag_field="type", tag="file"):
    file_id: str


class _MistralSystem(Strict, tag_field="role", tag="system"):
    content: str | list[_Text]


class _MistralUser(Strict, tag_field="role", tag="user"):
    content: str | list[_Text | _Image | _Document | _Audio | _File]


class _MistralAssistant(Strict, tag_field="role", tag="assistant"):
    content: str | list[_Text] | None = None
    tool_calls: list[_Call] | None = None
    prefix: bool = False


class _MistralTool(Strict, tag_field="role", tag="tool"):
    content: str | list[_Text | _Image]
    tool_call_id: str
    name: str | None = None


class _MistralFunction(Strict):
    name: str
    parameters: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class _MistralToolSpec(Strict):
    type: Literal["function"]
    function: _MistralFunction


_MistralMessage = _MistralSystem | _MistralUser | _MistralAssistant | _MistralTool


class _MistralBody(Strict):
    model: str
    messages: Annotated[list[_MistralMessage], Meta(min_length=1)]
    temperature: Annotated[float, Meta(ge=0, le=1.5)] | None = None
    top_p: _Share | None = None
    max_tokens: _Count | None = None
    min_tokens: int | None = None
    stream: bool = False
    stop: str | list[str] | None = None
    random_seed: int | None = None
    metadata: dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    tools: list[_MistralToolSpec] | None = None
    tool_choice: Literal["auto", "none", "any", "required"] | _Choice | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    top_k: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    prompt_logprobs: bool | None = None
    top_prompt_logprobs: int | None = None
    n: int | None = None
    prediction: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none", "high"] | None = None
    prompt_mode: str | None = None
    guardrails: list[Any] | None = None
    prompt_cache_key: str | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    safe_prompt: bool | None = None


class MistralWire(OpenAIWire):
    """Refuses what the vendor refuses; whole tool calls in one chunk, content as chunks, usage always in the last."""

    def claims(self, path: str) -> bool:
        return path.startswith(MISTRAL) and super().claims(path)

    def headers(self, seq: int, script: Script) -> list[tuple[str, str]]:
        limits = [("x-ratelimit-limit-req-10-second", "60"), ("x-ratelimit-remaining-tokens-minute", "49000")]
        return [("mistral-correlation-id", f"corr-{seq}"), *limits]

    def ask(self, request: Request, seq: int) -> Ask:
        try:
            body = msgspec.json.decode(request.body, type=_MistralBody)
        except msgspec.ValidationError as error:
            raise Refused(422, _mistral_detail(str(error))) from error
        wrong = _wrong_order(body.messages)
        if wrong is not None:
            raise Refused(400, _mistral_error(400, wrong, "invalid_request_error", None))
        return super().ask(request, seq)

    def frames(self, ask: Ask, script: Script) -> Iterator[Frame]:
        script = replace(script, usage="in_last") if script.usage == "asked" else script
        seq = 0 if script.same_ids else ask.seq
        calls: list[dict[str, Any]] = []
        for frame in super().frames(ask, script):
            if frame.end:
                yield frame
                continue
            chunk = _data(frame)
            for choice in chunk["choices"]:
                delta = choice["delta"]
                _gather(calls, delta.pop("tool_calls", []))
                delta.pop("refusal", None)
                _as_chunks(delta)
                if choice["finish_reason"] and calls:
                    delta["tool_calls"] = [_mistral_call(call, seq, place) for place, call in enumerate(calls)]
            yield replace(frame, data=_event(_plainer(chunk)))

    def whole(self, ask: Ask, script: Script) -> Frame:
        frame = super().whole(ask, script)
        answer = msgspec.json.decode(frame.data)
        seq = 0 if script.same_ids else ask.seq
        for choice in answer["choices"]:
            message = choice["message"]
            for name in ("refusal", "annotations"):
                message.pop(name, None)
            _as_chunks(message)
            calls = message.get("tool_calls") or []
            message["tool_calls"] = [_mistral_call(call, seq, place) for place, call in enumerate(calls)] or None
            message["content"] = message.get("content") or ""
        return replace(frame, data=_encode(_plainer(answer)))

    def error(self, status: int, code: str | None, model: str) -> bytes:
        if code == "context_length_exceeded":
            text = f"Prompt contains 129 tokens, too large for model with 128 maximum context length: {model}"
            return _mistral_error(400, text, "invalid_request_error", "3051")
        if code == "invalid_value":
            return _mistral_error(400, "The request is not valid.", "invalid_request_error", None)
        kinds: dict[int, tuple[str, str, str | None]] = {
            400: (f"Invalid model: {model}", "invalid_model", "1500"),
            404: (f"Invalid model: {model}", "invalid_model", "1500"),
            429: ("Rate limit exceeded", "rate_limited", "1300"),
            503: ("Service tier capacity exceeded for this model.", "service_tier_capacity_exceeded", "3505"),
        }
        if status == 401:
            return _encode({"detail": "Unauthorized"})
        message, kind, own = kinds.get(status, ("Internal error", "internal_server_error", "1000"))
        return _mistral_error(status, message, kind, own)


def _wrong_order(messages: list[_MistralMessage]) -> str | None:
    """What the vendor's template refuses."""
    waiting: list[str] = []
    before: _MistralMessage | None = None
    for message in messages:
        if isinstance(message, _MistralTool):
            if message.tool_call_id not in waiting:
                return "Not the same number of function calls and responses"
            waiting.remove(message.tool_call_id)
        elif waiting:
            return "Not the same number of function calls and responses"
        if isinstance(message, _MistralUser) and isinstance(before, _MistralTool):
            return "Unexpected role 'user' after role 'tool'"
        if isinstance(message, _MistralAssistant):
            if not message.content and not message.tool_calls:
                return "Assistant message must have either content or tool_calls, but not none."
            waiting = [call.id for call in message.tool_calls or []]
            for identity in waiting:
                if not _NINE.fullmatch(identity):
                    return f"Tool call id was {identity} but must be a-z, A-Z, 0-9, with a length of 9."
        before = message
    if isinstance(before, _MistralAssistant) and not before.prefix:
        return "Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant"
    return None


def _as_chunks(message: dict[str, Any]) -> None:
    """Reasoning stands in the content, as a chunk of its own."""
    thought = message.pop("reasoning_content", None)
    if thought:
        chunks: list[dict[str, Any]] = [{"type": "thinking", "thinking": [{"type": "text", "text": thought}]}]
        chunks += [{"type": "text", "text": message["content"]}] if message.get("content") else []
        message["content"] = chunks


def _mistral_call(call: dict[str, Any], seq: int, place: int) -> dict[str, Any]:
    return {"id": f"Call{seq % 1000:03d}{place % 100:02d}", "function": call["function"]}


def _plainer(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in ("service_tier", "system_fingerprint")}


def _mistral_detail(text: str) -> bytes:
    """A checker's words with the path it names: `... - at `$.messages[0]`."""
    field = re.search(r"unknown field `(\w+)`", text)
    path = re.search(r"`\$\.?(.*)`$", text)
    steps = [step for step in re.split(r"[.\[\]]+", path[1] if path else "") if step]
    where = ["body", *steps, *([field[1]] if field else [])]
    kind, message = ("extra_forbidden", "Extra inputs are not permitted") if field else ("value_error", text)
    return _mistral_error(
        422, {"detail": [{"type": kind, "loc": where, "msg": message}]}, "invalid_request_error", None
    )


def _mistral_error(status: int, message: object, kind: str, code: str | None) -> bytes:
    said = {"object": "error", "message": message, "type": kind, "param": None, "code": code}
    return _encode({**said, "raw_status_code": status})


# --- Groq -------------------------------------------------------------------------------------------------------------


class _GroqSystem(Strict, tag_field="role", tag="system"):
    content: str
    name: str | None = None


class _GroqUser(Strict, tag_field="role", tag="user"):
    content: str | list[_Text | _Image]
    name: str | None = None


class _GroqAssistant(Strict, tag_field="role", tag="assistant"):
    content: str | None = None
    name: str | None = None
    tool_calls: list[_Call] | None = None


class _GroqTool(Strict, tag_field="role", tag="tool"):
    content: str
    tool_call_id: str


class _GroqStreamOptions(Strict):
    include_usage: bool | None = None


class _GroqBody(Strict):
    model: str
    messages: Annotated[list[_GroqSystem | _GroqUser | _GroqAssistant | _GroqTool], Meta(min_length=1)]
    stream: bool = False
    stream_options: _GroqStreamOptions | None = None
    max_completion_tokens: _Count | None = None
    max_tokens: _Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: _Share | None = None
    stop: str | Annotated[list[str], Meta(max_length=4)] | None = None
    seed: int | None = None
    n: Annotated[int, Meta(ge=1, le=1)] | None = None
    user: str | None = None
    tools: Annotated[list[_ToolSpec], Meta(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | _Choice | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    service_tier: Literal["auto", "on_demand", "flex", "performance"] | None = None
    reasoning_effort: Literal["none", "default", "low", "medium", "high"] | None = None
    reasoning_format: Literal["hidden", "raw", "parsed"] | None = None
    include_reasoning: bool | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None


class GroqWire(OpenAIWire):
    """Refuses what the vendor refuses; `reasoning`, whole tool calls, usage in `x_groq` and beside it, asked or not."""

    def claims(self, path: str) -> bool:
        return path.startswith(GROQ) and super().claims(path)

    def ask(self, request: Request, seq: int) -> Ask:
        try:
            body = msgspec.json.decode(request.body, type=_GroqBody)
        except msgspec.ValidationError as error:
            text = re.sub(r".*unknown field `(\w+)`.*", r"property '\1' is unsupported", str(error))
            raise Refused(400, _groq_error(text, "invalid_request_error", None)) from error
        if body.reasoning_format is not None and body.include_reasoning is not None:
            text = "cannot specify both reasoning_format and include_reasoning"
            raise Refused(400, _groq_error(text, "invalid_request_error", None))
        return super().ask(request, seq)

    def frames(self, ask: Ask, script: Script) -> Iterator[Frame]:
        usage = "in_last" if script.usage == "asked" else script.usage
        script = replace(script, reasoning_field="reasoning", usage=usage)
        calls: list[dict[str, Any]] = []
        for frame in super().frames(ask, script):
            if frame.end:
                yield frame
                continue
            chunk = _data(frame)
            for choice in chunk["choices"]:
                _gather(calls, choice["delta"].pop("tool_calls", []))
                if choice["finish_reason"] and calls:
                    told = {"tool_calls": [call | {"index": place} for place, call in enumerate(calls)]}
                    yield Frame(_event({**chunk, "choices": [choice | {"delta": told, "finish_reason": None}]}))
                if choice["finish_reason"]:
                    chunk["x_groq"] = {"id": f"req_{ask.seq}", "usage": chunk.get("usage")}
            yield replace(frame, data=_event(chunk))

    def whole(self, ask: Ask, script: Script) -> Frame:
        frame = super().whole(ask, replace(script, reasoning_field="reasoning"))
        answer = msgspec.json.decode(frame.data)
        answer |= {"x_groq": {"id": f"req_{ask.seq}"}, "service_tier": "on_demand"}
        for choice in answer["choices"]:
            for name in ("refusal", "annotations"):
                choice["message"].pop(name, None)
        return replace(frame, data=_encode(answer))

    def error(self, status: int, code: str | None, model: str) -> bytes:
        if status == 429:
            text = f"Rate limit reached for model `{model}` in organization `org_01fake` on tokens per minute (TPM)"
            return _groq_error(f"{text}: Limit 6000. Please try again in 4.77s.", "tokens", "rate_limit_exceeded")
        return super().error(status, code, model)


def _groq_error(message: str, kind: str, code: str | None) -> bytes:
    return _encode({"error": {"message": message, "type": kind} | ({"code": code} if code else {})})


# --- both -------------------------------------------------------------------------------------------------------------


def _data(frame: Frame) -> dict[str, Any]:
    chunk: dict[str, Any] = msgspec.json.decode(frame.data.removeprefix(b"data: "))
    return chunk


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + _encode(chunk) + b"\n\n"


def _gather(calls: list[dict[str, Any]], fragments: list[dict[str, Any]]) -> None:
    """OpenAI's fragments, put together again."""
    for fragment in fragments:
        if fragment["index"] == len(calls):
            named = {name: value for name, value in fragment.items() if name != "index"}
            calls.append(named | {"function": dict(fragment["function"])})
        else:
            calls[fragment["index"]]["function"]["arguments"] += fragment["function"]["arguments"]
