"""Translates: OpenAI's Responses API, `/openai/v1/responses` (shapes: the `openai` package, November 2026).

Everything in an answer follows from the request, as in `openai_wire`. Unknown fields are refused, and so is what the
vendor refuses: a limit below 16, results without a call and calls without a result, reasoning that is not encrypted,
comes from another model or is followed by nothing, a strict function whose schema is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from tests.upstream.http1 import Request
from tests.upstream.modes import Script
from tests.upstream.openai_wire import CREATED, OpenAIWire, thinks
from tests.upstream.spoken import pieces_of, say, tokens_of
from tests.upstream.wire import Ask, Frame, Refused, Said, Strict, Wanted, Wire

ROOT = "/openai/v1"
_encode = msgspec.json.Encoder().encode


class _Mark(Strict):
    mode: Literal["explicit"]
    ttl: Literal["30m", "12h"] | None = None


class _InputText(Strict, tag_field="type", tag="input_text"):
    text: str
    prompt_cache_breakpoint: _Mark | None = None


class _InputImage(Strict, tag_field="type", tag="input_image"):
    detail: Literal["auto", "low", "high", "original"]
    image_url: str | None = None
    file_id: str | None = None


class _InputFile(Strict, tag_field="type", tag="input_file"):
    file_data: str | None = None
    file_url: str | None = None
    file_id: str | None = None
    filename: str | None = None


class _OutputText(Strict, tag_field="type", tag="output_text"):
    text: str
    annotations: list[dict[str, Any]] = []
    logprobs: list[dict[str, Any]] = []


_Parts = list[_InputText | _InputImage | _InputFile | _OutputText]
_Status = Literal["in_progress", "completed", "incomplete"]


class _Message(Strict, tag_field="type", tag="message"):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | _Parts
    id: str | None = None
    status: _Status | None = None


class _Summary(Strict):
    text: str
    type: Literal["summary_text"]


class _Thought(Strict, tag_field="type", tag="reasoning"):
    id: str
    summary: list[_Summary]
    encrypted_content: str


class _Call(Strict, tag_field="type", tag="function_call"):
    call_id: Annotated[str, Meta(max_length=64)]
    name: str
    arguments: str
    id: str | None = None
    status: _Status | None = None
    namespace: str | None = None


class _Output(Strict, tag_field="type", tag="function_call_output"):
    call_id: Annotated[str, Meta(max_length=64)]
    output: str | _Parts
    id: str | None = None
    status: _Status | None = None


class _Function(Strict, tag_field="type", tag="function"):
    name: str
    parameters: dict[str, Any] | None
    strict: bool | None = None
    description: str | None = None


class _Group(Strict, tag_field="type", tag="namespace"):
    """Functions under one name, as Codex sends them; nothing is called here."""

    name: str
    tools: list[dict[str, Any]]
    description: str | None = None


class _Search(Strict, tag_field="type", tag="web_search"):
    search_context_size: Literal["low", "medium", "high"] | None = None
    user_location: dict[str, str] | None = None
    external_web_access: bool | None = None
    filters: dict[str, Any] | None = None


class _Named(Strict):
    type: Literal["function"]
    name: str


class _Allowed(Strict):
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[_Named]


class _Format(Strict):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class _Text(Strict):
    format: _Format | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class _Reasoning(Strict):
    effort: Literal["none", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None


class _Body(Strict):
    model: str
    input: Annotated[list[_Message | _Thought | _Call | _Output], Meta(min_length=1)]
    instructions: str | None = None
    store: bool = True
    include: list[Literal["reasoning.encrypted_content", "message.output_text.logprobs"]] = []
    max_output_tokens: Annotated[int, Meta(ge=16)] | None = None
    client_metadata: dict[str, str] | None = None  # Codex sends it
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool = True
    prompt_cache_key: str | None = None
    reasoning: _Reasoning = field(default_factory=_Reasoning)
    safety_identifier: str | None = None
    service_tier: Literal["auto", "default", "flex", "priority", "fast"] | None = None
    stream: bool = False
    temperature: float | None = None
    text: _Text = field(default_factory=_Text)
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] = "auto"
    tools: list[_Function | _Group | _Search] = []
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    top_p: float | None = None
    user: str | None = None


class ResponsesWire(Wire):
    """Its path tells it from other vendors' APIs of the same name. It stores the latest items."""

    def __init__(self) -> None:
        self._chat = OpenAIWire()
        self._stored: dict[str, dict[str, Any]] = {}

    def claims(self, path: str) -> bool:
        return path == f"{ROOT}/responses"

    def headers(self, seq: int, script: Script) -> list[tuple[str, str]]:
        return self._chat.headers(seq, script)

    def ask(self, request: Request, seq: int) -> Ask:
        if request.method != "POST":
            raise Refused(405, self.error(405, None, ""))
        try:
            body = msgspec.convert(self._with_stored(_spelt_out(msgspec.json.decode(request.body))), _Body)
        except msgspec.DecodeError as error:
            raise Refused(400, _said_error(str(error), "unknown_parameter")) from error
        wrong = _wrong(body) or _wrong_tools(body)
        if wrong is not None:
            raise Refused(400, _said_error(wrong, "invalid_value"))
        return Ask(body.model, body.stream, body, request.body, seq)

    def frames(self, ask: Ask, script: Script) -> Iterator[Frame]:
        said = say(ask, script, wants(ask.body))
        answer = self._store(ask, _answer(ask, script, said))
        head = {**answer, "status": "in_progress", "output": [], "usage": None, "service_tier": "auto"}
        yield _event("response.created", response=head)
        yield _event("response.in_progress", response=head)
        for index, item in enumerate(answer["output"]):
            yield from _item_frames(ask, said, item, index)
        if script.no_finish:
            yield Frame(b": the end of the body is the only end\n\n", end=True)
            return
        last = _event(f"response.{answer['status']}", response=answer)
        yield Frame(last.data, finish=True, end=not script.no_end, usage=answer["usage"])

    def whole(self, ask: Ask, script: Script) -> Frame:
        said = say(ask, script, wants(ask.body))
        answer = self._store(ask, _answer(ask, script, said))
        if script.no_finish:
            answer["status"] = "in_progress"
        return Frame(_encode(answer), tokens_of(said), not script.no_finish, True, answer["usage"])

    def _store(self, ask: Ask, answer: dict[str, Any]) -> dict[str, Any]:
        if ask.body.store:
            self._stored |= {item["id"]: _storable(item, ask.model) for item in answer["output"]}
            for oldest in list(self._stored)[:-1000]:
                del self._stored[oldest]
        return answer

    def _with_stored(self, body: Any) -> Any:
        """With the items that it refers to."""
        if not isinstance(body, dict) or not isinstance(body.get("input"), list):
            return body
        items = []
        for item in body["input"]:
            if not isinstance(item, dict) or item.get("type") != "item_reference":
                items.append(item)
            elif item.get("id") in self._stored:
                items.append(self._stored[item["id"]])
            else:
                message = f"Item with id '{item.get('id')}' not found."
                raise Refused(404, _said_error(message, None))
        return body | {"input": items}

    def error(self, status: int, code: str | None, model: str) -> bytes:
        return self._chat.error(status, code, model)

    def error_frame(self, status: int, code: str | None, model: str) -> bytes:
        error = msgspec.json.decode(self.error(status, code, model))["error"]
        return _event("error", code=error["code"] or "server_error", message=error["message"], param=None).data


def _is_short(item: Any) -> bool:
    return isinstance(item, dict) and "role" in item and "type" not in item


def _spelt_out(body: Any) -> Any:
    """Its short forms in full: a text is the user's message, and an item with a role needs no type."""
    if not isinstance(body, dict):
        return body
    items = body.get("input")
    if isinstance(items, str):
        items = [{"role": "user", "content": items}]
    if not isinstance(items, list):
        return body
    return body | {"input": [{"type": "message", **item} if _is_short(item) else item for item in items]}


def wants(body: _Body) -> Wanted:
    """The neutral reading of a request."""
    messages = [item for item in body.input if isinstance(item, _Message)]
    outputs = [item for item in body.input if isinstance(item, _Output)]
    parts = [part for item in messages if isinstance(item.content, list) for part in item.content]
    parts += [part for item in outputs if isinstance(item.output, list) for part in item.output]
    tools = {tool.name: tool.parameters or {} for tool in body.tools if isinstance(tool, _Function)}
    choice: Any = body.tool_choice
    if isinstance(choice, dict) and choice["type"] == "allowed_tools":
        allowed = msgspec.convert(choice, _Allowed)
        tools = {tool.name: tools[tool.name] for tool in allowed.tools}
        choice = allowed.mode
    form = body.text.format or _Format("text")
    return Wanted(
        text=next((_texts(item.content) for item in reversed(messages) if item.role == "user"), ""),
        system="\n".join(_texts(item.content) for item in messages if item.role in ("system", "developer")),
        turns=len(body.input),
        tools=tools,
        choice=choice["name"] if isinstance(choice, dict) else {"required": "any"}.get(choice, choice),
        parallel=body.parallel_tool_calls,
        schema=form.schema,
        json=form.type == "json_object",
        max_tokens=body.max_output_tokens,
        media=["image" if isinstance(part, _InputImage) else "file" for part in parts if not hasattr(part, "text")],
        results=[_texts(item.output) for item in outputs],
        reasoning=_thinks(body),
    )


def _thinks(body: _Body) -> bool:
    return body.reasoning.effort not in (None, "none") or thinks(body.model, body.reasoning.effort)


def _texts(content: str | _Parts) -> str:
    return (
        content
        if isinstance(content, str)
        else " ".join(part.text for part in content if isinstance(part, _InputText | _OutputText))
    )


# --- what is refused --------------------------------------------------------------------------------------------------


def _wrong(body: _Body) -> str | None:
    if _thinks(body) and (body.temperature is not None or body.top_p is not None or body.top_logprobs is not None):
        return "Unsupported parameter: sampling is fixed with this model."
    called = [item.call_id for item in body.input if isinstance(item, _Call)]
    results = [item.call_id for item in body.input if isinstance(item, _Output)]
    for identity in results:
        if identity not in called:
            return f"No tool call found for function call output with call_id {identity}."
    for identity in called:
        if identity not in results:
            return f"No tool output found for function call {identity}."
    for place, item in enumerate(body.input):
        if not isinstance(item, _Thought):
            continue
        following = body.input[place + 1 : place + 2]
        if not any(isinstance(each, _Call) or getattr(each, "role", "") == "assistant" for each in following):
            return f"Item '{item.id}' of type 'reasoning' was provided without its required following item."
        if item.encrypted_content != _sealed(body.model, item.id):
            return f"The encrypted content for item {item.id} could not be verified."
    return None


def _wrong_tools(body: _Body) -> str | None:
    functions = {tool.name: tool for tool in body.tools if isinstance(tool, _Function)}
    if isinstance(body.tool_choice, dict):
        chosen = body.tool_choice.get("tools") or [body.tool_choice]
        if any(each.get("name") not in functions for each in chosen):
            return "Tool choice not found in 'tools' parameter."
    for name, tool in functions.items():
        schema = tool.parameters or {}
        is_closed = schema.get("additionalProperties") is False
        if tool.strict and not (is_closed and set(schema.get("required", [])) == set(schema.get("properties", {}))):
            return f"Invalid schema for function '{name}': additionalProperties must be false, all properties required."
    return None


def _sealed(model: str, identity: str) -> str:
    return f"sealed for {model}: {identity}"


# --- what is said -----------------------------------------------------------------------------------------------------


def _answer(ask: Ask, script: Script, said: Said) -> dict[str, Any]:
    body, seq = ask.body, "dup" if script.same_ids else f"{ask.seq:08d}"
    output: list[dict[str, Any]] = []
    if said.reasoning:
        thought: dict[str, Any] = {"id": f"rs_{seq}", "type": "reasoning", "summary": []}
        if body.reasoning.summary is not None:
            thought["summary"] = [{"type": "summary_text", "text": "".join(said.reasoning)}]
        if "reasoning.encrypted_content" in body.include:
            thought["encrypted_content"] = _sealed(body.model, thought["id"])
        output.append(thought)
    status = {"length": "incomplete", "content_filter": "incomplete"}.get(said.finish, "completed")
    if said.tokens:
        message = {"id": f"msg_{seq}", "type": "message", "role": "assistant", "status": status}
        output.append(message | {"content": [_content(ask, said)]})
    for place, (name, arguments) in enumerate(said.calls):
        call = {"type": "function_call", "id": f"fc_{seq}_{place}", "call_id": f"call_{seq}_{place}"}
        output.append(call | {"name": name, "arguments": arguments, "status": status})
    reason = {"length": "max_output_tokens"}.get(said.finish, said.finish)
    return {
        "id": f"resp_{seq}",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": reason} if status == "incomplete" else None,
        "model": ask.model,
        "output": output,
        "parallel_tool_calls": body.parallel_tool_calls,
        "service_tier": "default",
        "store": body.store,
        "tool_choice": body.tool_choice,
        "tools": [],
        "usage": _usage(ask, script, said),
    }


def _content(ask: Ask, said: Said) -> dict[str, Any]:
    text = "".join(said.tokens)
    if said.refusal:
        return {"type": "refusal", "refusal": text}
    spoken = [{**each, "bytes": list(each["token"].encode())} for each in _logprobs(ask, said.tokens)]
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": spoken}


def _logprobs(ask: Ask, tokens: list[str]) -> list[dict[str, Any]]:
    """As in streams, without bytes. The model is always sure."""
    if "message.output_text.logprobs" not in ask.body.include:
        return []
    return [{"token": token, "logprob": 0.0, "top_logprobs": []} for token in tokens]


def _usage(ask: Ask, script: Script, said: Said) -> dict[str, Any] | None:
    if script.usage in ("never", "null"):
        return None
    contents = [getattr(item, "content", getattr(item, "output", "")) for item in ask.body.input]
    prompt, written = sum(len(_texts(content).split()) for content in contents), tokens_of(said)
    if script.usage == "partial":
        return {"input_tokens": prompt}
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": min(script.cached, prompt), "cache_write_tokens": 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": len(said.reasoning)},
        "total_tokens": prompt + written,
    }


def _item_frames(ask: Ask, said: Said, item: dict[str, Any], index: int) -> Iterator[Frame]:
    place = {"item_id": item["id"], "output_index": index}
    opened = {**item, "status": "in_progress"} if "status" in item else dict(item)
    empty = {"reasoning": ("summary", []), "message": ("content", []), "function_call": ("arguments", "")}
    name, nothing = empty[item["type"]]
    yield _event("response.output_item.added", output_index=index, item={**opened, name: nothing})
    if item["type"] == "reasoning":
        for piece in said.reasoning:
            if item["summary"]:
                yield _event("response.reasoning_summary_text.delta", 1, **place, summary_index=0, delta=piece)
    elif item["type"] == "message":
        yield from _text_frames(ask, said, place)
    else:
        _, arguments = said.calls[int(item["id"].rpartition("_")[2])]
        for piece in pieces_of(arguments) or [arguments]:
            yield _event("response.function_call_arguments.delta", 1, **place, delta=piece)
        yield _event("response.function_call_arguments.done", **place, arguments=arguments)
    yield _event("response.output_item.done", output_index=index, item=item)


def _text_frames(ask: Ask, said: Said, place: dict[str, Any]) -> Iterator[Frame]:
    kind = "refusal" if said.refusal else "output_text"
    place = {**place, "content_index": 0}
    yield _event("response.content_part.added", **place, part={"type": kind, "text": "", "annotations": []})
    for piece in said.tokens:
        spoken = {} if said.refusal else {"logprobs": _logprobs(ask, [piece])}
        yield _event(f"response.{kind}.delta", 1, **place, delta=piece, obfuscation="x", **spoken)
    yield _event(f"response.{kind}.done", **place, text="".join(said.tokens))
    yield _event("response.content_part.done", **place, part=_content(ask, said))


def _event(kind: str, tokens: int = 0, **fields: Any) -> Frame:
    body = _encode({"type": kind, "sequence_number": 0, **fields})
    return Frame(f"event: {kind}\ndata: ".encode() + body + b"\n\n", tokens)


def _storable(item: dict[str, Any], model: str) -> dict[str, Any]:
    return item | ({"encrypted_content": _sealed(model, item["id"])} if item["type"] == "reasoning" else {})


def _said_error(message: str, code: str | None) -> bytes:
    return _encode({"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}})
