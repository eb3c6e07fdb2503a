"""Values: OpenAI's chat shapes, the canonical types of the whole product (source: the `openai` package, 3.54).

Requests are a Struct, checked where they enter. Answers and chunks are TypedDicts: plain dictionaries whose named
fields
are typed, so that every field a vendor adds rides along untouched and a pass-through stream costs one decode and one
encode.
"""

from __future__ import annotations

from typing import Any, TypedDict

from msgspec import Struct

FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter", "function_call")


class Message(Struct, frozen=True, omit_defaults=True):
    """The fields of one message that some module looks at; the message itself stays in `ChatRequest.fields`."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class StreamOptions(Struct, frozen=True):
    include_usage: bool | None = None


class ChatRequest(Struct, frozen=True, kw_only=True):
    """One request to `/v1/chat/completions`.

    `fields` is the body as the client sent it, less nulls of known fields and what only concerns the proxy; the other
    attributes are checked views of it. Providers forward `fields`; they never change it.
    """

    model: str
    messages: list[Message]
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    n: int = 1
    fields: dict[str, Any]


class FunctionCall(TypedDict, total=False):
    name: str
    arguments: str


class ToolCall(TypedDict, total=False):
    """A tool call; in a delta `index` is required, `id`, `type` and `function.name` come once per index."""

    index: int
    id: str
    type: str
    function: FunctionCall


class Delta(TypedDict, total=False):
    role: str
    content: str | None
    refusal: str | None
    reasoning_content: str | None
    tool_calls: list[ToolCall]


class ChunkChoice(TypedDict, total=False):
    index: int
    delta: Delta
    finish_reason: str | None
    logprobs: Any


class Usage(TypedDict, total=False):
    """OpenAI's usage: `prompt_tokens` includes cached tokens, `completion_tokens` includes reasoning."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, Any]
    completion_tokens_details: dict[str, Any]
    cost: float | None
    cost_details: dict[str, Any]


class ChatChunk(TypedDict, total=False):
    id: str
    object: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None


class ResponseMessage(TypedDict, total=False):
    role: str
    content: str | None
    refusal: str | None
    annotations: list[Any]
    reasoning_content: str | None
    tool_calls: list[ToolCall]


class Choice(TypedDict, total=False):
    index: int
    message: ResponseMessage
    finish_reason: str | None
    logprobs: Any


class ChatResponse(TypedDict, total=False):
    id: str
    object: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
