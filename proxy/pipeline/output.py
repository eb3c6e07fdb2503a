"""Orchestrates: what a call has written and its reader has not taken yet: a bounded buffer between two tasks."""

from __future__ import annotations

import asyncio

MAX_BUFFERED_BYTES = 128 * 1024


class Output:
    """One reader; the writers are one call's attempts.

    A full buffer holds them up, and so their upstreams: that is the back-pressure.
    """

    def __init__(self, limit: int = MAX_BUFFERED_BYTES) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0
        self._is_ended = False
        self._error: BaseException | None = None
        self._is_discarded = False
        self._reader: asyncio.Future[None] | None = None
        self._writers: list[asyncio.Future[None]] = []

    @property
    def is_discarded(self) -> bool:
        """True once nobody reads any more."""
        return self._is_discarded

    def write(self, frames: bytes) -> asyncio.Future[None] | None:
        """Adds frames. Where a future is returned, the writer waits for it before it writes again.

        The future is that writer's alone: when it is cancelled, others go on waiting.
        """
        if self._is_discarded:
            return None
        self._pieces.append(frames)
        self._size += len(frames)
        _wake(self._reader)
        if self._size <= self._limit:
            return None
        waiter = asyncio.get_running_loop().create_future()
        self._writers.append(waiter)
        return waiter

    def end(self, last: bytes = b"", error: BaseException | None = None) -> None:
        """The last frames, or the error that is raised once everything before it was read. The first end stands."""
        if self._is_ended:
            return
        if last and not self._is_discarded:
            self._pieces.append(last)
        self._is_ended, self._error = True, error
        _wake(self._reader)

    def discard(self, error: BaseException) -> None:
        """The reader is gone: what is written from now on vanishes, and a reader that comes back gets `error`."""
        self._is_discarded = True
        self._pieces.clear()
        self._wake_writers()
        self.end(error=error)

    async def wait(self, timeout_s: float) -> bool:
        """True once there is something to read, the end included; False after `timeout_s`."""
        if self._pieces or self._is_ended:
            return True
        timer = asyncio.get_running_loop().call_later(timeout_s, self._give_up)
        try:
            await self._written()
        finally:
            timer.cancel()
        return bool(self._pieces) or self._is_ended

    async def read(self) -> bytes:
        """Everything written so far, `b""` at the end. Raises the error that the output ended with."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._is_ended:
                return b""
            await self._written()
        pieces, self._pieces, self._size = self._pieces, [], 0
        self._wake_writers()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _wake_writers(self) -> None:
        while self._writers:
            _wake(self._writers.pop())

    def _give_up(self) -> None:
        _wake(self._reader)

    async def _written(self) -> None:
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
