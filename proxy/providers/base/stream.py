"""Translates: the frame of all streams: which event holds data, and which one says that nothing follows."""

from __future__ import annotations

from proxy.schema.chat import ChatChunk
from proxy.schema.sse import Event


class EventDecoder:
    """One stream. A vendor's decoder reads its events, and says when every choice has finished."""

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
        """Chunks of one event: `data` without white space around it, and the event's name."""
        raise TypeError(f"{type(self).__name__} reads no events")
