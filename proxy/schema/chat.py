"""Values: OpenAI's chat shapes, the canonical types of the whole product (source: the `openai` package, 3.54).

Requests are Structs, checked where they enter. Answers and chunks are TypedDicts: plain dictionaries whose named fields
are typed, so that every field a vendor adds rides along untouched and a pass-through stream costs one decode and one
encode.
"""

from __future__ import annotations

from collections.abc import Mapping
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


class KeptReasoning(Struct, frozen=True):
    """What a model thought before one tool call, kept for clients that do not send it back.

    `dialect` is the provider's `type`, `model` the upstream id that wrote it, `state` what `Provider.reasoning_state`
    took from the answer. Only the provider that wrote it can read it.
    """

    dialect: str
    model: str
    state: dict[str, Any]


class ChatRequest(Struct, frozen=True, kw_only=True):
    """One request to `/v1/chat/completions`.

    `fields` is the body as the client sent it, less nulls of known fields and what only concerns the proxy; the other
    attributes are checked views of it. Providers forward `fields`; they never change it. `kept` holds, by tool call id,
    the reasoning that belongs to tool calls in the messages. `strict`: refuse what would be dropped or adapted.
    """

    model: str
    messages: list[Message]
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    n: int = 1
    strict: bool = False
    kept: Mapping[str, KeptReasoning] = {}
    fields: dict[str, Any]

    def texts(self) -> list[str]:
        """The prompt's texts, one for each message, for counting."""
        return [_text(message.content) for message in self.messages]


class EmbeddingsRequest(Struct, frozen=True, kw_only=True):
    """One request to `/v1/embeddings`: `inputs` are texts, or lists of token ids where the client sent those.

    `fields` as in `ChatRequest`; `base64` is how the client wants its vectors, not how the vendor is asked.
    """

    model: str
    inputs: list[str] | list[list[int]]
    dimensions: int | None = None
    base64: bool = False
    strict: bool = False
    fields: dict[str, Any]

    @property
    def stream(self) -> bool:
        return False

    def texts(self) -> list[str]:
        """The inputs; of a list of tokens, one character in English for a quarter token."""
        return [text if isinstance(text, str) else "xxxx" * len(text) for text in self.inputs]


class RerankRequest(Struct, frozen=True, kw_only=True):
    """One request to `/v1/rerank`, Cohere's shape. `documents` are texts; `fields` as in `ChatRequest`."""

    model: str
    query: str
    documents: list[str]
    top_n: int | None = None
    return_documents: bool = False
    strict: bool = False
    fields: dict[str, Any]

    @property
    def stream(self) -> bool:
        return False


AnyRequest = ChatRequest | EmbeddingsRequest | RerankRequest


def _text(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, list):
        return "".join(part["text"] for part in content if isinstance(part.get("text"), str))
    return content or ""


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


class EmbeddingsResponse(TypedDict, total=False):
    """Vectors in the order of the inputs, as numbers; the API layer writes them as the client wants them."""

    model: str
    embeddings: list[list[float]]
    usage: Usage


class Ranked(TypedDict, total=False):
    index: int
    relevance_score: float


class RerankResponse(TypedDict, total=False):
    """`results` from the most relevant on; `searches` is what Cohere bills (search units), where the vendor says it."""

    id: str
    results: list[Ranked]
    usage: Usage
    searches: int


AnyResponse = ChatResponse | EmbeddingsResponse | RerankResponse
