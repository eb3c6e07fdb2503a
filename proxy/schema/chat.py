"""Values: OpenAI's chat shapes, the canonical types of the whole product (source: the `openai` package, 3.54).

Requests are Structs, validated on entry. Answers and chunks are TypedDicts, that is, plain dictionaries: a vendor's
extra fields pass untouched, and a pass-through stream costs one decode and one encode.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence
from typing import Any, Self, TypedDict

from msgspec import Struct, structs

from proxy.schema.origins import Origins
from proxy.schema.request import Request
from proxy.schema.usage import UsageReport

_LIMIT_FIELDS = ("max_completion_tokens", "max_tokens")
NO_LIMIT = -1  # as llama.cpp, LM Studio and Ollama write it
FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter", "function_call")
ADAPTED_FINISH = "finish_reason_adapted"  # a field of choices whose finish_reason the provider did not give


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


class ChatRequest(Request, frozen=True, kw_only=True):
    """One request to `/v1/chat/completions`, or another chat endpoint's request in its shape.

    `kept` maps tool call ids in the messages to their reasoning. `unlimited`: the client sent NO_LIMIT as the output
    limit. Only some servers know it, so it is in neither `max_tokens` nor `fields`. `questions`: more than 1 if each
    message is a question of its own; `n` counts the choices of all of them. `may_cache`: False for the second and
    further copies of a request that are sent at once: each would write the vendor's prompt cache, and none read it.
    `origins`: what the client of another endpoint wrote its parts as.
    """

    messages: list[Message]
    questions: int = 1
    may_cache: bool = True
    include_usage: bool = False
    max_tokens: int | None = None
    unlimited: bool = False
    kept: Mapping[str, KeptReasoning] = {}
    origins: Origins | None = None

    def own_path(self, param: str) -> str:
        return param if self.origins is None else self.origins.own(param)

    @property
    def prompts(self) -> int:
        return len(self.messages)

    @property
    def may_race(self) -> bool:
        return self.n == 1

    def texts(self) -> list[str]:
        return [text_of(message.content) for message in self.messages]

    def question(self) -> str | None:
        return next((text_of(message.content) for message in reversed(self.messages) if message.role == "user"), None)

    def apart(self) -> list[Self]:
        if self.questions == 1:
            return [self]
        sizes = [len(text.encode("utf-8", "replace")) for text in self.texts()]
        rest = max(0, self.size - sum(sizes))
        return [
            structs.replace(
                self,
                questions=1,
                n=self.n // self.questions,
                messages=[message],
                size=rest + size,
                fields={**self.fields, "messages": [raw]},
                native=None if self.native is None else self.native.changed({"prompt": self.native.prompts[place]}),
            )
            for place, (message, raw, size) in enumerate(
                zip(self.messages, self.fields["messages"], sizes, strict=True)
            )
        ]

    def output_limit(self, otherwise: int | None) -> int | None:
        limit = self.max_tokens or otherwise
        return limit * self.n if limit else None

    def capped(self, max_tokens: int) -> tuple[Self, list[str]]:
        """Under both names of the limit: a server may ignore the one that it does not know."""
        over = [name for name in _LIMIT_FIELDS if (self.fields.get(name) or 0) > max_tokens]
        if self.max_tokens is None:
            over = [_LIMIT_FIELDS[0]]
        limit = min(self.max_tokens or max_tokens, max_tokens)
        given = {name: self.fields.get(name) for name in _LIMIT_FIELDS}
        sent = {name: min(value, max_tokens) if value and value > 0 else limit for name, value in given.items()}
        fields = {**self.fields, **sent}
        if not over:
            return structs.replace(self, fields=fields), []
        if (native := self.native) is None:
            return structs.replace(self, max_tokens=limit, unlimited=False, fields=fields), over
        native = native.changed({native.limit: limit})
        shorter = structs.replace(self, max_tokens=limit, unlimited=False, native=native, fields=fields)
        return shorter, [native.limit]


def text_of(content: str | list[dict[str, Any]] | None) -> str:
    """The text of a message's content."""
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

    `pieces`: if several events in a row added the text, what each of them added, so that a client may have as many.
    """

    index: int
    text: str
    pieces: Sequence[str] = ()

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


def by_piece(chunks: Iterable[Any]) -> Iterator[Any]:
    """The same chunks, with one for each event that added a text."""
    for chunk in chunks:
        if type(chunk) is TextChunk and chunk.pieces:
            yield from (TextChunk(chunk.index, piece) for piece in chunk.pieces)
        else:
            yield chunk
