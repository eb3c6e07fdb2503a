"""Translates: Perplexity's Agent API, `/v1/responses` (shapes: the `perplexityai` package 0.46, November 2026).

Everything in an answer follows from the request, as in `openai_wire`. Unknown fields are refused. Where the request has
the tool `web_search` the answer was searched for: one result, which the first word cites.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from tests.upstream.http1 import Request
from tests.upstream.modes import Script
from tests.upstream.spoken import pieces_of, say, tokens_of
from tests.upstream.wire import Ask, Frame, Refused, Said, Strict, Wanted, Wire

CREATED = 1_760_000_000
RESULT = {"id": 1, "title": "A page", "url": "https://example.com/a", "snippet": "tok0", "date": None, "source": "web"}
SEARCH_USD, COST_USD = 0.0025, 0.01
_encode = msgspec.json.Encoder().encode


class _InputText(Strict, tag_field="type", tag="input_text"):
    text: str


class _InputImage(Strict, tag_field="type", tag="input_image"):
    image_url: str


class _InputFile(Strict, tag_field="type", tag="input_file"):
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None


class _MessageItem(Strict, tag_field="type", tag="message"):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[_InputText | _InputImage | _InputFile]


class _CallItem(Strict, tag_field="type", tag="function_call"):
    call_id: str
    name: str
    arguments: str
    thought_signature: str | None = None


class _OutputItem(Strict, tag_field="type", tag="function_call_output"):
    call_id: str
    output: str
    name: str | None = None


class _FunctionTool(Strict, tag_field="type", tag="function"):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _SearchTool(Strict, tag_field="type", tag="web_search"):
    filters: dict[str, Any] | None = None
    search_context_size: Literal["low", "medium", "high"] | None = None
    search_type: Literal["web", "fast"] | None = None
    user_location: dict[str, Any] | None = None


class _FetchTool(Strict, tag_field="type", tag="fetch_url"):
    max_urls: int | None = None


class _NamedChoice(Strict):
    type: Literal["function"]
    name: str


class _Reasoning(Strict):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"]


class _JsonSchema(Strict):
    name: str
    schema: dict[str, Any]
    strict: bool | None = None
    description: str | None = None


class _Format(Strict):
    type: Literal["json_schema"]
    json_schema: _JsonSchema


class _Body(Strict):
    input: str | Annotated[list[_MessageItem | _CallItem | _OutputItem], Meta(min_length=1)]
    model: str | None = None
    models: Annotated[list[str], Meta(max_length=5)] | None = None
    effort: Literal["fast", "low", "medium", "high", "xhigh"] | None = None
    preset: str | None = None
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_steps: Annotated[int, Meta(ge=1, le=100)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    reasoning: _Reasoning | None = None
    response_format: _Format | None = None
    tool_choice: Literal["none", "auto", "required"] | _NamedChoice | None = None
    tools: list[_FunctionTool | _SearchTool | _FetchTool] = []
    stream: bool = False
    store: bool | None = None
    previous_response_id: str | None = None
    language_preference: str | None = None
    prompt_cache_key: str | None = None
    service_tier: Literal["auto", "default", "flex", "priority", "fast"] | None = None
    profile: str | None = None
    skills: list[Any] | None = None


class PerplexityWire(Wire):
    """`/v1/responses`; the prefix before it does not matter."""

    def claims(self, path: str) -> bool:
        return path.endswith("/v1/responses")

    def headers(self, seq: int, script: Script) -> list[tuple[str, str]]:
        return [("x-request-id", f"req_{seq:08d}")]

    def ask(self, request: Request, seq: int) -> Ask:
        if request.method != "POST":
            raise Refused(405, self.error(405, None, ""))
        try:
            body = msgspec.json.decode(request.body, type=_Body)
        except msgspec.DecodeError as error:
            raise Refused(400, _said_error(str(error), "invalid_request", "invalid_request")) from error
        wrong = _wrong(body)
        if wrong is not None:
            raise Refused(400, _said_error(wrong, "invalid_request", "invalid_message"))
        return Ask(body.model or "", body.stream, body, request.body, seq)

    def frames(self, ask: Ask, script: Script) -> Iterator[Frame]:
        said = _say(ask, script)
        head = _head(ask, script) | {"status": "in_progress", "output": []}
        yield Frame(_event("response.created", {"response": head}))
        yield Frame(_event("response.in_progress", {"response": head}))
        for piece in said.reasoning:
            yield Frame(_event("response.reasoning.stopped", {"thought": piece}), 1)
        if _searches(ask):
            yield Frame(_event("response.reasoning.search_results", {"results": [RESULT]}))
        for piece in said.tokens:
            place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
            yield Frame(_event("response.output_text.delta", {"delta": piece, **place}), 1)
        if said.tokens:
            yield Frame(_event("response.output_text.done", {"text": "".join(said.tokens)}))
        for index, item in enumerate(_calls(ask, script, said)):
            tokens = len(pieces_of(said.calls[index][1]))
            yield Frame(_event("response.output_item.done", {"item": item, "output_index": index}), tokens)
        if script.no_finish:
            yield Frame(b": the end of the body is the only end\n\n", end=True)
            return
        answer = _answer(ask, script, said)
        last = _event("response.completed", {"response": answer})
        yield Frame(last, finish=True, end=not script.no_end, usage=answer.get("usage"))

    def whole(self, ask: Ask, script: Script) -> Frame:
        said = _say(ask, script)
        answer = _answer(ask, script, said)
        if script.no_finish:
            answer["status"] = "in_progress"
        return Frame(_encode(answer), tokens_of(said), not script.no_finish, True, answer.get("usage"))

    def error(self, status: int, code: str | None, model: str) -> bytes:
        if code == "context_length_exceeded":
            return _said_error("This model's maximum context length is 128 tokens.", "invalid_request_error", code)
        kinds = {
            400: ("The request is not valid.", "invalid_request"),
            401: ("Invalid API key provided.", "authentication_error"),
            404: (f"The model {model} does not exist.", "invalid_model"),
            429: ("Request rate limit exceeded.", "rate_limit_exceeded"),
        }
        message, kind = kinds.get(status, ("Something went wrong.", "internal_error"))
        return _said_error(message, kind, code or status)

    def error_frame(self, status: int, code: str | None, model: str) -> bytes:
        said = msgspec.json.decode(self.error(status, code, model))
        return _event("response.failed", said)


def wants(body: Any) -> Wanted:
    """The neutral reading of a request."""
    items = [_MessageItem("user", body.input)] if isinstance(body.input, str) else body.input
    messages = [item for item in items if isinstance(item, _MessageItem)]
    parts = [part for item in messages if isinstance(item.content, list) for part in item.content]
    choice = body.tool_choice or "auto"
    systems = [_texts(item) for item in messages if item.role in ("system", "developer")]
    return Wanted(
        text=next((_texts(item) for item in reversed(messages) if item.role == "user"), ""),
        system="".join([body.instructions or "", *systems]),
        turns=len(items),
        tools={tool.name: tool.parameters or {} for tool in body.tools if isinstance(tool, _FunctionTool)},
        choice=choice.name if isinstance(choice, _NamedChoice) else "any" if choice == "required" else choice,
        schema=body.response_format.json_schema.schema if body.response_format else None,
        max_tokens=body.max_output_tokens,
        media=[
            "image" if isinstance(part, _InputImage) else "file" for part in parts if not isinstance(part, _InputText)
        ],
        results=[item.output for item in items if isinstance(item, _OutputItem)],
        reasoning=body.reasoning is not None and body.reasoning.effort != "none",
    )


def _say(ask: Ask, script: Script) -> Said:
    """A refusal is a text like any other here."""
    return say(ask, replace(script, refusal=False), wants(ask.body))


def _answer(ask: Ask, script: Script, said: Said) -> dict[str, Any]:
    output: list[dict[str, Any]] = []
    if said.reasoning:
        text = "".join(said.reasoning)
        output.append({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": text}]})
    if _searches(ask):
        output.append({"type": "search_results", "queries": ["tok"], "results": [RESULT]})
    if said.tokens:
        cited = {"url": RESULT["url"], "title": RESULT["title"], "start_index": 0, "end_index": 4}
        annotations = [{"type": "url_citation", **cited}] if _searches(ask) else []
        content = {"type": "output_text", "text": "".join(said.tokens), "annotations": annotations}
        output.append(
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [content]}
        )
    answer = _head(ask, script) | {"status": "completed", "output": output + _calls(ask, script, said)}
    if said.finish == "length":
        answer["max_output_tokens"] = tokens_of(said)
    if said.finish == "content_filter":
        answer |= {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}
    usage = _usage(ask, script, said)
    return answer if usage is None else answer | {"usage": usage}


def _usage(ask: Ask, script: Script, said: Said) -> dict[str, Any] | None:
    if script.usage in ("never", "null"):
        return None
    items = [_MessageItem("user", ask.body.input)] if isinstance(ask.body.input, str) else ask.body.input
    texts = [ask.body.instructions or "", *(_texts(item) for item in items)]
    prompt, written = sum(len(text.split()) for text in texts), tokens_of(said)
    if script.usage == "partial":
        return {"input_tokens": prompt}
    usage: dict[str, Any] = {"input_tokens": prompt, "output_tokens": written, "total_tokens": prompt + written}
    usage["input_tokens_details"] = {
        "cache_read_input_tokens": min(script.cached, prompt),
        "cache_creation_input_tokens": 0,
    }
    if _searches(ask):
        usage["tool_calls_details"] = {"web_search": {"invocation": 1, "cost_usd": SEARCH_USD}}
    usage["cost"] = {"currency": "USD", "input_cost": 0.001, "output_cost": 0.009, "total_cost": COST_USD}
    return usage


def _calls(ask: Ask, script: Script, said: Said) -> list[dict[str, Any]]:
    seq = "dup" if script.same_ids else f"{ask.seq:08d}"
    return [
        {
            "type": "function_call",
            "id": f"fc_{seq}_{place}",
            "call_id": f"call_{seq}_{place}",
            "name": name,
            "arguments": arguments,
            "status": "completed",
        }
        for place, (name, arguments) in enumerate(said.calls)
    ]


def _searches(ask: Ask) -> bool:
    return any(isinstance(tool, _SearchTool) for tool in ask.body.tools)


def _head(ask: Ask, script: Script) -> dict[str, Any]:
    identity = "resp_dup" if script.same_ids else f"resp_{ask.seq:08d}"
    return {"id": identity, "object": "response", "created_at": CREATED, "model": ask.model}


def _wrong(body: _Body) -> str | None:
    """What the types cannot say of a request that the vendor refuses."""
    if body.model is None and not body.models and body.preset is None:
        return "one of model, models and preset is required"
    choice = body.tool_choice
    if isinstance(choice, _NamedChoice) and choice.name not in [getattr(tool, "name", None) for tool in body.tools]:
        return f"tool_choice: there is no function {choice.name}"
    items = body.input if isinstance(body.input, list) else []
    called = [item.call_id for item in items if isinstance(item, _CallItem)]
    for item in items:
        if isinstance(item, _OutputItem) and item.call_id not in called:
            return f"no tool call found for function call output with call_id {item.call_id}"
    return None


def _texts(item: Any) -> str:
    """All text of an item, its parts joined by a space."""
    if isinstance(item, _OutputItem):
        return item.output
    if isinstance(item, _CallItem):
        return ""
    content = item.content
    return content if isinstance(content, str) else " ".join(part.text for part in content if hasattr(part, "text"))


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    return f"event: {kind}\ndata: ".encode() + _encode({"type": kind, "sequence_number": 0, **fields}) + b"\n\n"


def _said_error(message: str, kind: str, code: str | int | None) -> bytes:
    return _encode({"error": {"message": message, "type": kind, "code": code}})
