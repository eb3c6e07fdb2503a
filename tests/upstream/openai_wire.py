"""Translates: OpenAI's chat wire as api.openai.com speaks it (shapes: the `openai` package 3.54, November 2026).

Everything in an answer follows from the request: texts are "tok0 tok1 ...", prompt tokens the words of the messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from tests.upstream.actor import act
from tests.upstream.http1 import Request
from tests.upstream.modes import MODES, Script, UnknownMode, parse
from tests.upstream.spoken import words
from tests.upstream.wire import Ask, Frame, Refused, Said, Wanted, Wire

CREATED = 1_760_000_000
_ROLES = ("developer", "system", "user", "assistant", "tool", "function")
_encode = msgspec.json.Encoder().encode

# status: type, code, message. Statuses that are not here are a bare server_error.
_ERRORS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", "invalid_value", "Invalid value."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided: sk-fa***ke."),
    402: ("invalid_request_error", "billing_hard_limit_reached", "Billing hard limit has been reached."),
    403: ("request_forbidden", "unsupported_country_region_territory", "Country, region, or territory not supported."),
    404: ("invalid_request_error", "model_not_found", "The model `{}` does not exist or you do not have access to it."),
    405: ("invalid_request_error", "method_not_supported", "Not allowed to use this method."),
    408: ("invalid_request_error", None, "The request timed out."),
    409: ("invalid_request_error", None, "The request conflicts with another one."),
    413: ("invalid_request_error", None, "The request is too large."),
    422: ("invalid_request_error", None, "The request cannot be processed."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for {}."),
    503: ("service_unavailable", None, "The engine is currently overloaded."),
    529: ("service_unavailable", None, "Overloaded."),
}
_CODES = {
    "context_length_exceeded": (
        "invalid_request_error",
        "This model's maximum context length is 128 tokens. However, your messages resulted in 129 tokens.",
    ),
    "insufficient_quota": ("insufficient_quota", "You exceeded your current quota."),
}


_NO_TOOLS = (
    "Function tools with reasoning_effort are not supported for {} in /v1/chat/completions. To use function tools, use "
    "/v1/responses or set reasoning_effort to 'none'."
)
_THINKING = re.compile(r"gpt-(?:5\.[5-9]|[6-9])")  # unless told otherwise
_TOOLS_ELSEWHERE = re.compile(r"gpt-(?:5\.[4-9]|[6-9])")
_ONLY_RESPONSES = re.compile(r"(?:gpt|o\d).*-(?:pro|codex)")


class _Part(Struct):
    text: str = ""


class _Message(Struct):
    content: str | list[_Part] | None = None


class _StreamOptions(Struct):
    include_usage: bool | None = None


class _Function(Struct):
    name: str


class _Tool(Struct):
    function: _Function | None = None


_Positive = Annotated[int, Meta(ge=1)]


class _Body(Struct):
    """The fields of a request that change the answer; others may be anything."""

    model: str
    messages: Annotated[list[_Message], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: _Positive | None = None
    max_tokens: _Positive | None = None
    max_completion_tokens: _Positive | None = None
    tools: list[_Tool] | None = None


def prompt_tokens(body: dict[str, Any]) -> int:
    """The prompt tokens of a request: the white-space separated words of all text in its messages."""
    return _words(msgspec.convert(body["messages"], list[_Message]))


def _words(messages: list[_Message]) -> int:
    words = 0
    for message in messages:
        content = message.content
        for text in [content] if isinstance(content, str) else [part.text for part in content or []]:
            words += len(text.split())
    return words


class _Said(Struct):
    """What one choice says, token by token; all choices of an answer say the same. `calls`: those of an actor, by name,
    the arguments in pieces; others are made of the text.
    """

    reasoning: list[str]
    text: list[str]
    reason: str | None
    calls: list[tuple[str, list[str]]] = []


_decode = msgspec.json.Decoder(_Body).decode


class OpenAIWire(Wire):
    """Chat completions and the list of models; the prefix before them does not matter."""

    def claims(self, path: str) -> bool:
        return path.endswith("/chat/completions") or path.rpartition("/models")[1] == "/models"

    def lookup(self, request: Request) -> tuple[int, bytes] | None:
        if request.path.endswith("/chat/completions"):
            return None
        if request.method != "GET":
            return 405, self.error(405, None, "")
        name = request.path.rpartition("/models")[2].lstrip("/")
        if not name:
            return 200, _encode({"object": "list", "data": [_model(mode) for mode in MODES]})
        try:
            parse(name)
        except UnknownMode:
            return 404, self.error(404, None, name)
        return 200, _encode(_model(name))

    def headers(self, seq: int, script: Script) -> list[tuple[str, str]]:
        request_id = "req_dup" if script.same_ids else f"req_{seq:08d}"
        limits = [("x-ratelimit-limit-requests", "10000"), ("x-ratelimit-remaining-requests", "9999")]
        return [("x-request-id", request_id), ("openai-processing-ms", "1"), ("openai-version", "2020-10-01"), *limits]

    def ask(self, request: Request, seq: int) -> Ask:
        if request.method != "POST":
            raise Refused(405, self.error(405, None, ""))
        try:
            body = _decode(request.body)
        except msgspec.ValidationError as error:
            raise Refused(400, self.error(400, "invalid_type", "")) from error
        except msgspec.DecodeError as error:
            raise Refused(400, self.error(400, "invalid_json", "")) from error
        if body.stream_options is not None and not body.stream:
            raise Refused(400, self.error(400, "invalid_value", body.model))
        wrong = _wrong(request.body)
        if wrong is not None:
            raise Refused(400, self.error(400, wrong, body.model))
        effort = msgspec.json.decode(request.body).get("reasoning_effort")
        if _TOOLS_ELSEWHERE.match(body.model) and body.tools and thinks(body.model, effort):
            refusal = {"message": _NO_TOOLS.format(body.model), "type": "invalid_request_error"}
            raise Refused(400, _encode({"error": {**refusal, "param": "reasoning_effort", "code": None}}))
        if _ONLY_RESPONSES.match(body.model):
            raise Refused(404, self.error(404, None, body.model))
        return Ask(body.model, body.stream is True, body, request.body, seq)

    def frames(self, ask: Ask, script: Script) -> Iterator[Frame]:
        script, said = _played(ask, script)
        asked = ask.body.stream_options is not None and ask.body.stream_options.include_usage is True
        usage = _usage(ask, script, said) if script.usage == "in_last" or asked else None
        choices = range(_choices(ask, script))
        chunk = _Chunks(ask, script, null_usage=(asked and script.usage != "never") or script.usage == "null")
        for choice in choices:
            yield Frame(chunk(choice, _first_delta(script)))
        for delta in _deltas(ask, script, said):
            tokens = 0 if delta.pop("opens", False) else 1
            for choice in choices:
                yield Frame(chunk(choice, {"role": "assistant"} | delta if script.role_each_chunk else delta), tokens)
        if not script.no_finish:
            for choice in choices:
                last = usage if script.usage == "in_last" and choice == choices[-1] else None
                yield Frame(chunk(choice, {}, said.reason, last), finish=True, usage=last)
        if asked and script.usage not in ("never", "in_last"):
            yield Frame(chunk.usage(usage), usage=usage)
        if not script.no_end:
            yield Frame(b"data: [DONE]\n\n", end=True)

    def whole(self, ask: Ask, script: Script) -> Frame:
        script, said = _played(ask, script)
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
        if said.reasoning:
            message[script.reasoning_field] = "".join(said.reasoning)
        if script.tools:
            message["tool_calls"] = _whole_calls(ask, script, said)
        else:
            message["refusal" if script.refusal else "content"] = "".join(said.text)
        choices = [
            {"index": index, "message": message, "logprobs": _logprobs(ask, script, said), "finish_reason": said.reason}
            for index in range(_choices(ask, script))
        ]
        answer = _envelope(ask, script, "chat.completion") | {"choices": choices}
        usage = _usage(ask, script, said)
        if script.usage != "never":
            answer["usage"] = usage
        tokens = (len(said.reasoning) + len(said.text)) * len(choices)
        return Frame(_encode(answer), tokens, finish=said.reason is not None, end=True, usage=usage)

    def error(self, status: int, code: str | None, model: str) -> bytes:
        kind, usual, message = _ERRORS.get(status, ("server_error", None, "The server had an error."))
        if code in _CODES:
            kind, message = _CODES[code]
        message = message.replace("{}", model)
        return _encode({"error": {"message": message, "type": kind, "param": None, "code": code or usual}})


class _Chunks:
    """Encodes the chunks of one stream: what is the same in all of them is encoded once."""

    def __init__(self, ask: Ask, script: Script, *, null_usage: bool) -> None:
        self._head = b"data: " + _encode(_envelope(ask, script, "chat.completion.chunk"))[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if null_usage else b"]}\n\n"

    def __call__(
        self,
        choice: int,
        delta: dict[str, Any],
        reason: str | None = None,
        usage: dict[str, Any] | None = None,
    ) -> bytes:
        told = _encode(reason)
        body = b'{"index":%d,"delta":%b,"logprobs":null,"finish_reason":%b}' % (choice, _encode(delta), told)
        tail = self._tail if usage is None else b'],"usage":' + _encode(usage) + b"}\n\n"
        return self._head + body + tail

    def usage(self, usage: dict[str, Any] | None) -> bytes:
        return self._head + b'],"usage":' + _encode(usage) + b"}\n\n"


def thinks(model: str, effort: str | None) -> bool:
    """Whether a model of OpenAI's thinks at this effort; other names do not, unless they are asked to."""
    return bool(_THINKING.match(model)) if effort is None else effort != "none"


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "upstream"}


def _envelope(ask: Ask, script: Script, kind: str) -> dict[str, Any]:
    answer_id = "chatcmpl-dup" if script.same_ids else f"chatcmpl-{ask.seq:08d}"
    head = {"id": answer_id, "object": kind, "created": CREATED, "model": ask.model}
    return head | {"service_tier": "default", "system_fingerprint": "fp_fake"}


def _choices(ask: Ask, script: Script) -> int:
    return script.choices or ask.body.n or 1


def _wrong(raw: bytes) -> str | None:
    """The code of what the types cannot say: roles nobody has, a choice of a tool that is not there."""
    body = msgspec.json.decode(raw)
    if any(message.get("role") not in _ROLES for message in body["messages"]):
        return "invalid_value"
    choice = body.get("tool_choice")
    wanted = (choice.get("function") or {}).get("name") if isinstance(choice, dict) else None
    names = [(tool.get("function") or {}).get("name") for tool in body.get("tools") or []]
    return "invalid_value" if wanted is not None and wanted not in names else None


def wants(raw: bytes) -> Wanted:
    """The neutral reading of a request, also of a dialect's."""
    body = msgspec.json.decode(raw)
    messages, form = body["messages"], body.get("response_format") or {}
    users = [message for message in messages if message["role"] == "user"]
    parts = [part for message in messages if isinstance(message.get("content"), list) for part in message["content"]]
    choice = body.get("tool_choice") or "auto"
    stop = body.get("stop") or []
    kinds = {"image_url": "image", "file": "file", "document_url": "file"}
    return Wanted(
        text="".join(_read(message) for message in users[-1:]),
        system="\n".join(_read(message) for message in messages if message["role"] in ("system", "developer")),
        turns=len(messages),
        tools={tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in body.get("tools") or []},
        choice=choice["function"]["name"] if isinstance(choice, dict) else {"required": "any"}.get(choice, choice),
        parallel=body.get("parallel_tool_calls") is not False,
        schema=(form.get("json_schema") or {}).get("schema"),
        json=form.get("type") == "json_object",
        stops=[stop] if isinstance(stop, str) else stop,
        max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
        n=body.get("n") or 1,
        media=[kinds[part["type"]] for part in parts if part["type"] in kinds],
        results=[_read(message) for message in messages if message["role"] == "tool"],
        reasoning=body.get("reasoning_effort") not in (None, "none"),
    )


def _read(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def _played(ask: Ask, script: Script) -> tuple[Script, _Said]:
    """What is said, and the script that says it: an actor's calls follow from the request."""
    if not script.actor and not script.calls:
        return script, _said(ask, script)
    said = act(wants(ask.raw)) if script.actor else Said(calls=[*script.calls], finish="tool_calls")
    calls = [(name, [arguments[:4], arguments[4:]] if arguments[4:] else [arguments]) for name, arguments in said.calls]
    reason = None if script.no_finish else script.finish_reason or said.finish
    bad = script.tools_bad_deltas and bool(calls)
    return (
        replace(script, tools=len(calls), tools_bad_deltas=bad),
        _Said(said.reasoning, said.tokens, reason, calls),
    )


def _written(said: _Said) -> int:
    """The tokens of an actor's arguments: their pieces."""
    return sum(len(pieces) for _, pieces in said.calls)


def _logprobs(ask: Ask, script: Script, said: _Said) -> dict[str, Any] | None:
    """An actor is always sure."""
    if not script.actor or not msgspec.json.decode(ask.raw).get("logprobs"):
        return None
    content: Any = [{"token": token, "logprob": 0.0, "bytes": None, "top_logprobs": []} for token in said.text]
    return {"content": content, "refusal": None}


def _said(ask: Ask, script: Script) -> _Said:
    """The tokens of a choice, cut at the request's max_completion_tokens (or max_tokens) as the vendor would."""
    said = words(ask.raw, script, ask.body.max_completion_tokens or ask.body.max_tokens)
    return _Said(said.reasoning, said.tokens, None if script.no_finish else said.finish)


def _usage(ask: Ask, script: Script, said: _Said) -> dict[str, Any] | None:
    if script.usage in ("never", "null"):
        return None
    prompt = _words(ask.body.messages)
    if script.usage == "partial":
        return {"prompt_tokens": prompt}
    completion = (len(said.reasoning) + len(said.text) + _written(said)) * _choices(ask, script)
    reasoning = len(said.reasoning) * _choices(ask, script)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": min(script.cached, prompt), "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _first_delta(script: Script) -> dict[str, Any]:
    silent = script.tools or script.refusal
    return {"role": "assistant", "content": None if silent else "", "refusal": None}


def _deltas(ask: Ask, script: Script, said: _Said) -> Iterator[dict[str, Any]]:
    """What a choice says after its first delta; a delta with the key `opens` carries no token."""
    for piece in said.reasoning:
        yield {script.reasoning_field: piece}
    if script.tools_bad_deltas:
        yield from _bad_tool_deltas(ask, script, said)
    elif script.tools:
        yield from _tool_deltas(ask, script, said)
    else:
        for piece in said.text:
            yield {"refusal" if script.refusal else "content": piece}


def _calls(ask: Ask, script: Script, said: _Said) -> list[tuple[dict[str, Any], list[str]]]:
    """Each call's id, type and name, and the fragments of its arguments: the tokens are dealt out in turns.

    Arguments are `{"text":"tok0 tok2"}`: valid JSON unless the request's max_tokens cut them.
    """
    names = [name for name, _ in said.calls]
    names = names or [tool.function.name for tool in ask.body.tools or [] if tool.function is not None]
    names = names or [f"tool{index}" for index in range(script.tools)]
    calls = []
    for index in range(script.tools):
        fragments = said.text[index :: script.tools]
        fragments = ['{"text":"' + fragments[0], *fragments[1:]] if fragments else ["{}"]
        if said.calls:
            fragments = said.calls[index][1]
        elif said.reason != "length" and fragments != ["{}"]:
            fragments[-1] += '"}'
        call_id = "call_dup" if script.same_ids else f"call_{ask.seq:08d}_{index}"
        call = {"id": call_id, "type": "function", "function": {"name": names[index % len(names)]}}
        calls.append((call, fragments))
    return calls


def _whole_calls(ask: Ask, script: Script, said: _Said) -> list[dict[str, Any]]:
    return [
        call | {"function": call["function"] | {"arguments": "".join(fragments)}}
        for call, fragments in _calls(ask, script, said)
    ]


def _tool_deltas(ask: Ask, script: Script, said: _Said) -> Iterator[dict[str, Any]]:
    """As OpenAI does it: id, type and name once, then fragments by index; those of parallel calls take turns."""
    calls = _calls(ask, script, said)
    for index, (call, _) in enumerate(calls):
        first = {"index": index, **call, "function": call["function"] | {"arguments": ""}}
        yield {"tool_calls": [first], "opens": True}
    for turn in range(max(len(fragments) for _, fragments in calls)):
        for index, (_, fragments) in enumerate(calls):
            if turn < len(fragments):
                yield _fragment({"index": index, "function": {"arguments": fragments[turn]}}, said)


def _bad_tool_deltas(ask: Ask, script: Script, said: _Said) -> Iterator[dict[str, Any]]:
    """As some vendors do it: no index, id and type again in each delta, the name again or empty; one call at a time."""
    for call, fragments in _calls(ask, script, said):
        for turn, fragment in enumerate(fragments):
            name = "" if turn % 2 else call["function"]["name"]
            yield _fragment(call | {"function": {"name": name, "arguments": fragment}}, said)


def _fragment(call: dict[str, Any], said: _Said) -> dict[str, Any]:
    """A fragment is a token, but for the `{}` of a call that got none."""
    return {"tool_calls": [call]} | ({"opens": True} if call["function"]["arguments"] == "{}" else {})
