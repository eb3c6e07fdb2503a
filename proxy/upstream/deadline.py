"""Orchestrates: one timer for all the waits of one exchange."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")

_EARLY_S = 0.001  # the resolution of uvloop's timers


class Deadline:
    """Bounds consecutive waits by a time of the loop.

    Its timer is set once and moved only when it goes off too early: most waits of an exchange have the same limit as
    the previous one or a later one, so a read costs no timer. Belongs to one exchange; waits do not overlap.
    """

    __slots__ = ("_armed_at", "_by", "_expired", "_loop", "_task", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._armed_at = 0.0
        self._by = 0.0
        self._task: asyncio.Task[object] | None = None
        self._expired = False

    async def wait(self, awaitable: Awaitable[T], by: float) -> T:
        """Awaits it until the loop time `by`, then cancels it and raises TimeoutError."""
        task = asyncio.current_task(self._loop)
        assert task is not None
        cancels = task.cancelling()
        self._task, self._by = task, by
        if self._timer is None or self._armed_at > by:
            self._arm()
        try:
            return await awaitable
        except asyncio.CancelledError:
            if self._expired:
                self._expired = False
                if task.uncancel() <= cancels:
                    raise TimeoutError from None
            raise
        finally:
            self._task = None
            if self._expired:  # it handled the cancellation in its own way
                self._expired = False
                task.uncancel()

    def close(self) -> None:
        """Drops the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_at = self._by
        self._timer = self._loop.call_at(self._by, self._go_off)

    def _go_off(self) -> None:
        self._timer = None
        if self._task is None:
            return  # there is no wait; the next one sets it again
        if self._loop.time() < self._by - _EARLY_S:
            self._arm()
            return
        self._expired = True
        self._task.cancel()
