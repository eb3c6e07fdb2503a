"""Translates: Anthropic's Messages API in both of its versions (shapes: the `anthropic` package 2.12, November 2026).

Everything in an answer follows from the request, as in `openai_wire`. What the vendor refuses is refused: unknown
fields, blocks without text, calls without results right after them, names and ids of other letters, and by model what
the newer ones no longer take. `prompt_tokens` are the words of system and messages; what hits the cache is counted
beside them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tests.upstream.http1 import Request
from tests.upstream.modes import Script
from tests.upstream.prefix_cache import Counts
from tests.upstream.spoken import pieces_of, say, tokens_of
from tests.upstream.wire import Ask, Frame, Refused, Said, Strict, Wanted, Wire

SIGNATURE = "c2lnbmVk"
MAX_BREAKPOINTS = 4
_VERSIONS = ("2023-06-01", "2026-10-21")  # the second one knows no sampling parameters
_encode = msgspec.json.Encoder().encode
_NO_THREADS = _encode(  # the fake holds no conversations, as the vendor for some organizations
    {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": "thread: not available for this request",
            "details": {"error_code": "thread_unsupported_request", "unsupported": ["thread"]},
        },
        "request_id": "req_fake",
    }
)
_ID = re.compile(r"[a-zA-Z0-9_-]+")
# By model, as the vendor's errors say it.
_NO_SAMPLING = re.compile(r"claude-(?:opus-4-[78]|opus-5|sonnet-5|haiku-5|fable|mythos).*")
_ALWAYS_THINKS = re.compile(r"claude-(?:fable|mythos|opus-5-5|sonnet-5-5).*")
_NEVER_FORCED = re.compile(r"claude-(?:(?:fable|mythos)-5-\d|(?:opus|sonnet)-5-5).*")
_NO_PREFILL = re.compile(r"claude-(?:opus|sonnet)-4-[678].*|claude-(?:opus|sonnet|haiku|fable|mythos)-5.*")
_NO_FORMATS = re.compile(r"claude-(?:3|opus-4-[01]|sonnet-4-0|opus-4-2|sonnet-4-2).*")
_LATER_SYSTEM = re.compile(r"claude-opus-4-8.*|claude-(?:opus|sonnet|haiku|fable|mythos)-5.*")
_ONE_SAMPLER = re.compile(r"claude-(?:opus-4-[15]|(?:sonnet|haiku)-4-5).*")
_TOOL = {"type", "name", "description", "input_schema", "strict", "cache_control"}
_TOOL |= {"eager_input_streaming", "defer_loading", "input_examples", "allowed_callers"}
_AT_TOP = ("anyOf", "oneOf", "allOf")

_ERRORS = {
    400: ("invalid_request_error", "messages: field required"),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "There is a problem with your billing."),
    403: ("permission_error", "Your API key does not have permission to use the specified resource."),
    404: ("not_found_error", "model: {}"),
    409: ("conflict_error", "The request conflicts with another one."),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: ("rate_limit_error", "This request would exceed your rate limit."),
    504: ("timeout_error", "The request timed out."),
    529: ("overloaded_error", "Overloaded"),
}
_CODES = {
    "context_length_exceeded": ("invalid_request_error", "prompt is too long: 129 tokens > 128 maximum"),
    "insufficient_quota": (
        "invalid_request_error",
        "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing.",
    ),
}
_STOP = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


class _Mark(Strict):
    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] = "5m"


class _Base64(Strict, tag_field="type", tag="base64"):
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp", "application/pdf"]
    data: str


class _Plain(Strict, tag_field="type", tag="text"):
    media_type: Literal["text/plain"]
    data: str


class _Link(Strict, tag_field="type", tag="url"):
    url: str


class _Stored(Strict, tag_field="type", tag="file"):
    file_id: str


class _Text(Strict, tag_field="type", tag="text"):
    text: str
    cache_control: _Mark | None = None


class _Image(Strict, tag_field="type", tag="image"):
    source: _Base64 | _Link | _Stored
    cache_control: _Mark | None = None


class _Document(Strict, tag_field="type", tag="document"):
    source: _Base64 | _Plain | _Link | _Stored
    title: str | None = None
    cache_control: _Mark | None = None


class _Use(Strict, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any]
    cache_control: _Mark | None = None


class _Result(Strict, tag_field="type", tag="tool_result"):
    tool_use_id: str
    content: str | list[_Text | _Image | _Document] = ""
    is_error: bool = False
    cache_control: _Mark | None = None


class _Thinking(Strict, tag_field="type", tag="thinking"):
    thinking: str
    signature: str


class _Redacted(Strict, tag_field="type", tag="redacted_thinking"):
    data: str


_Block = _Text | _Image | _Document | _Use | _Result | _Thinking | _Redacted


class _Message(Strict):
    role: Literal["user", "assistant", "system"]
    content: str | list[_Block]


class _Auto(Strict, tag_field="type", tag="auto"):
    disable_parallel_tool_use: bool = False


class _Any(Strict, tag_field="type", tag="any"):
    disable_parallel_tool_use: bool = False


class _One(Strict, tag_field="type", tag="tool"):
    name: str
    disable_parallel_tool_use: bool = False


class _None(Strict, tag_field="type", tag="none"):
    pass


class _Binding(Strict):
    prefix_mismatch_behavior: Literal["error", "drop_block"] = "error"


class _Adaptive(Strict, tag_field="type", tag="adaptive"):
    display: Literal["summarized", "omitted"] | None = None
    block_binding: _Binding | None = None


class _Enabled(Strict, tag_field="type", tag="enabled"):
    budget_tokens: Annotated[int, Meta(ge=1024)]
    display: Literal["summarized", "omitted"] | None = None


class _Disabled(Strict, tag_field="type", tag="disabled"):
    pass


class _BetweenTools(Strict, tag_field="type", tag="between_tools"):
    pass


class _Schema(Strict):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class _Output(Strict):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: _Schema | None = None


class _Metadata(Strict):
    user_id: Annotated[str, Meta(max_length=512)] | None = None


class _Body(Strict):
    model: str
    max_tokens: Annotated[int, Meta(ge=1)]
    messages: Annotated[list[_Message], Meta(min_length=1)]
    system: str | list[_Text] = ""
    stream: bool = False
    stop_sequences: list[str] = []
    tools: list[dict[str, Any]] = []
    tool_choice: _Auto | _Any | _One | _None | None = None
    thinking: _Adaptive | _Enabled | _Disabled | _BetweenTools | None = None
    output_config: _Output | None = None
    metadata: _Metadata | None = None
    service_tier: Literal["auto", "standard_only"] = "auto"
    cache_control: _Mark | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None


class _WithBeta(_Body):
    """What a header `anthropic-beta` opens."""

    context_management: dict[str, Any] | None = None
    container: str | None = None
    thread: dict[str, Any] | None = None


class _Counted(_WithBeta, kw_only=True):
    max_tokens: int = 1


class AnthropicWire(Wire):
    """`/messages` and `/messages/count_tokens`; the prefix before them does not matter."""

    def claims(self, path: str) -> bool:
        return path.endswith(("/messages", "/messages/count_tokens"))

    def lookup(self, request: Request) -> tuple[int, bytes] | None:
        """Counts the words, as `usage_of` does."""
        if not request.path.endswith("/count_tokens"):
            return None
        try:
            body = msgspec.json.decode(request.body, type=_Counted)
        except msgspec.DecodeError as error:
            return 400, _said_error("invalid_request_error", str(error))
        if body.model == "e404":
            return 404, self.error(404, None, body.model)
        texts = [_system(body), *(_message_text(message) for message in body.messages)]
        return 200, _encode({"input_tokens": sum(len(text.split()) for text in texts)})

    def headers(self, seq: int, script: Script) -> list[tuple[str, str]]:
        request_id = "req_dup" if script.same_ids else f"req_{seq:08d}"
        limits = [("anthropic-ratelimit-requests-limit", "50"), ("anthropic-ratelimit-requests-remaining", "49")]
        reset = [("anthropic-ratelimit-requests-reset", "2026-11-22T10:01:30Z")]
        return [("request-id", request_id), ("date", "Sun, 22 Nov 2026 10:00:00 GMT"), *limits, *reset]

    def ask(self, request: Request, seq: int) -> Ask:
        if request.method != "POST":
            raise Refused(405, self.error(405, None, ""))
        version = request.headers.get("anthropic-version")
        if version not in _VERSIONS:
            raise _refused("anthropic-version: header is required")
        try:
            body = msgspec.json.decode(request.body, type=_WithBeta if request.headers.get("anthropic-beta") else _Body)
        except msgspec.DecodeError as error:
            raise _refused(str(error)) from error
        if version == _VERSIONS[1] and (sampled := _sampled(body)):
            raise _refused(f"{sampled}: Extra inputs are not permitted")
        if isinstance(body, _WithBeta) and body.thread is not None:
            raise Refused(400, _NO_THREADS)
        wrong = _wrong_tools(body) or _wrong_model(body) or _wrong_messages(body) or _wrong_bytes(request, body)
        if wrong is not None:
            raise _refused(wrong)
        return Ask(body.model, body.stream, body, request.body, seq)

    def frames(self, ask: Ask, script: Script) -> Iterator[Frame]:
        said = say(ask, script, wants(ask.body))
        usage = usage_of(ask.body, script, said)
        yield from stream(said, _ids(ask, script, said), None if script.no_finish else said.finish, usage, ask.model)
        if not script.no_end:
            yield Frame(_event("message_stop", {}), end=True)

    def whole(self, ask: Ask, script: Script) -> Frame:
        said = say(ask, script, wants(ask.body))
        usage = usage_of(ask.body, script, said)
        finish = None if script.no_finish else said.finish
        answer = {"model": ask.model, **whole(said, _ids(ask, script, said), finish)}
        if script.usage != "never":
            answer["usage"] = usage
        return Frame(_encode(answer), tokens_of(said), finish=finish is not None, end=True, usage=usage)

    def error(self, status: int, code: str | None, model: str) -> bytes:
        kind, message = _CODES.get(code or "") or _ERRORS.get(status, ("api_error", "Internal server error"))
        return _said_error(kind, message.replace("{}", model))

    def error_frame(self, status: int, code: str | None, model: str) -> bytes:
        return b"event: error\ndata: " + self.error(status, code, model) + b"\n\n"


def wants(body: Any) -> Wanted:
    """The neutral reading of a request."""
    blocks = [block for message in body.messages for block in _blocks(message)]
    users = [message for message in body.messages if message.role == "user"]
    choice = "any" if isinstance(body.tool_choice, _Any) else "none" if isinstance(body.tool_choice, _None) else "auto"
    form = body.output_config.format if body.output_config is not None else None
    kinds = {_Image: "image", _Document: "file"}
    return Wanted(
        text=" ".join(block.text for block in (_blocks(users[-1]) if users else []) if isinstance(block, _Text)),
        system=_system(body),
        turns=len(body.messages),
        tools={tool["name"]: tool.get("input_schema", {}) for tool in body.tools},
        choice=body.tool_choice.name if isinstance(body.tool_choice, _One) else choice,
        parallel=not getattr(body.tool_choice, "disable_parallel_tool_use", False),
        schema=form.schema if form is not None else None,
        stops=body.stop_sequences,
        max_tokens=body.max_tokens,
        media=[kinds[type(block)] for block in blocks if type(block) in kinds],
        results=[_result_text(block) for block in blocks if isinstance(block, _Result)],
        reasoning=isinstance(body.thinking, _Adaptive | _Enabled | _BetweenTools),
    )


def whole(said: Said, ids: Sequence[str], finish: str | None) -> dict[str, Any]:
    """The answer without model and usage. `ids`: the answer's, then one for each call."""
    content: list[dict[str, Any]] = []
    if said.reasoning:
        content.append({"type": "thinking", "thinking": "".join(said.reasoning), "signature": SIGNATURE})
    if said.tokens and not said.refusal:
        content.append({"type": "text", "text": "".join(said.tokens)})
    for (name, arguments), call_id in zip(said.calls, ids[1:], strict=True):
        content.append({"type": "tool_use", "id": call_id, "name": name, "input": json.loads(arguments)})
    return {"id": ids[0], "type": "message", "role": "assistant", "content": content, **_stop(said, finish)}


def stream(
    said: Said, ids: Sequence[str], finish: str | None, usage: dict[str, Any] | None = None, model: str | None = None
) -> Iterator[Frame]:
    """The answer event by event, without `message_stop`. Blocks are written one after the other."""
    opened: dict[str, Any] = {"id": ids[0], "type": "message", "role": "assistant", "content": [], "stop_reason": None}
    if model is not None:
        opened["model"] = model
    if usage is not None:
        opened["usage"] = {**usage, "output_tokens": 1} if "output_tokens" in usage else usage
    yield Frame(_event("message_start", {"message": opened}))
    yield Frame(_event("ping", {}))
    index = 0
    if said.reasoning:
        yield Frame(_start(index, {"type": "thinking", "thinking": "", "signature": ""}))
        for piece in said.reasoning:
            yield Frame(_piece(index, {"type": "thinking_delta", "thinking": piece}), 1)
        yield Frame(_piece(index, {"type": "signature_delta", "signature": SIGNATURE}))
        yield Frame(_event("content_block_stop", {"index": index}))
        index += 1
    if said.tokens and not said.refusal:
        yield Frame(_start(index, {"type": "text", "text": ""}))
        for piece in said.tokens:
            yield Frame(_piece(index, {"type": "text_delta", "text": piece}), 1)
        yield Frame(_event("content_block_stop", {"index": index}))
        index += 1
    for (name, arguments), call_id in zip(said.calls, ids[1:], strict=True):
        yield Frame(_start(index, {"type": "tool_use", "id": call_id, "name": name, "input": {}}))
        yield Frame(_piece(index, {"type": "input_json_delta", "partial_json": ""}))
        for piece in pieces_of(arguments):
            yield Frame(_piece(index, {"type": "input_json_delta", "partial_json": piece}), 1)
        yield Frame(_event("content_block_stop", {"index": index}))
        index += 1
    if finish is not None:
        end: dict[str, Any] = {"delta": _stop(said, finish)}
        if usage is not None and "output_tokens" in usage:
            end["usage"] = {name: count for name, count in usage.items() if name != "cache_creation"}
        yield Frame(_event("message_delta", end), finish=True, usage=usage)


def usage_of(body: Any, script: Script, said: Said) -> dict[str, Any] | None:
    """None where the script has none."""
    if script.usage in ("never", "null"):
        return None
    texts = [_system(body), *(_message_text(message) for message in body.messages)]
    prompt = sum(len(text.split()) for text in texts)
    read = min(script.cached, prompt)
    counts = script.counted or Counts(prompt - read, read, 0, 0)
    if script.usage == "partial":
        return {"input_tokens": counts.input}
    return {
        "input_tokens": counts.input,
        "cache_creation_input_tokens": counts.written_5m + counts.written_1h,
        "cache_read_input_tokens": counts.read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": counts.written_5m,
            "ephemeral_1h_input_tokens": counts.written_1h,
        },
        "output_tokens": tokens_of(said),
        "output_tokens_details": {"thinking_tokens": len(said.reasoning)},
        "service_tier": "standard",
    }


def _stop(said: Said, finish: str | None) -> dict[str, Any]:
    end: dict[str, Any] = {"stop_reason": _STOP.get(finish, finish) if finish else None, "stop_sequence": None}
    if said.refusal and finish:
        end["stop_details"] = {"type": "refusal", "category": None, "explanation": "".join(said.tokens)}
    return end


def _start(index: int, block: dict[str, Any]) -> bytes:
    return _event("content_block_start", {"index": index, "content_block": block})


def _piece(index: int, delta: dict[str, Any]) -> bytes:
    return _event("content_block_delta", {"index": index, "delta": delta})


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    """The vendor pads its JSON before the last brace."""
    data = _encode({"type": kind, **fields})
    return f"event: {kind}\ndata: ".encode() + data[:-1] + b"   }" + b"\n\n"


def _said_error(kind: str, message: str) -> bytes:
    return _encode({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_fake"})


def _refused(message: str) -> Refused:
    return Refused(400, _said_error("invalid_request_error", message))


def _ids(ask: Ask, script: Script, said: Said) -> list[str]:
    seq = "dup" if script.same_ids else f"{ask.seq:08d}"
    return [f"msg_{seq}", *(f"toolu_{seq}_{place}" for place in range(len(said.calls)))]


# --- what the vendor refuses ------------------------------------------------------------------------------------------


def _wrong_tools(body: _Body) -> str | None:
    names = [tool.get("name") for tool in body.tools]
    if len(set(names)) < len(names):
        return "tools: Tool names must be unique."
    for place, tool in enumerate(body.tools):
        kind, schema = tool.get("type", "custom"), tool.get("input_schema")
        if kind != "custom":
            continue
        if not isinstance(tool.get("name"), str) or not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", tool["name"]):
            return f"tools.{place}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
        if not isinstance(schema, dict) or schema.get("type") != "object":
            return f"tools.{place}.custom.input_schema.type: Field required"
        if any(name in schema for name in _AT_TOP):
            return "input_schema does not support oneOf, allOf, or anyOf at the top level"
        unknown = set(tool) - _TOOL
        if unknown:
            return f"tools.{place}.custom.{min(unknown)}: Extra inputs are not permitted"
    if body.tool_choice is not None and not body.tools:
        return "tool_choice may only be specified while providing tools."
    if isinstance(body.tool_choice, _One) and body.tool_choice.name not in names:
        return f"Tool '{body.tool_choice.name}' not found in provided tools"
    return None


def _sampled(body: _Body) -> str | None:
    return next((name for name in ("temperature", "top_p", "top_k") if getattr(body, name) is not None), None)


def _wrong_model(body: _Body) -> str | None:
    model, thinking = body.model, body.thinking
    sampled = _sampled(body)
    if sampled and _NO_SAMPLING.fullmatch(model):
        return f"`{sampled}` is deprecated for this model."
    if _ONE_SAMPLER.fullmatch(model) and body.temperature is not None and body.top_p is not None:
        return "`temperature` and `top_p` cannot both be specified for this model."
    if isinstance(thinking, _Enabled):
        if _NO_SAMPLING.fullmatch(model):
            return '"thinking.type.enabled" is not supported for this model.'
        if thinking.budget_tokens >= body.max_tokens:
            return "`max_tokens` must be greater than `thinking.budget_tokens`."
        if body.temperature not in (None, 1):
            return "`temperature` may only be set to 1 when thinking is enabled."
        if isinstance(body.tool_choice, _Any | _One):
            return "Thinking may not be enabled when tool_choice forces tool use."
    if isinstance(thinking, _Disabled) and _ALWAYS_THINKS.fullmatch(model):
        return '"thinking.type.disabled" is not supported for this model.'
    if isinstance(body.tool_choice, _Any | _One) and _NEVER_FORCED.fullmatch(model):
        return "tool_choice: this model does not support forced tool use."
    format_or_strict = body.output_config is not None and body.output_config.format is not None
    format_or_strict = format_or_strict or any(tool.get("strict") for tool in body.tools)
    if format_or_strict and _NO_FORMATS.fullmatch(model):
        return "This model does not support structured outputs."
    if body.messages[-1].role == "assistant" and _NO_PREFILL.fullmatch(model):
        return "This model does not support assistant message prefill."
    return None


def _wrong_messages(body: _Body) -> str | None:
    used: set[str] = set()
    waiting: list[str] = []
    before = ""
    for place, message in enumerate(body.messages):
        blocks = _blocks(message)
        if not blocks or any(isinstance(block, _Text) and not block.text.strip() for block in blocks):
            return f"messages.{place}: text content blocks must be non-empty"
        if message.role == "system" and (before != "user" or not _LATER_SYSTEM.fullmatch(body.model)):
            return f"messages.{place}: unexpected role system"
        if message.role != "user" and any(isinstance(block, _Image | _Document | _Result) for block in blocks):
            return f"messages.{place}: {message.role} messages hold no such blocks"
        for block in blocks:
            if isinstance(block, _Result):
                if block.tool_use_id not in waiting:
                    return f"messages.{place}: unexpected `tool_use_id` found in `tool_result` blocks"
                waiting.remove(block.tool_use_id)
            elif waiting:
                return "`tool_use` ids were found without `tool_result` blocks immediately after"
        uses = [block for block in blocks if isinstance(block, _Use)]
        waiting = [block.id for block in uses]
        for use_id in waiting:
            if use_id in used:
                return "messages: `tool_use` ids must be unique"
            if not _ID.fullmatch(use_id):
                return f"messages.{place}: tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
            used.add(use_id)
        if uses and not body.tools:
            return "Requests which include `tool_use` or `tool_result` blocks must define tools."
        before = message.role
    if waiting:
        return "`tool_use` ids were found without `tool_result` blocks immediately after"
    return _wrong_last(body)


def _wrong_last(body: _Body) -> str | None:
    if body.messages[0].role != "user":
        return "messages: first message must use the user role"
    last = _blocks(body.messages[-1])[-1]
    if body.messages[-1].role == "assistant" and isinstance(last, _Text) and last.text != last.text.rstrip():
        return "messages: final assistant content cannot end with trailing whitespace"
    answers = [message for message in body.messages if message.role == "assistant"]
    if isinstance(body.thinking, _Enabled) and answers:
        blocks = _blocks(answers[-1])
        calls = any(isinstance(block, _Use) for block in blocks)
        if calls and not isinstance(blocks[0], _Thinking | _Redacted):
            return "Expected `thinking` or `redacted_thinking`, but found `tool_use`."
    return None


def _wrong_bytes(request: Request, body: _Body) -> str | None:
    if request.body.count(b'"cache_control":{') > MAX_BREAKPOINTS:
        return f"A maximum of {MAX_BREAKPOINTS} blocks with cache_control may be provided."
    late = rb'"cache_control":\{"type":"ephemeral"(?:,"ttl":"5m")?\}.*"ttl":"1h"'
    if b'"ttl":"1h"' in request.body and re.search(late, _in_order(request.body)):
        return "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block"
    if any(not stop.strip() for stop in body.stop_sequences):
        return "stop_sequences: each stop sequence must contain non-whitespace"
    binds = isinstance(body.thinking, _Adaptive) and body.thinking.block_binding is not None
    if binds and "thinking-binding-controls-2026-08-01" not in request.headers.get("anthropic-beta", ""):
        return "thinking.adaptive.block_binding: Extra inputs are not permitted"
    return None


def _in_order(body: bytes) -> bytes:
    """The parts of the prompt as the vendor reads them, wherever they stand in the body."""
    given = msgspec.json.decode(body)
    return _encode([given.get("tools"), given.get("system"), given.get("messages")])


# --- texts ------------------------------------------------------------------------------------------------------------


def _blocks(message: _Message) -> list[_Block]:
    return [_Text(message.content)] if isinstance(message.content, str) else message.content


def _system(body: _Body) -> str:
    return body.system if isinstance(body.system, str) else " ".join(block.text for block in body.system)


def _message_text(message: _Message) -> str:
    return " ".join(block.text for block in _blocks(message) if isinstance(block, _Text))


def _result_text(block: _Result) -> str:
    if isinstance(block.content, str):
        return block.content
    return " ".join(part.text for part in block.content if isinstance(part, _Text))
