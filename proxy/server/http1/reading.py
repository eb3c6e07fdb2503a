"""Performs I/O: pauses the reading of one connection, and polls the kernel for a disconnect in the meantime."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable

from proxy.server.http1.system import has_hung_up

REFUSALS_PER_SECOND = 1000  # about a twentieth of a processor
MAX_REST_S = 1.0  # the value of Retry-After
_WAKE_S = 0.02  # connections are resumed in groups: a timer for each would cost as much as its refusal
_LOOK_S = 0.1


class Resting:
    """Connections that were refused and are not read for a moment, in order of arrival."""

    def __init__(self) -> None:
        self._queue: deque[tuple[float, Callable[[], object]]] = deque()

    @property
    def has_room(self) -> bool:
        """True if one more can be resumed within MAX_REST_S. Clients that open a connection for each request disconnect
        once refused: more of their connections would only cost memory.
        """
        return len(self._queue) < REFUSALS_PER_SECOND * MAX_REST_S

    def add(self, resume: Callable[[], object]) -> None:
        """Calls `resume` later; the delay grows with the number of connections."""
        loop = asyncio.get_running_loop()
        if not self._queue:
            loop.call_later(_WAKE_S, self._wake, loop)
        rest_s = min(MAX_REST_S, (len(self._queue) + 1) / REFUSALS_PER_SECOND)
        self._queue.append((loop.time() + rest_s, resume))

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        while self._queue and self._queue[0][0] <= now:
            self._queue.popleft()[1]()
        if self._queue:
            loop.call_later(_WAKE_S, self._wake, loop)


class Reading:
    """The reading of one connection. `on_left` is called when its client leaves while nothing is read."""

    def __init__(self, transport: asyncio.Transport, resting: Resting, on_left: Callable[[], None]) -> None:
        self.is_paused = False
        self._transport = transport
        self._resting = resting
        self._on_left = on_left
        self._loop = asyncio.get_running_loop()

    def pause(self) -> None:
        """Pauses because too much is read ahead of the application."""
        if self._pause():
            self._loop.call_later(_LOOK_S, self._look)

    def resume(self) -> bool:
        """Resumes reading. True if it was paused."""
        if not self.is_paused or self._transport.is_closing():
            return False
        self.is_paused = False
        self._transport.resume_reading()
        return True

    def rest(self) -> None:
        """Leaves the next request of a refused client in its socket for a moment: clients that do not wait would use up
        the processor with their refusals.
        """
        if self._pause():
            self._resting.add(self.resume)

    def _pause(self) -> bool:
        if self.is_paused or self._transport.is_closing():
            return False
        self.is_paused = True
        self._transport.pause_reading()
        return True

    def _look(self) -> None:
        sock: socket.socket | None = self._transport.get_extra_info("socket")
        if not self.is_paused or self._transport.is_closing() or sock is None:
            return
        if has_hung_up(sock):
            self._on_left()
        else:
            self._loop.call_later(_LOOK_S, self._look)
