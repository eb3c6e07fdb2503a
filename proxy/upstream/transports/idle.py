"""Orchestrates: connections between two requests.

aiohttp's own pool is not used: calling it costs more than all the checks it makes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, Protocol, TypeVar

KEEP_S = 30.0


class Kept(Protocol):
    """A connection. `transport` is None once it is closed."""

    @property
    def transport(self) -> asyncio.BaseTransport | None: ...

    def hang_up(self) -> None: ...


K = TypeVar("K", bound=Kept)


class IdleConnections(Generic[K]):
    """Idle connections by origin. The last used one is taken first; one that stays unused for KEEP_S is closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._by_origin: dict[object, deque[tuple[float, K]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def put(self, origin: object, connection: K) -> None:
        idle = self._by_origin.get(origin)
        if idle is None:
            idle = self._by_origin[origin] = deque()
        idle.append((self._loop.time(), connection))
        if self._timer is None:
            self._timer = self._loop.call_later(KEEP_S, self._sweep)

    def take(self, origin: object) -> K | None:
        """An open connection, if there is one."""
        idle = self._by_origin.get(origin)
        while idle:
            _, connection = idle.pop()
            if (transport := connection.transport) is not None and not transport.is_closing():
                return connection
            connection.hang_up()
        return None

    def close(self) -> None:
        """Closes all of them."""
        if self._timer is not None:
            self._timer.cancel()
        self._close_until(float("inf"))

    def _sweep(self) -> None:
        self._close_until(self._loop.time() - KEEP_S)
        self._timer = self._loop.call_later(KEEP_S / 10, self._sweep) if self._by_origin else None

    def _close_until(self, time: float) -> None:
        for origin, idle in list(self._by_origin.items()):
            while idle and (idle[0][0] <= time or idle[0][1].transport is None):
                idle.popleft()[1].hang_up()
            if not idle:
                del self._by_origin[origin]
