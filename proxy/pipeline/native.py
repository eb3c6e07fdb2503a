"""Translates: the bytes of an answer that passes untouched, split into what may leave now and what waits.

An answer is settled before the client can take it for complete, also where its bytes are the vendor's own. So the part
of a stream in which the decoder saw the finish, and all that follows, is held back until the call is settled.
"""

from __future__ import annotations

_EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")


class NativeAnswer:
    """The bytes of one attempt's answer in the vendor's own shape."""

    def __init__(self) -> None:
        self.whole = b""  # the body of an answer that is not streamed
        self._ready: list[bytes] = []
        self._held = bytearray()

    def add(self, piece: bytes, is_finished: bool) -> None:
        """The next bytes of a stream. `is_finished`: the finish arrived with them, or before."""
        seen = max(0, len(self._held) - 3)  # a mark may be cut by the end of the piece before
        self._held += piece
        if not is_finished:
            # Only whole events leave: a keep-alive frame may have to go between two of them.
            ends = [at + len(mark) for mark in _EVENT_ENDS if (at := self._held.rfind(mark, seen)) >= 0]
            if ends:
                end = max(ends)
                self._ready.append(bytes(self._held[:end]))
                del self._held[:end]

    def take(self) -> bytes:
        """What may leave now."""
        ready, self._ready = self._ready, []
        return b"".join(ready)

    def tail(self) -> bytes:
        """The rest, once the call is settled."""
        return self.take() + bytes(self._held)
