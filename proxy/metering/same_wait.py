"""Orchestrates: one timer for all futures that may wait equally long."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class SameWait:
    """Ends futures that are not done after `seconds`: with the `error`, or without one.

    They end in the order in which they came, so one timer serves them all. A timer for each costs as much as all else
    that a call to the ledger does on the loop.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, error: Callable[[], Exception] | None = None
    ) -> None:
        self._loop = loop
        self._seconds = seconds
        self._error = error
        self._futures: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, future: asyncio.Future[None]) -> None:
        """Ends `future` in time, unless somebody else does."""
        futures = self._futures
        while futures and futures[0][1].done():
            futures.popleft()
        futures.append((self._loop.time() + self._seconds, future))
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        while self._futures and (self._futures[0][1].done() or self._futures[0][0] <= now):
            _, future = self._futures.popleft()
            if future.done():
                continue
            if self._error is None:
                future.set_result(None)
            else:
                future.set_exception(self._error())
        self._timer = self._loop.call_at(self._futures[0][0], self._look) if self._futures else None
