"""Values: OpenAI's chat shapes, the canonical types of the whole product (source: the `openai` package, 3.54).

Requests are Structs, validated on entry. Answers and chunks are TypedDicts, that is, plain dictionaries: a vendor's
extra fields pass untouched, and a pass-through stream costs one decode and one encode.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence
from typing import Any, ClassVar, Self, TypedDict

from msgspec import Struct, structs

from proxy.schema.errors import UpstreamError
from proxy.schema.usage import UsageReport

_LIMIT_FIELDS = ("max_completion_tokens", "max_tokens")
FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter", "function_call")


class Message(Struct, frozen=True, omit_defaults=True):
    """The fields of one message that the proxy reads; the message itself stays in `ChatRequest.fields`."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class StreamOptions(Struct, frozen=True):
    include_usage: bool | None = None


class KeptReasoning(Struct, frozen=True):
    """A model's reasoning before one tool call, kept for clients that do not send it back.

    `dialect` is the provider's `type`, `model` the upstream id, `state` the result of `Provider.reasoning_state`. Only
    the provider that produced it can read it.
    """

    dialect: str
    model: str
    state: dict[str, Any]


class NativeBody(Struct, frozen=True):
    """A request in one vendor's own wire shape, as the client sent it.

    A deployment whose provider is of type `dialect` gets `body` at `path` (joined to its base URL) with only the model
    name replaced; every other deployment gets the translated request.
    """

    dialect: str
    path: str
    body: bytes
    headers: dict[str, str] = {}


class Request(Struct, frozen=True, kw_only=True):
    """The common part of all endpoints' requests. Differences between endpoints are methods, never type checks.

    `fields` is the client's body without known fields that are null and without the proxy's own; the other attributes
    are validated views of it. Providers forward `fields` and never change it. `strict`: refuse the request if anything
    would be dropped or adapted. `size` bounds the bytes of the prompt: the body plus the proxy's additions.
    """

    task_type: ClassVar[str | None] = None
    stream: bool = False
    n: int = 1

    model: str
    strict: bool = False
    native: NativeBody | None = None
    size: int = 0
    fields: dict[str, Any]

    @property
    def prompts(self) -> int:
        """The number of prompts or messages, each of which adds template overhead."""
        raise TypeError(f"{type(self).__name__} does not count its prompts")

    @property
    def repeated(self) -> str:
        """A text that the vendor reads with every prompt, in addition to `texts`."""
        return ""

    def texts(self) -> list[str]:
        """The texts that the vendor reads, for token counting."""
        raise TypeError(f"{type(self).__name__} does not list its texts")

    def output_limit(self, otherwise: int | None) -> int | None:
        """The token limit of the answer over all choices, with `otherwise` as the default. None: no limit."""
        return 0

    def capped(self, max_tokens: int) -> tuple[Self, list[str]]:
        """The request limited to `max_tokens` of output per choice, and the names of the changed fields."""
        return self, []

    def parts(self, limits: Iterable[int | None]) -> list[Self]:
        """The request in parts that every candidate accepts. `limits`: the candidates' limits on inputs per request."""
        return [self]

    def joined(self, answers: Sequence[Any]) -> Any:
        """One answer from the answers to `parts`."""
        return answers[0]

    def check(self, response: Any) -> None:
        """Raises UpstreamError for an answer that does not match the request."""


class ChatRequest(Request, frozen=True, kw_only=True):
    """One request to `/v1/chat/completions`, or another chat endpoint's request in its shape.

    `kept` maps tool call ids in the messages to their reasoning.
    """

    messages: list[Message]
    include_usage: bool = False
    max_tokens: int | None = None
    kept: Mapping[str, KeptReasoning] = {}

    @property
    def prompts(self) -> int:
        return len(self.messages)

    def texts(self) -> list[str]:
        return [_text(message.content) for message in self.messages]

    def output_limit(self, otherwise: int | None) -> int | None:
        limit = self.max_tokens or otherwise
        return limit * self.n if limit else None

    def capped(self, max_tokens: int) -> tuple[Self, list[str]]:
        over = [name for name in _LIMIT_FIELDS if (self.fields.get(name) or 0) > max_tokens]
        if self.max_tokens is None:
            over = [_LIMIT_FIELDS[0]]
        if not over:
            return self, []
        fields = {**self.fields, **dict.fromkeys(over, max_tokens)}
        limit = min(self.max_tokens or max_tokens, max_tokens)
        return structs.replace(self, max_tokens=limit, native=None, fields=fields), over


class EmbeddingsRequest(Request, frozen=True, kw_only=True):
    """One request to `/v1/embeddings`: `inputs` are texts or lists of token ids.

    `base64` is the encoding that the client wants, not the one requested from the vendor.
    """

    task_type: ClassVar[str | None] = "embeddings"

    inputs: list[str] | list[list[int]]
    dimensions: int | None = None
    base64: bool = False

    @property
    def prompts(self) -> int:
        return len(self.inputs)

    def texts(self) -> list[str]:
        """The inputs; each token id counts as four English characters."""
        return [text if isinstance(text, str) else "xxxx" * len(text) for text in self.inputs]

    def parts(self, limits: Iterable[int | None]) -> list[Self]:
        most = min((limit for limit in limits if limit is not None), default=len(self.inputs))
        if len(self.inputs) <= most:
            return [self]
        pieces: list[Any] = [self.inputs[start : start + most] for start in range(0, len(self.inputs), most)]
        return [structs.replace(self, inputs=piece, fields={**self.fields, "input": piece}) for piece in pieces]

    def joined(self, answers: Sequence[Any]) -> EmbeddingsResponse:
        """All vectors, in input order."""
        return {"embeddings": [vector for answer in answers for vector in answer["embeddings"]]}

    def check(self, response: Any) -> None:
        """Raises UpstreamError unless there is one vector per input."""
        if len(response["embeddings"]) != len(self.inputs):
            message = f"The provider sent {len(response['embeddings'])} embeddings for {len(self.inputs)} inputs."
            raise UpstreamError(message)


class RerankRequest(Request, frozen=True, kw_only=True):
    """One request to `/v1/rerank`, Cohere's shape. `documents` are texts."""

    task_type: ClassVar[str | None] = "rerank"

    query: str
    documents: list[str]
    top_n: int | None = None
    return_documents: bool = False

    @property
    def prompts(self) -> int:
        return len(self.documents)

    @property
    def repeated(self) -> str:
        """A reranker reads the query with every document."""
        return self.query

    def texts(self) -> list[str]:
        return self.documents

    def check(self, response: Any) -> None:
        """Raises UpstreamError for documents that were not sent, or that are ranked twice."""
        places = [each["index"] for each in response["results"]]
        if len(set(places)) != len(places) or any(not 0 <= place < len(self.documents) for place in places):
            raise UpstreamError("The provider ranked a document that was not sent, or one document twice.")


AnyRequest = ChatRequest | EmbeddingsRequest | RerankRequest


def _text(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, list):
        return "".join(part["text"] for part in content if isinstance(part.get("text"), str))
    return content or ""


class FunctionCall(TypedDict, total=False):
    name: str
    arguments: str


class ToolCall(TypedDict, total=False):
    """A tool call. In a delta `index` is required; `id`, `type` and `function.name` come once per index."""

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


class ChatChunk(TypedDict, total=False):
    id: str
    object: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: UsageReport | None


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


class TextChunk(Struct, frozen=True, eq=False, gc=False):
    """A ChatChunk that only adds text to one choice, as nearly all chunks of a stream do.

    It reads like the dictionary it represents, which is built only on access. Hot paths check the type first.
    """

    index: int
    text: str

    def whole(self) -> dict[str, Any]:
        return {"choices": [{"index": self.index, "delta": {"content": self.text}}]}

    def get(self, name: str, default: Any = None) -> Any:
        return self.whole().get(name, default)

    def __getitem__(self, name: str) -> Any:
        return self.whole()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.whole())

    def keys(self) -> KeysView[str]:
        return self.whole().keys()

    def items(self) -> ItemsView[str, Any]:
        return self.whole().items()

    def __eq__(self, other: object) -> bool:
        return self.whole() == (other.whole() if isinstance(other, TextChunk) else other)

    __hash__ = None  # type: ignore[assignment]


class ChatResponse(TypedDict, total=False):
    id: str
    object: str
    created: int
    model: str
    choices: list[Choice]
    usage: UsageReport


class EmbeddingsResponse(TypedDict, total=False):
    """Vectors in input order, as numbers; the API layer encodes them as the client requested."""

    model: str
    embeddings: list[list[float]]
    usage: UsageReport


class Ranked(TypedDict, total=False):
    index: int
    relevance_score: float


class RerankResponse(TypedDict, total=False):
    """`results`, most relevant first. `searches`: the search units that Cohere bills, if reported."""

    id: str
    results: list[Ranked]
    usage: UsageReport
    searches: int


AnyResponse = ChatResponse | EmbeddingsResponse | RerankResponse
