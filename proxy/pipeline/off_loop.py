"""Performs I/O: work that grows with a body, beside the event loop once the body is large.

Python passes its lock on between two steps of such work, every 5 ms; so it delays others by its longest single step,
not by all of it. Two threads are enough: more would only wait for the same lock.
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
        """What `work` returns or raises. `size`: bytes of the body that it reads or writes.

        A caller that is cancelled does not wait for it; work that has begun goes on, and its result is dropped.
        """
        if size <= LARGE_BYTES:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """Starts nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
