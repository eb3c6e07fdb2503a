"""Translates: canonical chunks into the named events of one stream, each with its number. No `[DONE]` follows.

The last events (the ends of open items, and `response.completed`) are sent once the call is settled.
"""

from __future__ import annotations

from typing import Any

from proxy.pipeline.call import Call
from proxy.pipeline.native import with_whole_events
from proxy.schema.chat import ChatChunk, TextChunk, by_piece
from proxy.schema.errors import ProxyError
from proxy.schema.json import encode, encode_sized
from proxy.schema.long_text import joined_bytes
from proxy.schema.usage import Usage
from proxy.server.formats.responses.answer import Envelope, native_of
from proxy.server.formats.responses.output import Output
from proxy.server.formats.responses.parts import Said
from proxy.server.formats.responses.request import ResponsesRequest


class EventWriter:
    """Writes one stream. `held`: characters that were said, which the ends of items repeat."""

    def __init__(self, call: Call) -> None:
        self.held = 0
        self._call = call
        self._envelope = Envelope(call)
        self._frames: list[bytes] = []
        self._number = 0
        self._output: Output | None = None  # once the stream has begun
        names = call.request.names if isinstance(call.request, ResponsesRequest) else {}
        self._new = Output(call.id, names, self._emit)
        self._has_said_error = False  # the vendor itself did, in bytes that were sent
        self._text: tuple[Said, bytes, bytes] | None = None  # the constant parts of a delta of this message

    @property
    def keep_alive(self) -> bytes:
        """An event, as OpenAI sends it: some clients ignore comments. None comes before the first event."""
        if self._output is None:
            return b": ping\n\n"
        return _event("keepalive", max(0, self._number - 1), {})

    def write(self, chunks: list[ChatChunk]) -> bytes:
        if (native := native_of(self._call)) is not None:
            said = native.take()
            self._has_said_error = self._has_said_error or _says_error(said)
            return said
        output = self._begun()
        each: Any
        for each in by_piece(chunks):
            if type(each) is not TextChunk:
                output.add(each)
            elif each.index == 0:
                self._add_text(output, each.text)
        return self._taken()

    def tail(self, usage: Usage) -> bytes:
        if (native := native_of(self._call)) is not None:
            return with_whole_events(native.tail())
        output = self._begun()
        items = output.end()
        response = self._envelope.ended(items, output.finish_reason, usage, output.extras, self.held)
        self._emit(f"response.{response['status']}", {"response": response})
        return self._taken()

    def error(self, error: ProxyError) -> bytes:
        """`error` is for clients that look for errors, `response.failed` for those that look for an end. The vendor may
        have reported it itself.
        """
        said: Any = error.body()["error"]
        native = native_of(self._call)
        if native is not None and (self._output is None or self._has_said_error):
            rest = native.take() + native.tail()
            if self._has_said_error or _says_error(rest):
                return rest if not rest or rest.endswith(b"\n\n") else rest.rstrip(b"\r\n") + b"\n\n"
            return _event("error", self._number, {**_flat(said), "error": said})
        output = self._begun()
        self._emit("error", {**_flat(said), "error": said})
        self._emit("response.failed", {"response": self._envelope.failed(output.items, error)})
        return self._taken()

    def _begun(self) -> Output:
        if self._output is None:
            self._output = self._new
            for kind in ("response.created", "response.in_progress"):
                self._emit(kind, {"response": self._envelope.begun()})
        return self._output

    def _add_text(self, output: Output, text: str) -> None:
        """Adds a piece of text, as nearly all events do."""
        said = output.current
        if not isinstance(said, Said) or said.kind != "output_text" or not text:
            if text:
                output.add_text(text)
            return
        if self._text is None or self._text[0] is not said:
            frame = _event("response.output_text.delta", 0, {**said.at_part, "logprobs": [], "delta": ""})
            head, _, tail = frame.partition(b'"sequence_number":0')
            self._text = (said, head + b'"sequence_number":', tail.rpartition(b'"delta":""')[0] + b'"delta":')
        said.note(text)
        self.held += len(text)
        _, head, middle = self._text
        self._frames += (head, b"%d" % self._number, middle, encode(text), b"}\n\n")
        self._number += 1

    def _emit(self, kind: str, fields: dict[str, Any]) -> None:
        data = encode_sized({"type": kind, "sequence_number": self._number, **fields}, self.held)
        if isinstance(said := fields.get("delta"), str):
            self.held += len(said)
        self._frames += (b"event: ", kind.encode(), b"\ndata: ", data, b"\n\n")
        self._number += 1

    def _taken(self) -> bytes:
        frames, self._frames = self._frames, []
        return joined_bytes(frames)


def _event(kind: str, number: int, fields: dict[str, Any]) -> bytes:
    data = encode({"type": kind, "sequence_number": number, **fields})
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), data)


def _says_error(frames: bytes) -> bool:
    """True for a vendor's own events of a failure."""
    return b"event: error" in frames or b"event: response.failed" in frames


def _flat(error: dict[str, Any]) -> dict[str, Any]:
    return {name: error.get(name) for name in ("code", "message", "param")}
