"""Translates: bytes of an event stream into events (WHATWG server-sent events), cut anywhere, without I/O."""

from __future__ import annotations

import re

from msgspec import Struct

from proxy.schema.errors import UpstreamError

MAX_EVENT_BYTES = 8 * 1024 * 1024  # a line without end is an error, not memory

_BOM = b"\xef\xbb\xbf"
_ERROR = re.compile(rb'\[?\s*\{\s*"error"\s*:\s*[{"]')


class Event(Struct, frozen=True):
    """One event: `name` is the `event:` field ("" when absent), `data` its data lines joined by LF."""

    name: str
    data: bytes


class EventFraming:
    """The frames of one stream. Line ends may be LF, CRLF or CR; comments and unknown fields are skipped.

    A stream that fails may end in the error's JSON without any field: that counts as an event.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._line: list[bytes] = []  # pieces of the line that has not ended yet
        self._data: list[bytes] = []
        self._bare: list[bytes] = []  # lines of JSON without a field
        self._size = 0
        self._name = ""
        self._after_cr = False
        self._at_start = True

    def feed(self, piece: bytes) -> list[Event]:
        """Events that end in `piece`. Raises UpstreamError for an event over the cap."""
        if self._after_cr and piece.startswith(b"\n"):
            piece = piece[1:]
            self._after_cr = False
        if b"\r" in piece:
            self._after_cr = piece.endswith(b"\r")
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        elif piece:
            self._after_cr = False
        first, *lines = piece.split(b"\n")
        self._line.append(first)
        self._grow(len(first))
        events: list[Event] = []
        for line in lines:
            self._end_line(events)
            self._line.append(line)
            self._grow(len(line))
        return events

    def close(self) -> list[Event]:
        """The stream ended; an event that lacks only its blank line still counts (some servers leave it out)."""
        events: list[Event] = []
        self._end_line(events)
        self._dispatch(events)
        return events

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > self._max:
            raise UpstreamError(f"The provider sent an event of more than {self._max} bytes.", retryable=True)

    def _end_line(self, events: list[Event]) -> None:
        line = self._line[0] if len(self._line) == 1 else b"".join(self._line)
        self._line.clear()
        if self._at_start:
            line = line.removeprefix(_BOM)
            self._at_start = False
        if not line:
            self._dispatch(events)
            return
        field, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif self._bare or line.startswith((b"{", b"[")):
            self._bare.append(line)
            return
        if field != b"data":
            self._size -= len(line)

    def _dispatch(self, events: list[Event]) -> None:
        if self._data:
            events.append(Event(self._name, self._data[0] if len(self._data) == 1 else b"\n".join(self._data)))
            self._data.clear()
        elif self._bare and _ERROR.match(bare := b"\n".join(self._bare)):
            events.append(Event(self._name, bare))
        self._bare.clear()
        self._name = ""
        self._size = 0
