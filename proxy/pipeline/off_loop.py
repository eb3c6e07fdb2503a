"""Performs I/O: runs work that grows with the body size in a thread, if the body is large.

Between two steps of such work, Python hands the GIL to a thread that has waited for 5 ms (less while work runs here).
So other calls wait for its longest single step, not for all of it. Two threads are enough: more would only compete for
the GIL.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

LARGE_BYTES = 256 * 1024  # below this every step stays within 20 ms on the loop
_SWITCH_S = 0.0005  # by default a stream among large bodies would wait 5 ms for each of its turns
_AT_ONCE = 256  # members of a list that are freed in one step, each with its contents
_CONTAINERS = frozenset({dict, list})

T = TypeVar("T")


class OffLoop:
    """One per process."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="large-body")
        self._usual_switch_s = sys.getswitchinterval()
        self._working = 0
        self._count = threading.Lock()

    async def run(self, size: int, work: Callable[[], T]) -> T:
        """Returns the result of `work`. `size`: the bytes of the body that it reads or writes.

        A cancelled caller returns at once. Work that has started continues, and its result is dropped.
        """
        if size <= LARGE_BYTES:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._work, work)

    def _work(self, work: Callable[[], T]) -> T:
        with self._count:
            self._working += 1
            sys.setswitchinterval(_SWITCH_S)
        try:
            return work()
        finally:
            with self._count:
                self._working -= 1
                if not self._working:
                    sys.setswitchinterval(self._usual_switch_s)

    def close(self) -> None:
        """Cancels queued work and accepts no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def take_apart(value: dict[str, Any] | list[Any]) -> None:
    """Empties a large value in short steps. Freeing a million objects at once holds the GIL for 60 ms."""
    rest: list[Any] = [value]
    while rest:
        node = rest.pop()
        if type(node) is list and len(node) > _AT_ONCE:
            while node:
                del node[-_AT_ONCE:]
            continue
        rest += [each for each in (node.values() if type(node) is dict else node) if type(each) in _CONTAINERS]
        node.clear()
