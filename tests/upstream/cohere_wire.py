"""Translates: Cohere's wire, version 2: chat, embed and rerank (shapes: the `cohere` package 7.3, November 2026).

Everything in an answer follows from the request, as in `openai_wire`. What the vendor refuses is refused: unknown
fields, empty turns, a system turn that is not the first, calls without results, `response_format` beside tools. Billed
are the words of the messages and the tokens that were generated; what the model really read and wrote is more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from tests.upstream.http1 import Request
from tests.upstream.modes import Script
from tests.upstream.spoken import pieces_of, say, tokens_of
from tests.upstream.wire import Ask, Frame, Refused, Said, Strict, Wanted, Wire

TEMPLATE_TOKENS = 500  # of the vendor's own prompt, not billed
END_TOKENS = 2
_encode = msgspec.json.Encoder().encode

_MESSAGES = {
    400: "invalid request: the request is not valid.",
    401: "invalid api token",
    402: "Please add or update your payment method to continue.",
    404: "model '{}' not found, make sure the correct model ID was used and that you have access to the model.",
    422: "invalid request: a field has a wrong type.",
    429: "You are past the per minute request limit, please wait and try again later.",
    498: "invalid token",
    499: "request cancelled",
    501: "not implemented",
}
_CODES = {
    "context_length_exceeded": "too many tokens: total number of tokens in the prompt cannot exceed 128 - "
    "received 129.",
    "insufficient_quota": "You are using a Trial key, which is limited to 1000 API calls / month.",
}
_FINISH = {"stop": "COMPLETE", "length": "MAX_TOKENS", "tool_calls": "TOOL_CALL", "content_filter": "ERROR_TOXIC"}


class _Text(Strict, tag_field="type", tag="text"):
    text: str


class _Thinking(Strict, tag_field="type", tag="thinking"):
    thinking: str


class _Link(Strict):
    url: str
    detail: Literal["auto", "low", "high"] | None = None


class _Image(Strict, tag_field="type", tag="image_url"):
    image_url: _Link


class _Document(Strict):
    data: dict[str, Any]
    id: str | None = None


class _DocumentPart(Strict, tag_field="type", tag="document"):
    document: _Document


class _CallFunction(Strict):
    name: str
    arguments: str


class _Call(Strict):
    id: str
    type: Literal["function"]
    function: _CallFunction


class _System(Strict, tag_field="role", tag="system"):
    content: str | list[_Text]


class _User(Strict, tag_field="role", tag="user"):
    content: str | list[_Text | _Image]


class _Assistant(Strict, tag_field="role", tag="assistant"):
    content: str | list[_Text | _Thinking] | None = None
    tool_calls: list[_Call] | None = None
    tool_plan: str | None = None
    citations: list[dict[str, Any]] | None = None


class _Tool(Strict, tag_field="role", tag="tool"):
    tool_call_id: str
    content: str | list[_Text | _DocumentPart]


class _Function(Strict):
    name: str
    parameters: dict[str, Any]
    description: str | None = None


class _ToolSpec(Strict):
    type: Literal["function"]
    function: _Function


class _Format(Strict):
    type: Literal["text", "json_object"]
    json_schema: dict[str, Any] | None = None


class _ThinkingOption(Strict):
    type: Literal["enabled", "disabled"]
    token_budget: Annotated[int, Meta(ge=1)] | None = None


class _CitationOptions(Strict):
    mode: Literal["ENABLED", "DISABLED", "FAST", "ACCURATE", "OFF"] | None = None


_Share = Annotated[float, Meta(ge=0.01, le=0.99)]
_Penalty = Annotated[float, Meta(ge=0, le=1)]
_Messages = Annotated[list[_System | _User | _Assistant | _Tool], Meta(min_length=1)]


class _Chat(Strict):
    model: str
    messages: _Messages
    stream: bool = False
    tools: list[_ToolSpec] = []
    strict_tools: bool = False
    documents: list[str | _Document] = []
    citation_options: _CitationOptions | None = None
    response_format: _Format | None = None
    safety_mode: Literal["CONTEXTUAL", "STRICT", "OFF"] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    stop_sequences: Annotated[list[str], Meta(max_length=5)] = []
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    seed: int | None = None
    frequency_penalty: _Penalty | None = None
    presence_penalty: _Penalty | None = None
    k: Annotated[int, Meta(ge=0, le=500)] | None = None
    p: _Share | None = None
    logprobs: bool = False
    tool_choice: Literal["REQUIRED", "NONE"] | None = None
    thinking: _ThinkingOption | None = None
    priority: Annotated[int, Meta(ge=0, le=999)] | None = None


class _Embed(Strict):
    model: str
    texts: Annotated[list[str], Meta(min_length=1, max_length=96)]
    input_type: Literal["search_document", "search_query", "classification", "clustering"]
    embedding_types: list[Literal["float"]]
    output_dimension: int | None = None
    max_tokens: int | None = None
    truncate: Literal["NONE", "START", "END"] = "END"
    priority: int | None = None


class _Rerank(Strict):
    model: str
    query: str
    documents: Annotated[list[str], Meta(min_length=1)]
    top_n: Annotated[int, Meta(ge=1)] | None = None
    max_tokens_per_doc: int | None = None
    priority: int | None = None


_BODIES: dict[str, type[_Chat | _Embed | _Rerank]] = {"/v2/chat": _Chat, "/v2/embed": _Embed, "/v2/rerank": _Rerank}


class CohereWire(Wire):
    """`/v2/chat`, `/v2/embed` and `/v2/rerank`; the prefix before them does not matter."""

    def claims(self, path: str) -> bool:
        return path.endswith(tuple(_BODIES))

    def headers(self, seq: int, script: Script) -> list[tuple[str, str]]:
        return [("x-debug-trace-id", "trace_dup" if script.same_ids else f"trace_{seq:08d}"), ("num_tokens", "1")]

    def ask(self, request: Request, seq: int) -> Ask:
        if request.method != "POST":
            raise Refused(405, self.error(405, None, ""))
        kind = next(body for path, body in _BODIES.items() if request.path.endswith(path))
        try:
            body = msgspec.json.decode(request.body, type=kind)
        except msgspec.DecodeError as error:
            raise Refused(422, _said_error(f"invalid request: {error}")) from error
        wrong = _wrong(body) if isinstance(body, _Chat) else None
        if wrong is not None:
            raise Refused(400, _said_error(f"invalid request: {wrong}"))
        return Ask(body.model, isinstance(body, _Chat) and body.stream, body, request.body, seq)

    def frames(self, ask: Ask, script: Script) -> Iterator[Frame]:
        said = _say(ask, script)
        usage = None if script.usage == "never" else usage_of(ask.body, script, tokens_of(said))
        finish = None if script.no_finish else said.finish
        yield from stream(said, _ids(ask, script, said), finish, usage)
        if not script.no_end:
            yield Frame(b"data: [DONE]\n\n", end=True)

    def whole(self, ask: Ask, script: Script) -> Frame:
        if isinstance(ask.body, _Embed):
            return _embedded(ask.body, _ids(ask, script, Said())[0])
        if isinstance(ask.body, _Rerank):
            return _ranked(ask.body, _ids(ask, script, Said())[0])
        said = _say(ask, script)
        answer = whole(said, _ids(ask, script, said), None if script.no_finish else said.finish)
        if ask.body.logprobs and script.actor:
            answer["logprobs"] = [{"text": token, "token_ids": [0], "logprobs": [0.0]} for token in said.tokens]
        usage = usage_of(ask.body, script, tokens_of(said))
        if script.usage != "never":
            answer["usage"] = usage
        return Frame(_encode(answer), tokens_of(said), finish=not script.no_finish, end=True, usage=usage)

    def error(self, status: int, code: str | None, model: str) -> bytes:
        message = _CODES.get(code or "") or _MESSAGES.get(status, "internal server error, please try again later.")
        return _said_error(message.replace("{}", model))

    def error_frame(self, status: int, code: str | None, model: str) -> bytes:
        delta = {"finish_reason": "ERROR", "error": "internal server error, please try again later."}
        return _event("message-end", {"delta": delta})


def wants(body: Any) -> Wanted:
    """The neutral reading of a chat request."""
    texts = [_texts(message) for message in body.messages]
    system = [text for text, message in zip(texts, body.messages, strict=True) if isinstance(message, _System)]
    users = [text for text, message in zip(texts, body.messages, strict=True) if isinstance(message, _User)]
    results = [text for text, message in zip(texts, body.messages, strict=True) if isinstance(message, _Tool)]
    parts = [
        part for message in body.messages for part in (message.content if isinstance(message.content, list) else [])
    ]
    tools = {tool.function.name: tool.function.parameters for tool in body.tools}
    choice = {"REQUIRED": "any", "NONE": "none", None: "auto"}[body.tool_choice]
    form = body.response_format
    return Wanted(
        text="".join(users[-1:]),
        system="".join(system),
        turns=len(body.messages),
        tools=tools,
        choice=next(iter(tools)) if choice == "any" and len(tools) == 1 else choice,
        schema=form.json_schema if form is not None else None,
        json=form is not None and form.type == "json_object",
        stops=body.stop_sequences,
        max_tokens=body.max_tokens,
        media=["image" for part in parts if isinstance(part, _Image)],
        results=results,
        reasoning=body.thinking is not None and body.thinking.type == "enabled",
    )


def _say(ask: Ask, script: Script) -> Said:
    """A refusal is a text like any other here."""
    return say(ask, replace(script, refusal=False), wants(ask.body), cut_arguments=True)


def whole(said: Said, ids: Sequence[str], finish: str | None) -> dict[str, Any]:
    """The answer without usage. `ids`: the answer's, then one for each call."""
    message: dict[str, Any] = {"role": "assistant"}
    thought = "".join(said.reasoning)
    if said.calls:
        if thought:
            message["tool_plan"] = thought
        message["tool_calls"] = [_call(call, call_id) for call, call_id in zip(said.calls, ids[1:], strict=True)]
    blocks = [{"type": "thinking", "thinking": thought}] if thought and not said.calls else []
    blocks += [{"type": "text", "text": "".join(said.tokens)}] if said.tokens else []
    if blocks:
        message["content"] = blocks
    answer: dict[str, Any] = {"id": ids[0], "message": message}
    if finish is not None:
        answer["finish_reason"] = _FINISH.get(finish, finish)
    return answer


def stream(
    said: Said, ids: Sequence[str], finish: str | None, usage: Any = None, turns: Sequence[int] = ()
) -> Iterator[Frame]:
    """The answer event by event, without `[DONE]`. `turns`: which call writes its next piece when several are open;
    without it each call is written to its end before the next begins, as the vendor does it.
    """
    opened = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    yield Frame(_event("message-start", {"id": ids[0], "delta": {"message": opened}}))
    if said.calls:
        for piece in said.reasoning:
            yield Frame(_event("tool-plan-delta", {"delta": {"message": {"tool_plan": piece}}}), 1)
    blocks = [("thinking", said.reasoning), ("text", said.tokens)] if not said.calls else [("text", said.tokens)]
    for index, (kind, pieces) in enumerate([block for block in blocks if block[1]]):
        yield Frame(_event("content-start", _content(index, {"type": kind, kind: ""})))
        for piece in pieces:
            yield Frame(_event("content-delta", _content(index, {kind: piece})), 1)
        yield Frame(_event("content-end", {"index": index}))
    yield from _call_frames(said, ids, turns)
    if finish is not None:
        delta = {"finish_reason": _FINISH.get(finish, finish)} | ({"usage": usage} if usage is not None else {})
        yield Frame(_event("message-end", {"delta": delta}), finish=True, usage=usage)


def usage_of(body: Any, script: Script, generated: int) -> dict[str, Any] | None:
    """None where the script has none."""
    if script.usage in ("never", "null"):
        return None
    prompt = sum(len(_texts(message).split()) for message in body.messages)
    real: dict[str, Any] = {
        "input_tokens": float(prompt + TEMPLATE_TOKENS),
        "output_tokens": float(generated + END_TOKENS),
    }
    if script.usage == "partial":
        return {"tokens": {"input_tokens": real["input_tokens"]}}
    usage = {"billed_units": {"input_tokens": float(prompt), "output_tokens": float(generated)}, "tokens": real}
    return usage | ({"cached_tokens": float(script.cached)} if script.cached else {})


def _call_frames(said: Said, ids: Sequence[str], turns: Sequence[int]) -> Iterator[Frame]:
    """Calls open in order; what no turn came for is written at the end."""
    left = [pieces_of(arguments) for _, arguments in said.calls]
    order = [turn for turn in turns if turn < len(left)]
    order += [place for place, pieces in enumerate(left) for _ in range(max(1, len(pieces)))]
    opened = 0
    for place in order:
        for other in range(opened, place + 1):
            yield Frame(_event("tool-call-start", _calling(other, _call((said.calls[other][0], ""), ids[1 + other]))))
        opened = max(opened, place + 1)
        if left[place]:
            piece = left[place].pop(0)
            yield Frame(_event("tool-call-delta", _calling(place, {"function": {"arguments": piece}})), 1)
    for place in range(len(left)):
        yield Frame(_event("tool-call-end", {"index": place}))


def _call(call: tuple[str, str], call_id: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": call[0], "arguments": call[1]}}


def _content(index: int, block: dict[str, Any]) -> dict[str, Any]:
    return {"index": index, "delta": {"message": {"content": block}}}


def _calling(index: int, call: dict[str, Any]) -> dict[str, Any]:
    """One object, not a list of them."""
    return {"index": index, "delta": {"message": {"tool_calls": call}}}


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    return f"event: {kind}\ndata: ".encode() + _encode({"type": kind, **fields}) + b"\n\n"


def _said_error(message: str) -> bytes:
    return _encode({"id": "00000000-0000-4000-8000-000000000000", "message": message})


def _ids(ask: Ask, script: Script, said: Said) -> list[str]:
    seq = "dup" if script.same_ids else f"{ask.seq:08d}"
    return [f"answer-{seq}", *(f"{name}_{seq}{place}" for place, (name, _) in enumerate(said.calls))]


def _texts(message: Any) -> str:
    """All text of a message, its parts joined by a space."""
    content = message.content
    if isinstance(content, str):
        return content
    return " ".join(part.text for part in content or [] if isinstance(part, _Text))


def _wrong(body: _Chat) -> str | None:
    """What the types cannot say of a request that the vendor refuses."""
    if body.response_format is not None and (body.tools or body.documents):
        return "response_format is not supported with RAG."
    if body.tool_choice is not None and not body.tools:
        return "tool_choice is only supported with tools."
    if body.frequency_penalty and body.presence_penalty:
        return "only one of frequency_penalty and presence_penalty may be set."
    if body.strict_tools and not all(tool.function.parameters.get("required") for tool in body.tools):
        return "strict_tools needs at least one required parameter in each tool."
    return _wrong_turns(body.messages)


def _wrong_turns(messages: list[_System | _User | _Assistant | _Tool]) -> str | None:
    waiting: list[str] = []
    for place, message in enumerate(messages):
        if isinstance(message, _System) and place:
            return "system turn must be the first in the list."
        calls = message.tool_calls or [] if isinstance(message, _Assistant) else []
        if not message.content and not calls:
            return "message must not be empty in a turn."
        if isinstance(message, _Tool):
            if message.tool_call_id not in waiting:
                return f"tool call id not found: {message.tool_call_id}."
            waiting.remove(message.tool_call_id)
        elif waiting:
            return "an assistant message with 'tool_calls' must be followed by tool messages."
        waiting += [call.id for call in calls]
        for call in calls:
            if not call.function.arguments.startswith("{"):
                return "tool call arguments must be a JSON object."
    return "an assistant message with 'tool_calls' must be followed by tool messages." if waiting else None


def _embedded(body: _Embed, answer_id: str) -> Frame:
    """Vectors that tell the texts apart: their lengths in words and characters, then zeros."""
    size = body.output_dimension or 4
    vectors = [[float(len(text.split())), float(len(text)), *[0.0] * (size - 2)][:size] for text in body.texts]
    billed = {"billed_units": {"input_tokens": float(sum(len(text.split()) for text in body.texts))}}
    answer = {
        "id": answer_id,
        "texts": body.texts,
        "embeddings": {"float": vectors},
        "meta": {"api_version": {"version": "2"}, **billed},
        "response_type": "embeddings_by_type",
    }
    return Frame(_encode(answer), finish=True, end=True, usage=billed)


def _ranked(body: _Rerank, answer_id: str) -> Frame:
    """By the share of the query's words that a document has."""
    words = set(body.query.split())
    scores = [len(words & set(document.split())) / max(1, len(words)) for document in body.documents]
    order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))[: body.top_n]
    billed = {"billed_units": {"search_units": 1.0}}
    results = [{"index": place, "relevance_score": scores[place]} for place in order]
    answer = {"id": answer_id, "results": results, "meta": {"api_version": {"version": "2"}, **billed}}
    return Frame(_encode(answer), finish=True, end=True, usage=billed)
