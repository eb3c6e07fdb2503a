"""Orchestrates: a bounded buffer between the tasks that write an answer and the task that sends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf

MAX_BUFFERED_BYTES = 16 * 1024  # less than one piece of a fast upstream: the next one waits until this one is sent


class Output:
    """One reader; the writers are the attempts of one call.

    Back-pressure: a full buffer blocks the writers, and so their upstreams.

    `push(frames)`, if there is one, sends frames at once, or returns False if it cannot. It is used while the reader
    waits and nothing is buffered, which saves a switch of tasks for each piece of a stream.
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
        self._pushed_at = -inf
        self.push: Callable[[bytes], bool] | None = None

    @property
    def is_discarded(self) -> bool:
        """True once the reader is gone."""
        return self._is_discarded

    def write(self, frames: bytes) -> asyncio.Future[None] | None:
        """Adds frames. If a future is returned, the writer must await it before it writes again.

        Each writer gets its own future: cancelling it does not affect the others.
        """
        if self._is_discarded:
            return None
        if self.push is not None and self._is_awaited and self.push(frames):
            self._pushed_at = asyncio.get_running_loop().time()
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
        """Ends with the last frames, or with an error that `read` raises after them. Only the first end counts."""
        if self._is_ended:
            return
        if last and not self._is_discarded:
            self._pieces.append(last)
        self._is_ended, self._error = True, error
        _wake(self._reader)

    def discard(self, error: BaseException) -> None:
        """The reader is gone: later writes are dropped, and a later `read` raises `error`."""
        self._is_discarded = True
        self._pieces.clear()
        self._wake_writers()
        self.end(error=error)

    async def wait(self, timeout_s: float) -> bool:
        """True once there is something to read, including the end; False if nothing was written for `timeout_s`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while not self._pieces and not self._is_ended:
            timer = loop.call_at(until, self._give_up)
            try:
                await self._next_write()
            finally:
                timer.cancel()
            if not self._pieces and not self._is_ended and self._pushed_at + timeout_s <= until:
                return False
            until = self._pushed_at + timeout_s
        return True

    async def read(self) -> bytes:
        """Everything written so far; `b""` at the end. Raises the error that ended the output."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._is_ended:
                return b""
            await self._next_write()
        pieces, self._pieces, self._size = self._pieces, [], 0
        self._wake_writers()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _wake_writers(self) -> None:
        while self._writers:
            _wake(self._writers.pop())

    @property
    def _is_awaited(self) -> bool:
        """True while the reader waits for the next write."""
        return self._reader is not None and not self._reader.done() and not self._pieces

    def _give_up(self) -> None:
        _wake(self._reader)

    def _next_write(self) -> asyncio.Future[None]:
        self._reader = asyncio.get_running_loop().create_future()
        return self._reader


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
