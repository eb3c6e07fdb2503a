"""Performs I/O: runs work that grows with the body size in a thread, if the body is large.

Python hands over the GIL every 5 ms, between two steps of such work. So other calls wait for its longest single step,
not for all of it. Two threads are enough: more would only compete for the GIL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

LARGE_BYTES = 256 * 1024  # below this every step stays within 20 ms on the loop

T = TypeVar("T")


class OffLoop:
    """One per process."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="large-body")

    async def run(self, size: int, work: Callable[[], T]) -> T:
        """Returns the result of `work`. `size`: the bytes of the body that it reads or writes.

        A cancelled caller returns at once. Work that has started continues, and its result is dropped.
        """
        if size <= LARGE_BYTES:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """Cancels queued work and accepts no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
