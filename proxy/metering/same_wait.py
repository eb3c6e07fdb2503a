"""Orchestrates: one timer for all futures that may wait equally long."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class SameWait:
    """Ends futures that are not done after `seconds`, by `expire`.

    They expire in the order in which they came, so one timer serves them all. A timer for each would cost as much as
    everything else that a call to the ledger does on the loop.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, expire: Callable[[asyncio.Future[None]], object]
    ) -> None:
        self._loop = loop
        self._seconds = seconds
        self._expire = expire
        self._futures: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, future: asyncio.Future[None]) -> None:
        """Ends `future` when its time is up, unless it is done before."""
        futures = self._futures
        while futures and futures[0][1].done():
            futures.popleft()
        futures.append((self._loop.time() + self._seconds, future))
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._look)

    def close(self) -> None:
        """Stops watching. A pending timer would keep the objects that it notifies alive."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._futures.clear()

    def _look(self) -> None:
        now = self._loop.time()
        while self._futures and (self._futures[0][1].done() or self._futures[0][0] <= now):
            _, future = self._futures.popleft()
            if not future.done():
                self._expire(future)
        self._timer = self._loop.call_at(self._futures[0][0], self._look) if self._futures else None
