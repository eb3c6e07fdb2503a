"""Translates: Gemini's wire: generateContent, streamGenerateContent and batchEmbedContents (shapes: the `google-genai`
package 3.3 and recorded traffic, November 2026).

Everything in an answer follows from the request, as in `openai_wire`. What the vendor refuses is refused: unknown
fields, empty contents and parts, results that do not stand one to one behind their calls, calls without a signature in
the current turn, penalties on new models. Names of models that are not `gemini-1` or `gemini-2` are new ones.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import unquote

import msgspec
from msgspec import Meta, Struct

from tests.upstream.http1 import Request
from tests.upstream.modes import Script
from tests.upstream.spoken import pieces_of, say, tokens_of
from tests.upstream.wire import Ask, Frame, Refused, Said, Wanted, Wire

SIGNATURE = base64.b64encode(b"thought of the fake").decode()
_BYPASS = base64.b64encode(b"skip_thought_signature_validator").decode()
_PATH = re.compile(r"/models/([^/]+):(generateContent|streamGenerateContent|batchEmbedContents)$")
_encode = msgspec.json.Encoder().encode
_STATUS = {
    400: ("INVALID_ARGUMENT", "Request contains an invalid argument."),
    401: ("UNAUTHENTICATED", "Request had invalid authentication credentials."),
    403: ("PERMISSION_DENIED", "The caller does not have permission"),
    404: ("NOT_FOUND", "models/{} is not found for API version v1beta, or is not supported for generateContent."),
    429: ("RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan and billing details."),
    499: ("CANCELLED", "The operation was cancelled."),
    503: ("UNAVAILABLE", "The model is overloaded. Please try again later."),
    504: ("DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
}
_MESSAGES = {
    "context_length_exceeded": "The input token count (129) exceeds the maximum number of tokens allowed (128).",
    "API_KEY_INVALID": "API key not valid. Please pass a valid API key.",
}
_RPC = "type.googleapis.com/google.rpc."
_FINISH = {"length": "MAX_TOKENS", "content_filter": "SAFETY"}
_KEYWORDS = {
    *("$id", "$defs", "$ref", "$anchor", "type", "format", "title", "description", "enum", "items", "prefixItems"),
    *("minItems", "maxItems", "minimum", "maximum", "anyOf", "oneOf", "properties", "additionalProperties"),
    *("required", "propertyOrdering"),
}


class _Strict(Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    pass


class _Blob(_Strict, frozen=True):
    mime_type: str
    data: str


class _FileData(_Strict, frozen=True):
    file_uri: str
    mime_type: str


class _Call(_Strict, frozen=True):
    name: str
    args: dict[str, Any] = {}
    id: str | None = None


class _ResultPart(_Strict, frozen=True):
    inline_data: _Blob | None = None
    file_data: _FileData | None = None


class _Result(_Strict, frozen=True):
    name: str
    response: dict[str, Any]
    id: str | None = None
    parts: list[_ResultPart] = []


class _Resolution(_Strict, frozen=True):
    level: Literal["MEDIA_RESOLUTION_LOW", "MEDIA_RESOLUTION_MEDIUM", "MEDIA_RESOLUTION_HIGH"]


class _Part(_Strict, frozen=True):
    text: str | None = None
    inline_data: _Blob | None = None
    file_data: _FileData | None = None
    function_call: _Call | None = None
    function_response: _Result | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    media_resolution: _Resolution | None = None

    @property
    def kinds(self) -> list[str]:
        names = ("text", "inline_data", "file_data", "function_call", "function_response")
        return [name for name in names if getattr(self, name) is not None]


class _Content(_Strict, frozen=True):
    parts: Annotated[list[_Part], Meta(min_length=1)]
    role: Literal["user", "model"] = "user"


class _Instruction(_Strict, frozen=True):
    parts: Annotated[list[_Part], Meta(min_length=1)]
    role: str | None = None


class _Function(_Strict, frozen=True):
    name: Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_.:-]{0,127}$")]
    description: str = ""
    parameters_json_schema: dict[str, Any] | None = None


class _Tool(_Strict, frozen=True):
    function_declarations: list[_Function] | None = None
    google_search: dict[str, Any] | None = None
    code_execution: dict[str, Any] | None = None


class _Calling(_Strict, frozen=True):
    mode: Literal["AUTO", "ANY", "NONE", "VALIDATED"]
    allowed_function_names: list[str] = []


class _ToolConfig(_Strict, frozen=True):
    function_calling_config: _Calling | None = None
    include_server_side_tool_invocations: bool | None = None


class _Thinking(_Strict, frozen=True):
    include_thoughts: bool | None = None
    thinking_budget: int | None = None
    thinking_level: Literal["MINIMAL", "LOW", "MEDIUM", "HIGH"] | None = None


_Positive = Annotated[int, Meta(ge=1)]


class _Generation(_Strict, frozen=True):
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: float | None = None
    candidate_count: Annotated[int, Meta(ge=1, le=1)] | None = None
    max_output_tokens: _Positive | None = None
    stop_sequences: Annotated[list[str], Meta(max_length=5)] = []
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: Annotated[int, Meta(ge=-(2**31), lt=2**31)] | None = None
    response_mime_type: Literal["text/plain", "application/json"] | None = None
    response_json_schema: dict[str, Any] | None = None
    response_logprobs: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_modalities: list[Literal["TEXT", "IMAGE", "AUDIO"]] = []
    thinking_config: _Thinking | None = None


class _Chat(_Strict, frozen=True):
    contents: Annotated[list[_Content], Meta(min_length=1)]
    system_instruction: _Instruction | None = None
    tools: list[_Tool] = []
    tool_config: _ToolConfig | None = None
    generation_config: _Generation = _Generation()
    safety_settings: list[dict[str, Any]] = []
    cached_content: str | None = None
    service_tier: Literal["standard", "flex", "priority"] | None = None


class _EmbedOne(_Strict, frozen=True):
    model: str
    content: _Instruction
    output_dimensionality: _Positive | None = None
    task_type: str | None = None
    title: str | None = None


class _Embed(_Strict, frozen=True):
    requests: Annotated[list[_EmbedOne], Meta(min_length=1, max_length=100)]


class GoogleWire(Wire):
    """The three methods of a model; the version before `/models` does not matter."""

    def claims(self, path: str) -> bool:
        return _PATH.search(path) is not None

    def headers(self, seq: int, script: Script) -> list[tuple[str, str]]:
        return [("server-timing", "gfet4t7; dur=1")]

    def ask(self, request: Request, seq: int) -> Ask:
        found = _PATH.search(request.path)
        if found is None or request.method != "POST":
            raise Refused(404, b"<!DOCTYPE html><title>Error 404 (Not Found)!!1</title>")
        model, method = unquote(found[1]), found[2]
        try:
            body = msgspec.json.decode(request.body, type=_Embed if method == "batchEmbedContents" else _Chat)
        except msgspec.DecodeError as error:
            raise Refused(400, _error(400, f"Invalid JSON payload received. {error}")) from error
        stream = method == "streamGenerateContent"
        if stream and request.query.get("alt") != "sse":
            raise Refused(400, b"[" + _error(400, "The fake streams events only: alt=sse.") + b"]")
        wrong = _wrong(body, model) if isinstance(body, _Chat) else None
        if wrong is not None:
            raise Refused(400, _error(400, wrong))
        return Ask(model, stream, body, request.body, seq)

    def frames(self, ask: Ask, script: Script) -> Iterator[Frame]:
        said = _say(ask, script)
        yield from stream(said, _head(ask, script), script, _words(ask.body))

    def whole(self, ask: Ask, script: Script) -> Frame:
        if isinstance(ask.body, _Embed):
            return _embedded(ask.body)
        said = _say(ask, script)
        usage = usage_of(script, _words(ask.body), said, tokens_of(said))
        answer = {**whole(said, script.no_finish), **_head(ask, script)}
        if ask.body.generation_config.response_logprobs and script.actor:
            chosen = [{"token": token, "tokenId": 0, "logProbability": 0.0} for token in said.tokens]
            answer["candidates"][0]["logprobsResult"] = {"chosenCandidates": chosen, "topCandidates": []}
        if usage is not None:
            answer["usageMetadata"] = usage
        return Frame(_encode(answer), tokens_of(said), finish=not script.no_finish, end=True, usage=usage)

    def error(self, status: int, code: str | None, model: str) -> bytes:
        message = _MESSAGES.get(code or "") or _STATUS.get(status, ("", "An internal error has occurred."))[1]
        details: list[dict[str, Any]] = []
        if code == "API_KEY_INVALID":
            details.append({"@type": f"{_RPC}ErrorInfo", "reason": code, "domain": "googleapis.com"})
        if status == 429:
            period = "PerDay" if code == "insufficient_quota" else "PerMinute"
            quota = {"quotaId": f"GenerateRequests{period}PerProjectPerModel"}
            details.append({"@type": f"{_RPC}QuotaFailure", "violations": [quota]})
            details.append({"@type": f"{_RPC}RetryInfo", "retryDelay": "7.5s"})
        return _error(status, message.replace("{}", model), details)


def wants(body: Any) -> Wanted:
    """The neutral reading of a chat request."""
    users = [content for content in body.contents if content.role == "user" and not _results(content)]
    config, calling = body.generation_config, body.tool_config and body.tool_config.function_calling_config
    declared = [each for tool in body.tools for each in tool.function_declarations or []]
    names = calling.allowed_function_names if calling is not None else []
    forced = calling is not None and calling.mode == "ANY"
    choice = "none" if calling is not None and calling.mode == "NONE" else "any" if forced else "auto"
    parts = [part for content in users for part in content.parts]
    media = [part.inline_data or part.file_data for part in parts if part.inline_data or part.file_data]
    return Wanted(
        text="".join(part.text or "" for content in users[-1:] for part in content.parts),
        system="\n".join(part.text or "" for part in body.system_instruction.parts) if body.system_instruction else "",
        turns=len(body.contents),
        tools={each.name: each.parameters_json_schema or {} for each in declared},
        choice=names[0] if forced and len(names) == 1 else choice,
        schema=config.response_json_schema,
        json=config.response_mime_type == "application/json",
        stops=config.stop_sequences,
        max_tokens=config.max_output_tokens,
        media=[{"application": "file", "text": "file"}.get(kind, kind) for kind in _kinds(media)],
        results=[_told(result.response) for content in body.contents for result in _results(content)],
        reasoning=bool(config.thinking_config and config.thinking_config.include_thoughts),
    )


def _say(ask: Ask, script: Script) -> Said:
    """Of a prompt that is refused nothing is said at all."""
    said = say(ask, script, wants(ask.body))
    return Said(refusal=True, finish=said.finish) if said.refusal else said


def whole(said: Said, unfinished: bool = False) -> dict[str, Any]:
    """The answer without its head and usage."""
    if said.refusal:
        return {"promptFeedback": {"blockReason": "SAFETY"}}
    parts = [{"text": "".join(said.reasoning), "thought": True}] if said.reasoning else []
    parts += [{"text": "".join(said.tokens)}] if said.tokens else []
    parts += [_call(call, first=place == 0) for place, call in enumerate(said.calls)]
    return {"candidates": [_candidate(parts, None if unfinished else said.finish)]}


def stream(said: Said, head: dict[str, Any], script: Script, prompt: int) -> Iterator[Frame]:
    """Event by event: each call in one, the finish in one of its own behind them, usage so far in all."""
    done = 0
    pieces: list[tuple[dict[str, Any], int]] = [({"text": each, "thought": True}, 1) for each in said.reasoning]
    pieces += [({"text": each}, 1) for each in said.tokens]
    for place, call in enumerate(said.calls):
        pieces.append((_call(call, first=place == 0), len(pieces_of(call[1]))))
    for part, tokens in pieces:
        done += tokens
        yield _frame({"candidates": [_candidate([part])], **head}, usage_of(script, prompt, said, done), tokens)
    usage = usage_of(script, prompt, said, done)
    if said.refusal:
        yield _frame({**whole(said), **head}, usage, finish=True, end=not script.no_end)
    elif not script.no_finish:
        last = _candidate([{"text": ""}], said.finish)
        yield _frame({"candidates": [last], **head}, usage, finish=True, end=not script.no_end)
    elif not script.no_end:
        yield Frame(b": the end\n\n", end=True)


def usage_of(script: Script, prompt: int, said: Said, done: int) -> dict[str, Any] | None:
    """Counts so far; zeros are left out. None where the script has none."""
    if script.usage in ("never", "null"):
        return None
    if script.usage == "partial":
        return {"promptTokenCount": prompt}
    thoughts = min(done, len(said.reasoning))
    counts = {
        "promptTokenCount": prompt,
        "cachedContentTokenCount": min(script.cached, prompt),
        "candidatesTokenCount": done - thoughts,
        "thoughtsTokenCount": thoughts,
        "totalTokenCount": prompt + done,
    }
    return {name: count for name, count in counts.items() if count}


def _frame(
    event: dict[str, Any], usage: dict[str, Any] | None, tokens: int = 0, *, finish: bool = False, end: bool = False
) -> Frame:
    event |= {"usageMetadata": usage} if usage is not None else {}
    return Frame(b"data: " + _encode(event) + b"\n\n", tokens, finish, end, usage if finish else None)


def _candidate(parts: Sequence[dict[str, Any]], finish: str | None = None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    return candidate | ({"finishReason": _FINISH.get(finish, "STOP")} if finish is not None else {})


def _call(call: tuple[str, str], *, first: bool) -> dict[str, Any]:
    """Only the first call of several carries the signature of the thought behind them all."""
    part: dict[str, Any] = {"functionCall": {"name": call[0], "args": msgspec.json.decode(call[1])}}
    return part | ({"thoughtSignature": SIGNATURE} if first else {})


def _head(ask: Ask, script: Script) -> dict[str, Any]:
    return {"modelVersion": ask.model, "responseId": "dup" if script.same_ids else f"answer{ask.seq:08d}"}


def _words(body: _Chat) -> int:
    given = [*(body.system_instruction.parts if body.system_instruction else []), *_parts(body)]
    return sum(len((part.text or "").split()) for part in given)


def _parts(body: _Chat) -> list[_Part]:
    return [part for content in body.contents for part in content.parts]


def _kinds(media: Sequence[_Blob | _FileData]) -> list[str]:
    return [each.mime_type.partition("/")[0] for each in media]


def _told(response: dict[str, Any]) -> str:
    return response["output"] if list(response) == ["output"] else _encode(response).decode()


def _results(content: _Content) -> list[_Result]:
    return [part.function_response for part in content.parts if part.function_response is not None]


def _calls(content: _Content) -> list[_Call]:
    return [part.function_call for part in content.parts if part.function_call is not None]


def _embedded(body: _Embed) -> Frame:
    texts = ["".join(part.text or "" for part in each.content.parts) for each in body.requests]
    sizes = [each.output_dimensionality or 3 for each in body.requests]
    vectors = [[float(len(text)), *[0.5] * (size - 1)] for text, size in zip(texts, sizes, strict=True)]
    usage = {"promptTokenCount": sum(len(text.split()) for text in texts)}
    answer = {"embeddings": [{"values": vector} for vector in vectors], "usageMetadata": usage}
    return Frame(_encode(answer), finish=True, end=True, usage=usage)


def _error(status: int, message: str, details: Sequence[dict[str, Any]] = ()) -> bytes:
    said: dict[str, Any] = {"code": status, "message": message, "status": _STATUS.get(status, ("INTERNAL", ""))[0]}
    return msgspec.json.format(_encode({"error": said | ({"details": details} if details else {})}), indent=2)


# --- what the types cannot say of a request that the vendor refuses ---------------------------------------------------


def _wrong(body: _Chat, model: str) -> str | None:
    is_new = not model.startswith(("gemini-1", "gemini-2"))
    return _wrong_turns(body, is_new) or _wrong_tools(body) or _wrong_options(body, is_new)


def _wrong_turns(body: _Chat, is_new: bool) -> str | None:
    if any(len(part.kinds) != 1 for part in _parts(body)):
        return "required oneof field 'data' must have one initialized field"
    blobs = [part.inline_data for part in _parts(body) if part.inline_data is not None]
    if any(not base64.b64decode(blob.data, validate=True) or "/" not in blob.mime_type for blob in blobs):
        return "Unable to process input image."
    if body.contents[0].role != "user":
        return "Please ensure that function call turn comes immediately after a user turn."
    for before, after in zip(body.contents, [*body.contents[1:], None], strict=True):
        calls = _calls(before)
        answered = _results(after) if after is not None else []
        if [call.name for call in calls] != [result.name for result in answered]:
            return (
                "Please ensure that the number of function response parts is equal to the number of function call "
                "parts of the function call turn."
            )
        if [call.id for call in calls] != [result.id for result in answered]:
            return "function call id and function response id do not match"
        if any(call.id is not None for call in calls) and not is_new:
            return "Unknown name \"id\" at 'contents.parts.function_call': Cannot find field."
        if before.role == "model" and after is not None and after.role == "model":
            return "Please ensure that function call turn comes immediately after a user turn."
    return _unsigned(body) if is_new else None


def _unsigned(body: _Chat) -> str | None:
    """The calls of the current turn, that is behind the last words of the user, need their signatures."""
    asked = [place for place, each in enumerate(body.contents) if each.role == "user" and not _results(each)]
    for place, content in enumerate(body.contents[asked[-1] if asked else 0 :]):
        first = next((part for part in content.parts if part.function_call is not None), None)
        if first is not None and first.thought_signature not in (SIGNATURE, _BYPASS):
            name = first.function_call.name if first.function_call else ""
            return (
                "Function call is missing a thought_signature in functionCall parts. This is required for tools to "
                f"work correctly. Additional data, function call `default_api:{name}` , position {place}."
            )
    return None


def _wrong_tools(body: _Chat) -> str | None:
    declared = [each for tool in body.tools for each in tool.function_declarations or []]
    for each in declared:
        unknown = _unknown(each.parameters_json_schema or {})
        if unknown:
            return f"Unknown name {unknown[0]!r} at 'tools[0].function_declarations.parameters': Cannot find field."
    calling = body.tool_config.function_calling_config if body.tool_config is not None else None
    if calling is None:
        return None
    if calling.allowed_function_names and calling.mode not in ("ANY", "VALIDATED"):
        return "Allowed function names should only be set when the mode is ANY or VALIDATED."
    if not set(calling.allowed_function_names) <= {each.name for each in declared}:
        return "Allowed function names must be declared."
    return None


def _wrong_options(body: _Chat, is_new: bool) -> str | None:
    config = body.generation_config
    if is_new and (config.presence_penalty or config.frequency_penalty):
        return "Penalty is not enabled for this model"
    if config.response_json_schema is not None and config.response_mime_type != "application/json":
        return "response_schema requires response_mime_type application/json"
    if _unknown(config.response_json_schema or {}):
        return f"Unknown name {_unknown(config.response_json_schema or {})[0]!r} at 'generation_config'."
    if config.response_mime_type == "application/json" and body.tools and not is_new:
        return "Function calling with a response mime type: 'application/json' is unsupported"
    if config.logprobs is not None and not config.response_logprobs:
        return "logprobs requires response_logprobs"
    thinking = config.thinking_config
    if thinking is not None and thinking.thinking_budget is not None and thinking.thinking_level is not None:
        return "You can only set one of thinking budget and thinking level."
    if body.cached_content is not None and (body.system_instruction or body.tools or body.tool_config):
        return "CachedContent can not be used with GenerateContent request setting system_instruction or tools."
    return None


def _unknown(schema: Any) -> list[str]:
    """Keywords that are none; the names of properties are free."""
    if isinstance(schema, list):
        return [name for each in schema for name in _unknown(each)]
    if not isinstance(schema, dict):
        return []
    found = [name for name in schema if name not in _KEYWORDS]
    below = [schema.get(name) for name in ("items", "prefixItems", "anyOf", "oneOf", "additionalProperties")]
    below += [list(schema[name].values()) for name in ("properties", "$defs") if isinstance(schema.get(name), dict)]
    return [*found, *[name for each in below for name in _unknown(each)]]
