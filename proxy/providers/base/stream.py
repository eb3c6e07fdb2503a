"""Translates: what all event streams share: events without data are skipped, and `[DONE]` ends the stream."""

from __future__ import annotations

from proxy.schema.chat import ChatChunk
from proxy.schema.sse import Event


class EventDecoder:
    """Decodes one stream. Subclasses read a vendor's events and know when every choice has finished."""

    done = False

    def feed(self, event: Event) -> list[ChatChunk]:
        data = event.data.strip()
        if not data or self.done:
            return []
        if data == b"[DONE]":  # OpenAI's end marker, which servers of other dialects send too
            self.done = True
            return []
        return self.read(data, event.name)

    def read(self, data: bytes, name: str) -> list[ChatChunk]:
        """The chunks of one event. `data` is stripped of white space."""
        raise TypeError(f"{type(self).__name__} reads no events")
