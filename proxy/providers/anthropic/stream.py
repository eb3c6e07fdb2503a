"""Translates: the events of one stream into canonical chunks. A whole answer is decoded like the equivalent stream.

The `type` of an event decides. Unknown types are skipped, and so is the work of the vendor's own tools.
"""

from __future__ import annotations

from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta, Struct, field

from proxy.providers.anthropic.citations import url_citations, without_url
from proxy.providers.anthropic.errors import error_in
from proxy.providers.anthropic.json_format import answer_of
from proxy.providers.anthropic.keys import NO_KEYS, Keys
from proxy.providers.anthropic.messages import AFTER
from proxy.providers.anthropic.names import Names
from proxy.providers.anthropic.usage import grown, usage_of
from proxy.providers.base.answers import arguments_text, call_id, decode, listed, mapping, text, whole_arguments
from proxy.providers.base.call_ids import CallIds, Offer
from proxy.providers.base.contract import HTTPResponse
from proxy.providers.base.finish import at_limit, derived_finish, names_finish, native_finish
from proxy.providers.base.runs import TextRuns
from proxy.providers.base.stream import EventDecoder
from proxy.schema.chat import ChatChunk, ChatRequest, ChatResponse, TextChunk
from proxy.schema.errors import UpstreamError, UpstreamTruncated
from proxy.schema.fold import THOUGHTS_SO_FAR, Fold
from proxy.schema.sse import Events

BETWEEN = "\n\n"  # between two thoughts
_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "compaction": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_TIERS = {"standard": "default", "priority": "priority"}
_BESIDE = ("container", "context_management")  # fields of the whole answer, for clients that know the vendor


class _TextDelta(Struct, tag_field="type", tag="text_delta", forbid_unknown_fields=True):
    text: Annotated[str, Meta(min_length=1)]


class _TextEvent(Struct, tag_field="type", tag="content_block_delta", forbid_unknown_fields=True):
    index: int
    delta: _TextDelta


_TEXT = b'"text_delta"'
_text_event = msgspec.json.Decoder(_TextEvent).decode


class _Block(Struct):
    """A content block in progress. `begin`: where its text starts in the content; `call`: the index of its tool call;
    `is_json`: the block is the JSON answer, given by tool call. `keys`: the tool's keys; if they differ from the
    client's, the arguments are held back until they are whole.
    """

    kind: str
    begin: int
    call: int | None = None
    is_json: bool = False
    keys: Keys = NO_KEYS
    input: Any = None
    pieces: list[str] = field(default_factory=list)
    signature: str = ""
    citations: list[Any] = field(default_factory=list)


def parse(response: HTTPResponse, names: Names, request: ChatRequest | None = None) -> ChatResponse:
    """A whole answer. Raises UpstreamError when it is an error in a 200, or has no content."""
    try:
        return _whole(decode(response.body), names, request)
    except UpstreamError as error:
        error.upstream_status = error.upstream_status or response.status
        raise


def _whole(body: dict[str, Any], names: Names, request: ChatRequest | None) -> ChatResponse:
    error = error_in(body)
    if error is not None:
        raise error
    if isinstance(content := body.get("content"), str | dict):
        body["content"] = [{"type": "text", "text": content} if isinstance(content, str) else content]
    elif not isinstance(content, list):
        raise UpstreamError("The provider's answer has no content.", retryable=True)
    decoder, fold = AnthropicStreamDecoder(names, request), Fold()
    for chunk in [*decoder.start(body), *decoder.end(body, body, is_last=True), *decoder.close()]:
        fold.add(chunk)
    return fold.response()


class AnthropicStreamDecoder(EventDecoder):
    """Decodes one stream with one choice."""

    def __init__(self, names: Names, request: ChatRequest | None = None) -> None:
        self._names = names
        self._request = request
        self._ids = CallIds(Offer(request))
        self._head: dict[str, Any] = {}
        self._first: dict[str, Any] | None = None  # the message in the event that starts the stream
        self._blocks: dict[object, _Block] = {}
        self._has_begun = False  # the content has
        self._calls = 0
        self._answered = False  # with the tool for JSON
        self._length = 0  # of the content
        self._runs = TextRuns(b'"text":"')
        self._has_thought = False
        self._thoughts: list[dict[str, Any]] = []
        self._citations: list[dict[str, Any]] = []
        self._usage: dict[str, Any] = {}
        self.finished = False

    def read(self, data: bytes, name: str) -> list[ChatChunk]:
        if _TEXT in data and (piece := self._text(data)) is not None:
            return self._content_piece(piece)
        body = decode(data)
        kind = body.get("type") or name
        error = error_in({**body, "type": kind})
        if error is not None:
            raise error
        if kind == "message_start":
            return self.start(mapping(body.get("message")))
        if kind == "message_delta":
            return self.end(mapping(body.get("delta")), body)
        if kind == "message_stop":
            self.done = True
            return [] if self.finished else self.end(self._first or {}, {}, is_last=True)
        return [] if self.finished else self._content(str(kind), body)

    def texts(self, events: Events, at: int) -> TextChunk | None:
        """What `feed` does with one event after the other, without its cost for each; never the first text."""
        if self.done or self.finished or self._split is not None or not self._length or _TEXT not in events.data[at]:
            return None
        pieces = self._runs.read(events, at, (self._only_text,))
        if not pieces:
            return None
        text = "".join(pieces)
        self._length += len(text)
        return TextChunk(0, text, pieces)

    def _only_text(self, data: bytes) -> str:
        event = _text_event(data)
        if event.index not in self._blocks:
            raise ValueError
        return event.delta.text

    def _text(self, data: bytes) -> str | None:
        """The text of an event that adds only text, as nearly all do; None for every other event."""
        try:
            event = _text_event(data)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return None
        return event.delta.text if event.index in self._blocks and not self.finished else None

    def close(self) -> list[ChatChunk]:
        if not self.finished:
            raise UpstreamTruncated("The provider's answer ended without a stop_reason.")
        return []

    def start(self, message: dict[str, Any]) -> list[ChatChunk]:
        """The chunks of the first event. It may hold complete content: a call by one of the vendor's tools arrives as
        such a message, with its end. A gateway may repeat the start; if it starts a second answer, neither is complete.
        """
        if self._first is not None:
            if not self.finished and message.get("id") != self._first.get("id"):
                why = "The provider's stream began another answer before the first one ended."
                raise UpstreamError(why, retryable=True)
            return []
        self._first = message
        self._usage = grown(self._usage, message.get("usage"), has_begun=not message.get("stop_reason"))
        if isinstance(message.get("id"), str):
            self._head["id"] = message["id"]
        if isinstance(message.get("model"), str):
            self._head["model"] = message["model"]
        tier = self._usage.get("service_tier")
        if isinstance(tier, str) and tier in _TIERS:
            self._head["service_tier"] = _TIERS[tier]
        chunks = [self._counted({"choices": []})]
        for raw in listed(message.get("content")):
            block, opened = self._open(mapping(raw))
            chunks += [*opened, *self._close(block)]
        return chunks

    def end(self, delta: dict[str, Any], body: dict[str, Any], *, is_last: bool = False) -> list[ChatChunk]:
        """The chunks of the end. Its usage is cumulative and may correct that of the start. `is_last`: the answer is
        complete, with or without a reason.
        """
        self._usage = grown(self._usage, body.get("usage"))
        self._head |= {name: found[name] for found in (delta, body) for name in _BESIDE if found.get(name) is not None}
        word = delta.get("stop_reason")
        if self.finished or not (names_finish(word) or (is_last and self._has_begun)):
            return [self._counted({"choices": []})]
        chunks = [chunk for index in list(self._blocks) for chunk in self._close(self._blocks.pop(index))]
        self.finished = True
        details = delta.get("stop_details")
        why = details.get("explanation") if isinstance(details, dict) else None
        said = {
            "refusal": why if word == "refusal" and isinstance(why, str) else None,
            "thinking_blocks": self._thoughts,
            "citations": self._citations,
        }
        reason, native = self._reason(word)
        left = {name: value for name, value in said.items() if value}
        choice = {"index": 0, "delta": left, "finish_reason": reason, **native}
        choice |= {name: delta[name] for name in ("stop_sequence", "stop_details") if delta.get(name) is not None}
        return [*chunks, self._counted({"choices": [choice]})]

    def _reason(self, word: object) -> tuple[str, dict[str, Any]]:
        """An answer with tool calls ends with `tool_calls`, whatever reason the vendor gives."""
        called = "tool_calls" if self._calls else None
        reason = _FINISH.get(word) if isinstance(word, str) else None
        if reason is None:
            return derived_finish(called, at_limit(self._request, usage_of(self._usage)), word)
        if reason in ("stop", "tool_calls"):
            reason = called or "stop"
        return reason, native_finish(word)

    # --- content ------------------------------------------------------------------------------------------------------

    def _content(self, kind: str, body: dict[str, Any]) -> list[ChatChunk]:
        index = body.get("index") if isinstance(body.get("index"), int) else None
        if kind == "content_block_start":
            ended = self._close(self._blocks.pop(index)) if index in self._blocks else []  # it had no event of its own
            self._blocks[index], chunks = self._open(mapping(body.get("content_block")))
            return [*ended, *chunks]
        if kind == "content_block_delta":
            if index not in self._blocks:
                raise UpstreamError("The provider's stream has a piece of a block that never began.", retryable=True)
            return self._delta(self._blocks[index], mapping(body.get("delta")))
        if kind == "content_block_stop" and index in self._blocks:
            return self._close(self._blocks.pop(index))
        return []

    def _open(self, raw: dict[str, Any]) -> tuple[_Block, list[ChatChunk]]:
        """The start of a block; in a whole answer it holds the entire block."""
        self._has_begun = True
        block = _Block(str(raw.get("type")), self._length, input=raw.get("input"))
        block.citations += listed(raw.get("citations"))
        if block.kind == "text":
            return block, self._content_piece(text(raw.get("text")))
        if block.kind == "thinking":
            block.signature = text(raw.get("signature"))
            return block, self._thought(block, text(raw.get("thinking")))
        if block.kind == "redacted_thinking" and text(raw.get("data")):
            return block, self._keep({"type": "redacted_thinking", "data": raw["data"]})
        return block, self._call(block, raw) if block.kind == "tool_use" else []

    def _delta(self, block: _Block, delta: dict[str, Any]) -> list[ChatChunk]:
        match delta.get("type"):
            case "text_delta":
                return self._content_piece(text(delta.get("text")))
            case "thinking_delta":
                return self._thought(block, text(delta.get("thinking")))
            case "signature_delta":
                block.signature = text(delta.get("signature")) or block.signature
            case "citations_delta":
                block.citations.append(delta.get("citation"))
            case "input_json_delta":
                piece = arguments_text(delta.get("partial_json"))
                block.pieces.append(piece)
                return [] if block.keys.changed else self._arguments(block, piece)
        return []

    def _close(self, block: _Block) -> list[ChatChunk]:
        if block.kind == "thinking":
            if block.signature:  # without one the vendor does not accept it back
                return self._keep({"type": "thinking", "thinking": "".join(block.pieces), "signature": block.signature})
        elif block.kind == "tool_use":
            written = "".join(block.pieces)
            # Arguments without pieces are in the start: `{}` of a tool that has none.
            rest = "" if written else whole_arguments(block.input)
            if block.is_json:
                return self._content_piece(answer_of(written or rest, self._names))
            if block.keys.changed:
                return self._arguments(block, block.keys.given(written or rest))
            return self._arguments(block, rest)
        elif block.citations:
            self._citations += without_url(block.citations)
            found = url_citations(block.citations, block.begin, self._length)
            return [self._chunk({"annotations": found})] if found else []
        return []

    def _keep(self, thought: dict[str, Any]) -> list[ChatChunk]:
        """Keeps a thought, with its position, for the next turn. Chat answers list all of them at the end; the chunk is
        for formats whose thoughts carry signatures.
        """
        self._thoughts.append({**thought, AFTER: self._calls} if self._calls else thought)
        return [cast(ChatChunk, {"choices": [], THOUGHTS_SO_FAR: list(self._thoughts)})]

    def _call(self, block: _Block, raw: dict[str, Any]) -> list[ChatChunk]:
        name = raw.get("name")
        if not isinstance(name, str) or not name:
            raise UpstreamError("The provider's answer has a tool call without a name.", retryable=True)
        if name == self._names.json_tool:
            block.is_json, self._answered = not self._answered, True  # of two calls the first is the answer
            return []
        block.call = self._calls
        self._calls += 1
        given = self._names.given(name)
        block.keys = self._names.keys_of(given)
        identity = call_id(raw.get("id")) or f"call_{self._head.get('id', '')}_{block.call}"
        call = {
            "index": block.call,
            "id": self._ids.unique(identity, block.call),
            "type": "function",
            "function": {"name": given, "arguments": ""},
        }
        return [self._chunk({"tool_calls": [call]})]

    def _arguments(self, block: _Block, piece: str) -> list[ChatChunk]:
        if not piece or block.call is None:
            return []
        return [self._chunk({"tool_calls": [{"index": block.call, "function": {"arguments": piece}}]})]

    def _content_piece(self, piece: str) -> list[ChatChunk]:
        """A chunk of content. The first one also names the model and its tier."""
        if not piece:
            return []
        is_first, self._length = not self._length, self._length + len(piece)
        return [self._chunk({"content": piece}) if is_first else cast(ChatChunk, TextChunk(0, piece))]

    def _thought(self, block: _Block, piece: str) -> list[ChatChunk]:
        if not piece:
            return []
        between = BETWEEN if self._has_thought and not block.pieces else ""
        self._has_thought = True
        block.pieces.append(piece)
        return [self._chunk({"reasoning_content": between + piece})]

    def _chunk(self, delta: dict[str, Any]) -> ChatChunk:
        return cast(ChatChunk, {**self._head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})

    def _counted(self, chunk: dict[str, Any]) -> ChatChunk:
        usage = usage_of(self._usage)
        return cast(ChatChunk, {**self._head, **chunk, **({"usage": usage} if usage is not None else {})})
