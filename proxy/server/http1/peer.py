"""Values: the client at the other end of one request, and callbacks for the moment it leaves.

    peer = peer_of(scope)
    forget = peer.on_disconnect(task.cancel)   # runs at once, in the protocol's own callback, whatever the task awaits
    ...
    forget()

A client counts as gone when its connection is lost, and also when it closes its sending half: `close()` and
`shutdown(SHUT_WR)` look the same until something is written, and a request that waits for a provider writes nothing for
seconds. nginx does the same. A handler that registers no callback can still answer a half-closed connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import structlog

EXTENSION = "mmproxy.peer"  # the key in the scope's `extensions`
Callback = Callable[[], object]


def _no_answer(_lines: bytes, _body: bytes) -> bool:
    return False


def _no_push(_piece: bytes) -> bool:
    return False


class Peer:
    """One request's client. Its callbacks run at most once, and never after the answer is complete.

    `answer(lines, body)` sends a whole 200 answer in one write, without ASGI's two messages; `lines` are all its
    headers except `content-length` and those of the server. `push(piece)` sends a part of a body that has begun.
    False: it cannot, and ASGI must be used, which waits for a slow client.
    """

    __slots__ = ("_callbacks", "answer", "gone", "push")

    def __init__(
        self,
        answer: Callable[[bytes, bytes], bool] = _no_answer,
        push: Callable[[bytes], bool] = _no_push,
    ) -> None:
        self.answer = answer
        self.push = push
        self.gone = False
        self._callbacks: list[Callback] | None = None

    def on_disconnect(self, callback: Callback) -> Callback:
        """Runs `callback` when the client disconnects; at once if it has. Returns a function that removes the
        callback.
        """
        if self.gone:
            callback()
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)
        return lambda: self._forget(callback)

    def leave(self) -> None:
        """Called by the protocol. An error in one callback does not stop the others."""
        if self.gone:
            return
        self.gone = True
        self.answer, self.push = _no_answer, _no_push
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            try:
                callback()
            except Exception:
                structlog.get_logger("http1").exception("disconnect_callback_failed")

    def close(self) -> None:
        """Called by the protocol once the answer is complete: a disconnect no longer matters."""
        self._callbacks = None
        self.answer, self.push = _no_answer, _no_push  # breaks the reference cycle of peer and exchange

    def _forget(self, callback: Callback) -> None:
        if self._callbacks is not None and callback in self._callbacks:
            self._callbacks.remove(callback)


def peer_of(scope: Mapping[str, Any]) -> Peer:
    """The client of this request. Under another ASGI server, one that never leaves: only `receive` reports it."""
    peer = (scope.get("extensions") or {}).get(EXTENSION)
    return peer if isinstance(peer, Peer) else Peer()
