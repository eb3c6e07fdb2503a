"""Translates: the bytes of a pass-through answer into a part to send now and a part to hold back.

A call is settled before its client can see the answer as complete. That also applies to a vendor's own bytes: from the
piece in which the decoder saw the finish, the stream is held back until the call is settled.
"""

from __future__ import annotations

from proxy.providers.base.answers import json_or_none

_EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")


class NativeAnswer:
    """The bytes of one attempt's answer in the vendor's own shape."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}  # of the vendor's answer, passed on with it
        self.whole = b""  # the body of an answer that is not streamed
        self._ready: list[bytes] = []
        self._pending = bytearray()

    def add(self, piece: bytes, is_finished: bool) -> None:
        """Adds the next bytes of a stream. `is_finished`: the finish arrived with them, or earlier."""
        seen = max(0, len(self._pending) - 3)  # a mark may span two pieces
        self._pending += piece
        if not is_finished:
            # Send only whole events: a keep-alive frame may go between two of them.
            ends = [at + len(mark) for mark in _EVENT_ENDS if (at := self._pending.rfind(mark, seen)) >= 0]
            if ends:
                end = max(ends)
                self._ready.append(bytes(self._pending[:end]))
                del self._pending[:end]

    def take(self) -> bytes:
        """The bytes to send now."""
        ready, self._ready = self._ready, []
        return b"".join(ready)

    def tail(self) -> bytes:
        """The remaining bytes, to send once the call is settled."""
        return self.take() + bytes(self._pending)


def with_whole_events(tail: bytes) -> bytes:
    """The end of a stream whose connection broke off after the finish: the last event gets the blank line without which
    clients do not read it, and is left out if it is cut itself. Other bytes are as they came.
    """
    if not tail or tail.endswith(_EVENT_ENDS):
        return tail
    end = max(tail.rfind(mark) + len(mark) if mark in tail else 0 for mark in _EVENT_ENDS)
    rest = tail[end:].rstrip(b"\r\n")
    name, _, data = rest.splitlines()[-1].partition(b":") if rest else (b"", b"", b"")
    return tail[:end] + (rest + b"\n\n" if name == b"data" and json_or_none(data) is not None else b"")
