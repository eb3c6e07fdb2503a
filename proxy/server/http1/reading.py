"""Performs I/O: pauses the reading of one connection, and asks the kernel meanwhile whether its client has left."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from proxy.server.http1.connections import Connections
from proxy.server.http1.system import has_hung_up

REFUSALS_PER_SECOND = 1000  # about a twentieth of a processor
MAX_REST_S = 1.0  # what Retry-After says
_LOOK_S = 0.1


class Reading:
    """The reading of one connection. `on_left` is called when its client leaves while nothing is read."""

    def __init__(self, transport: asyncio.Transport, all: Connections, on_left: Callable[[], None]) -> None:
        self.is_paused = False
        self._transport = transport
        self._all = all
        self._on_left = on_left
        self._loop = asyncio.get_running_loop()

    def pause(self) -> None:
        """There is too much to read ahead of the application."""
        if self._pause():
            self._loop.call_later(_LOOK_S, self._look)

    def resume(self) -> bool:
        """True where it was paused."""
        if not self.is_paused or self._transport.is_closing():
            return False
        self.is_paused = False
        self._transport.resume_reading()
        return True

    def rest(self) -> None:
        """Leaves the next request of a client that was refused in its socket for a moment: clients that do not wait
        would use up the processor with their refusals.
        """
        if self._pause():
            self._all.resting += 1
            self._loop.call_later(min(MAX_REST_S, self._all.resting / REFUSALS_PER_SECOND), self._wake)

    def _pause(self) -> bool:
        if self.is_paused or self._transport.is_closing():
            return False
        self.is_paused = True
        self._transport.pause_reading()
        return True

    def _wake(self) -> None:
        self._all.resting -= 1
        self.resume()

    def _look(self) -> None:
        sock: socket.socket | None = self._transport.get_extra_info("socket")
        if not self.is_paused or self._transport.is_closing() or sock is None:
            return
        if has_hung_up(sock):
            self._on_left()
        else:
            self._loop.call_later(_LOOK_S, self._look)
