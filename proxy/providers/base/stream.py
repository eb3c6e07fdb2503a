"""Translates: the common part of all event streams: empty frames are skipped, and `[DONE]` ends the stream."""

from __future__ import annotations

import re

from proxy.providers.base.answers import json_or_none
from proxy.providers.base.errors import build
from proxy.providers.base.lenient import ends_in_half, with_halves_moved
from proxy.schema.chat import ChatChunk, TextChunk
from proxy.schema.json import encode
from proxy.schema.sse import Event, Events

_DONE = b"[DONE]"
_FIELD = b"data:"
# Present in events that end a choice or a stream, in any dialect.
_LAST = re.compile(rb'"finish|\.(?:completed|incomplete|failed)"|message[_-](?:stop|delta|end)')


class EventDecoder:
    """Decodes one stream. Subclasses read a vendor's events and know when every choice has finished."""

    done = False
    _split: tuple[bytes, str] | None = None  # an event that ends in half a character: the next may have the other half

    def feed(self, event: Event) -> list[ChatChunk]:
        data = event.data.strip()
        if not data or self.done:
            return []
        if data.startswith(b"{"):
            if self._split is None and not (b"\\u" in data and ends_in_half(data)):
                return self.read(data, event.name)
            return self._read_halves(data, event.name)
        if data == _DONE:  # OpenAI's end marker, which servers of other dialects send too
            before = self._read_halves(b"{}", "") if self._split is not None else []
            self.done = True
            return [*before, *self.at_end_marker()]
        return self._padding(data, event.name)

    def texts(self, events: Events, at: int) -> TextChunk | None:
        """One chunk for the events from number `at` on, as far as each only adds text to the same choice. It has a
        piece for each of these, which are not fed then. None, or fewer than there are, is never wrong.
        """
        return None

    def read(self, data: bytes, name: str) -> list[ChatChunk]:
        """The chunks of one event. `data` is an object, stripped of white space."""
        raise TypeError(f"{type(self).__name__} reads no events")

    def at_end_marker(self) -> list[ChatChunk]:
        """The chunks of the end marker."""
        return []

    def _read_halves(self, data: bytes, name: str) -> list[ChatChunk]:
        """The chunks of the held event, and of this one, unless it is held in turn; the last one never is."""
        chunks: list[ChatChunk] = []
        if self._split is not None:
            (before, its_name), self._split = self._split, None
            before, data = with_halves_moved(before, data)
            chunks = self.read(before, its_name)
        if ends_in_half(data) and _LAST.search(data) is None:
            self._split = data, name
            return chunks
        return [*chunks, *self.read(data, name)]

    def _padding(self, data: bytes, name: str) -> list[ChatChunk]:
        """The chunks of an event that is not an object. Servers fill pauses with `null`, `[]`, `ping`, but an error may
        come in a list, or as plain text, and some gateways frame events twice.
        """
        if data.startswith(_FIELD):
            while data.startswith(_FIELD):
                data = data.removeprefix(_FIELD).lstrip()
            return self.feed(Event(name, data))
        if data.strip(b'" ').upper() == _DONE:
            return self.feed(Event(name, _DONE))
        if name == "error":
            raise build({"message": data.decode(errors="replace")}, 0, {})
        value = json_or_none(data) if data.startswith(b"[") and b"error" in data else None
        first = value[0] if isinstance(value, list) and value else None
        if isinstance(first, dict) and first.get("error"):
            return self.read(encode(first), name)
        return []
