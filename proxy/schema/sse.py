"""Translates: bytes, cut anywhere, into events (WHATWG server-sent events). No I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from proxy.schema.errors import UpstreamError
from proxy.schema.json_structure import MAX_NESTING, check_nesting

MAX_EVENT_BYTES = 8 * 1024 * 1024  # a line that never ends must not fill the memory

_COLON = ord(":")
_DATA = b"data: "
_NAMED_DATA = b"\n" + _DATA
_MAX_KNOWN = 32  # vendors use about ten
_BOM = b"\xef\xbb\xbf"


class Event(Struct, frozen=True):
    """One event: `name` is the `event:` field ("" when absent), `data` its data lines joined by LF."""

    name: str
    data: bytes


class Events:
    """Events in a row, as two lists: a stream has hundreds, and an object for each would cost as much as the rest."""

    __slots__ = ("data", "names")

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.names: list[str] = []
        self.data: list[bytes] = []
        for event in events:
            self.add(event.name, event.data)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, at: int) -> Event:
        return Event(self.names[at], self.data[at])

    def __iter__(self) -> Iterator[Event]:
        return map(Event, self.names, self.data)

    def add(self, name: str, data: bytes) -> None:
        self.names.append(name)
        self.data.append(data)

    def extend(self, others: Events) -> None:
        self.names += others.names
        self.data += others.data


class EventFraming:
    """Parses one stream. Line ends may be LF, CRLF or CR; comments and unknown fields are skipped.

    Some servers leave out the blank line between two events, or `data:` before an object, or name a field `error`.
    Every whole object is an event; none is lost.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._short = min(MAX_NESTING, max_event_bytes - len(_DATA))  # data that cannot be nested too deeply
        self._known: dict[bytes, str] = {}  # first lines of events, and the names in them
        self._line = bytearray()  # the line that has not ended yet
        self._data: list[bytes] = []
        self._names: list[str] = []  # for each of `_data`: the event's name as far as it was known
        self._bare: list[bytes] = []  # lines of JSON without a field name
        self._size = 0  # bytes in `_data` and `_bare`
        self._name = ""
        self._after_cr = False
        self._at_start = True

    @property
    def pending(self) -> int:
        """Bytes of the event that has not ended yet."""
        return self._size + len(self._line)

    def feed(self, piece: bytes) -> list[Event]:
        """The events completed by `piece`. Raises as `take`."""
        return list(self.take(piece))

    def close(self) -> list[Event]:
        """The events that only the end of the stream completes. Raises as `take`."""
        return list(self.end())

    def take(self, piece: bytes) -> Events:
        """The events completed by `piece`. Raises UpstreamError for an event that is too large or nested too deeply."""
        if self._after_cr and piece.startswith(b"\n"):
            piece = piece[1:]
            self._after_cr = False
        if b"\r" in piece:
            self._after_cr = piece.endswith(b"\r")
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        elif piece:
            self._after_cr = False
        events = Events()
        if self._at_start and not self._line and len(piece) >= len(_BOM):
            self._at_start = False
            piece = piece.removeprefix(_BOM)
        if self._name and not (self._data or self._bare):
            piece = self._add_named(piece, events)
        if not (self._data or self._bare or self._name or self._at_start):
            piece = self._add_plain(piece, events)
        *lines, rest = piece.split(b"\n")
        if lines:
            lines[0] = self._complete_line(lines[0])
            self._add(lines, events)
        self._line += rest
        if self._size + len(self._line) > self._max:
            raise self._too_large()
        return events

    def end(self) -> Events:
        """Ends the stream. An event without its final blank line still counts, because some servers omit it."""
        events = Events()
        self._add([self._complete_line(b""), b""], events)
        return events

    def _add_named(self, piece: bytes, events: Events) -> bytes:
        """Adds the event whose name came in an earlier piece, if the rest of it is one line; returns what follows."""
        first, end, later = piece.partition(b"\n\n")
        if not end:
            return piece
        line = bytes(self._line) + first
        if not line.startswith(_DATA) or b"\n" in line or len(line) > self._max:
            return piece
        events.add(self._name, _shallow(line[len(_DATA) :]))
        self._name = ""
        self._line.clear()
        return later

    def _add_plain(self, piece: bytes, events: Events) -> bytes:
        """Adds events of the usual kinds, a `data:` line with or without an `event:` line before it, and returns the
        bytes from the first other event on.
        """
        end = piece.rfind(b"\n\n")
        if end < 0:
            return piece
        whole = bytes(self._line) + piece[:end]
        if whole.startswith(_DATA):  # nearly always each of them is one line
            lines = whole[len(_DATA) :].split(b"\n\n" + _DATA)
            are_single = whole.count(b"\n") == 2 * len(lines) - 2
            if are_single and max(map(len, lines)) <= self._short:
                self._line.clear()
                events.names += [""] * len(lines)
                events.data += lines
                return piece[end + 2 :]
        blocks = whole.split(b"\n\n")
        for place, block in enumerate(blocks):
            first, _, line = block.partition(_NAMED_DATA)
            name = self._known.get(first)
            if name is not None and len(line) <= self._short and b"\n" not in line:
                events.add(name, line)
            elif (event := self._plain(block)) is not None:
                events.add(*event)
            else:
                return piece if place == 0 else b"\n\n".join(blocks[place:]) + piece[end:]
            if place == 0:
                self._line.clear()
        return piece[end + 2 :]

    def _plain(self, block: bytes) -> tuple[str, bytes] | None:
        """Name and data of one `data:` line, or of two lines of which the first is its name."""
        head, _, line = block.rpartition(b"\n")
        if not line.startswith(_DATA) or len(line) > self._max or b"\n" in head:
            return None
        if len(line) < len(block) and not head.startswith(b"event: "):
            return None
        name = head[7:].decode("utf-8", "replace")
        if head and len(self._known) < _MAX_KNOWN:
            self._known[head] = name
        return name, _shallow(line[len(_DATA) :])

    def _complete_line(self, end: bytes) -> bytes:
        """The line that ends with `end`, including its earlier pieces."""
        if self._line:
            self._line += end
            end = bytes(self._line)
            self._line.clear()
        if self._at_start:
            self._at_start = False
            end = end.removeprefix(_BOM)
        return end

    def _add(self, lines: list[bytes], events: Events) -> None:
        for line in lines:
            if not line:
                if self._data or self._bare or self._name:
                    self._dispatch(events)
            elif line.lstrip().startswith(b"{") and not self._bare and _is_object(line):
                name = "" if self._data else self._name
                if self._data:
                    self._dispatch(events)
                events.add(name, _shallow(line.strip()))
            elif line[0] != _COLON:  # else a comment
                self._add_field(line)

    def _add_field(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value[1:] if value.startswith(b" ") else value)
            self._names.append(self._name)
        elif field == b"event":
            self._name = value.removeprefix(b" ").decode("utf-8", "replace")
            return
        elif self._bare or line.lstrip().startswith((b"{", b"[")):
            self._bare.append(line)
        elif field == b"error":
            self._name = "error"
            self._data.append(value.strip())
            self._names.append(self._name)
        else:
            return
        self._size += len(line) + 1
        if self._size > self._max:
            raise self._too_large()

    def _dispatch(self, events: Events) -> None:
        if len(self._data) == 1 and not self._bare:
            events.add(self._name, _shallow(self._data[0]))
        elif self._data or self._bare:
            named = list(zip(self._names, self._data, strict=True))
            for name, data in _objects(named, self._bare, self._name):
                events.add(name, _shallow(data))
        self._data.clear()
        self._names.clear()
        self._bare.clear()
        self._name = ""
        self._size = 0

    def _too_large(self) -> UpstreamError:
        return UpstreamError(f"The provider sent an event of more than {self._max} bytes.", retryable=True)


def _objects(data: list[tuple[str, bytes]], bare: list[bytes], name: str) -> list[tuple[str, bytes]]:
    """The events in `data:` lines, and in one JSON text without a field name, that no blank line separates. Several
    lines are one event, as the standard says, unless each is an object, or the end marker, by itself.
    """
    apart = [(own, line.strip()) for own, line in data if line.strip()]
    if len(apart) < 2 or not all(line == b"[DONE]" or _is_object(line) for _, line in apart):
        apart = [(name, b"\n".join(line for _, line in data))] if apart else []
    return [*apart, (name, b"\n".join(bare))] if bare else apart


def _is_object(line: bytes) -> bool:
    line = line.strip()
    if not (line.startswith(b"{") and line.endswith(b"}")):
        return False
    try:
        msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeError):
        return _is_lenient_object(line)
    except RecursionError:
        return False
    return True


def _is_lenient_object(line: bytes) -> bool:
    """With NaN, or halves of characters."""
    try:
        json.loads(line.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        return False
    return True


def _shallow(data: bytes) -> bytes:
    """Returns `data`. Raises UpstreamError for nesting too deep to decode or encode."""
    try:
        check_nesting(data)
    except RecursionError:
        raise UpstreamError("The provider sent JSON that is nested too deeply.") from None
    return data
