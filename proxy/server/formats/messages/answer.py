"""Translates: canonical chunks and answers into Anthropic's: a message of content blocks, or its named events.

A stream starts with `message_start`; each block has a start, pieces and a stop; `message_delta` and `message_stop` are
held back until the call is settled. Blocks of an answer that is not streamed have the same order: thoughts, text,
calls. Source: the `anthropic` package 2.8, read in November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from proxy.metering import tokens
from proxy.pipeline.call import Call
from proxy.pipeline.format import CutShort
from proxy.pipeline.native import NativeAnswer, with_whole_events
from proxy.pipeline.trace import trace
from proxy.providers.base.content import arguments
from proxy.schema.chat import ChatChunk, ChatResponse, TextChunk, by_piece
from proxy.schema.errors import ProxyError
from proxy.schema.json import encode
from proxy.schema.usage import Usage
from proxy.server.formats.messages.conversation import MARK
from proxy.server.formats.messages.errors import error_body
from proxy.server.formats.responses.parts import flat_citations

PING = b'event: ping\ndata: {"type": "ping"}\n\n'
_ERROR = b"event: error\n"
_STOP = re.compile(rb'"type"\s*:\s*"message_stop"')
_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_OWN_REASONS = frozenset(
    {"pause_turn", "refusal", "model_context_window_exceeded", "stop_sequence", "compaction", "max_tokens"}
)


def event(kind: str, fields: Mapping[str, Any]) -> bytes:
    """One named event."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), encode({"type": kind, **fields}))


def message_id(call: Call) -> str:
    return f"msg_{call.id}"


def whole_message(call: Call, answer: ChatResponse, stops: list[str], *, hides_thoughts: bool) -> dict[str, Any]:
    """A whole answer."""
    choice: Any = answer["choices"][0]
    message = choice["message"]
    content: list[dict[str, Any]] = []
    if (thought := message.get("reasoning_content")) and not hides_thoughts:
        content.append({"type": "thinking", "thinking": thought, "signature": signature(call)})
    for name in ("content", "refusal"):
        if text := message.get(name):
            found = citations(call, message.get("annotations")) if name == "content" else []
            content.append({"type": "text", "text": text, **({"citations": found} if found else {})})
    for each in message.get("tool_calls") or []:
        if "function" in each:
            function = each["function"]
            content.append({"type": "tool_use", "id": each["id"], "name": function["name"], "input": arguments(each)})
    head = {"id": message_id(call), "type": "message", "role": "assistant", "model": call.shown_model}
    end = ending({**choice, **stopped_at(call)}, stops, has_refused=bool(message.get("refusal")))
    return {**head, "content": content, **end, "usage": usage_of(call.usage()), **trace(call)}


def signature(call: Call) -> str:
    """A mark for thoughts of models that do not sign: clients send none back without a signature. It proves nothing."""
    return f"{MARK}{call.id}"


def citations(call: Call, annotations: object) -> list[dict[str, Any]]:
    """The sources of a search. Other vendors provide neither their content nor Anthropic's key to them."""
    known = {"type": "web_search_result_location", "cited_text": "", "encrypted_index": signature(call)}
    return [{**known, "title": each["title"], "url": each["url"]} for each in flat_citations(annotations)]


def stopped_at(call: Call) -> dict[str, Any]:
    """The stop sequence at which the proxy itself cut the answer, as Anthropic names it."""
    cut = call.answering.cut if call.seated is None else None
    return {} if cut is None or cut.matched is None else {"stop_sequence": cut.matched}


def ending(choice: Mapping[str, Any], stops: list[str], *, has_refused: bool) -> dict[str, Any]:
    """`stop_reason`, `stop_sequence`, `stop_details`."""
    reason, native = choice.get("finish_reason"), choice.get("native_finish_reason")
    word = native if native in _OWN_REASONS else _REASONS.get(reason or "", "end_turn")
    stopped = next((s for name in ("stop_sequence", "stop_reason") if (s := choice.get(name)) in stops), None)
    if stopped is not None and word == "end_turn":
        word = "stop_sequence"
    if has_refused and word == "end_turn":
        word = "refusal"
    end: dict[str, Any] = {"stop_reason": word, "stop_sequence": stopped if word == "stop_sequence" else None}
    if word == "refusal":
        details = {"type": "refusal", "category": None, "explanation": None}
        end["stop_details"] = choice.get("stop_details") or details
    return end


def usage_of(usage: Usage) -> dict[str, Any]:
    """Usage in Anthropic's shape: it counts cached tokens outside of `input_tokens`, OpenAI inside."""
    prompt, output = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    read, written = prompt.get("cached_tokens") or 0, prompt.get("cache_write_tokens") or 0
    found: dict[str, Any] = {
        "input_tokens": max(0, usage.get("prompt_tokens", 0) - read - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": usage.get("completion_tokens", 0),
        "output_tokens_details": {"thinking_tokens": output.get("reasoning_tokens") or 0},
    }
    return found | {name: usage[name] for name in ("cost", "cost_details") if name in usage}


def _says_error(events: bytes) -> bool:
    """True if the vendor's own bytes contain an error event."""
    return b"\nevent: error" in events or events.startswith(b"event: error")


class _Open(Struct):
    """The block being written."""

    kind: str
    index: int


class EventWriter(CutShort):
    """Writes one stream. `hides_thoughts`: the client wants none."""

    keep_alive = PING
    held = 0

    def __init__(self, call: Call, stops: list[str], *, hides_thoughts: bool) -> None:
        self._call = call
        self._stops = stops
        self._hides_thoughts = hides_thoughts
        self._has_begun = False
        self._blocks = 0
        self._open: _Open | None = None
        self._calls: dict[int, int] = {}  # index of a tool call -> of its block
        self._waiting: dict[int, tuple[dict[str, Any], list[str]]] = {}  # further calls: the block and its arguments
        self._finish: Mapping[str, Any] = {}
        self._has_refused = False
        self._has_said_error = False  # the vendor itself did, in bytes that were sent

    def write(self, chunks: list[ChatChunk]) -> bytes:
        """The events of `chunks`, without the end, which `tail` sends; for the vendor's own answer its own bytes."""
        if (native := self._native()) is not None:
            said = native.take()
            self._has_said_error = self._has_said_error or _says_error(said)
            return said
        frames: list[bytes] = []
        each: Any
        for each in by_piece(chunks):
            if type(each) is TextChunk:
                if each.index == 0:
                    self._text(frames, each.text)
                continue
            for choice in each.get("choices", ()):
                if choice.get("index", 0) == 0:
                    self._delta(frames, choice.get("delta") or {})
                    if choice.get("finish_reason"):
                        self._finish = choice
        return b"".join(frames)

    def tail(self, usage: Usage) -> bytes:
        """The end of the message, once the call is settled."""
        if (native := self._native()) is not None:
            said = with_whole_events(native.tail())
            return said if _STOP.search(said) else said + event("message_stop", {})
        frames: list[bytes] = []
        self._begin(frames)
        for block, pieces in self._waiting.values():
            self._start(frames, "tool_use", block)
            if pieces:
                self._arguments(frames, self._blocks - 1, "".join(pieces))
        self._close(frames)
        finish = {**self._finish, **stopped_at(self._call)}
        end = ending(finish, self._stops, has_refused=self._has_refused)
        frames.append(event("message_delta", {"delta": end, "usage": usage_of(usage), **trace(self._call)}))
        frames.append(event("message_stop", {}))
        return b"".join(frames)

    def error(self, error: ProxyError) -> bytes:
        """The last event of a stream that fails after its first byte. The vendor may have reported it itself."""
        self.has_failed = True
        native = self._native()
        said = b"" if native is None else native.take()
        rest = b"" if native is None else native.tail()
        if _says_error(said + rest):
            return (said + rest).rstrip(b"\r\n") + b"\n\n"
        if self._has_said_error:
            return said
        return said + _ERROR + b"data: " + error_body(error, self._call.id).replace(b"\n", b" ") + b"\n\n"

    def _native(self) -> NativeAnswer | None:
        call = self._call
        return call.answering.native if call.seated is None and call.attempts else None

    # --- blocks -------------------------------------------------------------------------------------------------------

    def _delta(self, frames: list[bytes], delta: Mapping[str, Any]) -> None:
        if (thought := delta.get("reasoning_content")) and not self._hides_thoughts:
            self._piece(frames, "thinking", {"type": "thinking_delta", "thinking": thought})
        if text := delta.get("content"):
            self._text(frames, text)
        if refusal := delta.get("refusal"):
            self._has_refused = True
            self._piece(frames, "refusal", {"type": "text_delta", "text": refusal})
        if delta.get("annotations") and self._open is not None and self._open.kind == "text":
            for each in citations(self._call, delta["annotations"]):
                self._piece(frames, "text", {"type": "citations_delta", "citation": each})
        for call in delta.get("tool_calls") or ():
            self._call_piece(frames, call)

    def _text(self, frames: list[bytes], text: str) -> None:
        self._piece(frames, "text", {"type": "text_delta", "text": text})

    def _piece(self, frames: list[bytes], kind: str, delta: dict[str, Any]) -> None:
        """A piece of a block of this kind, a new one unless it is open."""
        if self._open is None or self._open.kind != kind:
            empty = {"type": kind, kind: ""} if kind == "text" else {"type": "text", "text": ""}
            if kind == "thinking":
                empty = {"type": "thinking", "thinking": "", "signature": ""}
            self._start(frames, kind, empty)
        assert self._open is not None
        frames.append(event("content_block_delta", {"index": self._open.index, "delta": delta}))

    def _call_piece(self, frames: list[bytes], call: Mapping[str, Any]) -> None:
        """A piece of a call. Some vendors interleave several calls; here one block ends before the next begins, so
        pieces of other calls wait for the end.
        """
        place, function = call.get("index", 0), call.get("function") or {}
        if place not in self._calls:
            if not function.get("name"):
                return
            block = {"type": "tool_use", "id": call.get("id") or "", "name": function["name"], "input": {}}
            if self._calls:
                self._waiting[place] = block, []
                self._calls[place] = -1
            else:
                self._start(frames, "tool_use", block)
                self._calls[place] = self._blocks - 1
        if piece := function.get("arguments"):
            if place in self._waiting:
                self._waiting[place][1].append(piece)
            else:
                self._arguments(frames, self._calls[place], piece)

    def _arguments(self, frames: list[bytes], index: int, piece: str) -> None:
        delta = {"type": "input_json_delta", "partial_json": piece}
        frames.append(event("content_block_delta", {"index": index, "delta": delta}))

    def _start(self, frames: list[bytes], kind: str, block: dict[str, Any]) -> None:
        self._begin(frames)
        self._close(frames)
        self._open = _Open(kind, self._blocks)
        self._blocks += 1
        frames.append(event("content_block_start", {"index": self._open.index, "content_block": block}))

    def _close(self, frames: list[bytes]) -> None:
        block, self._open = self._open, None
        if block is None:
            return
        if block.kind == "thinking":
            signed = {"type": "signature_delta", "signature": signature(self._call)}
            frames.append(event("content_block_delta", {"index": block.index, "delta": signed}))
        frames.append(event("content_block_stop", {"index": block.index}))

    def _begin(self, frames: list[bytes]) -> None:
        if self._has_begun:
            return
        self._has_begun = True
        call = self._call
        head = {"id": message_id(call), "type": "message", "role": "assistant", "model": call.shown_model}
        said = call.answering.tally.usage if call.attempts else None
        prompt = usage_of(said.shown) if said is not None else {}
        if not prompt.get("input_tokens"):
            prompt = {"input_tokens": tokens.estimate_prompt(call.request)}
        usage = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, **prompt, "output_tokens": 1}
        message: dict[str, Any] = {**head, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        frames.append(event("message_start", {"message": message}))
