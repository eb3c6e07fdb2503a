"""Performs I/O: blocking work in a thread of its own, so that a hanging file system delays nothing else.

The threads of an executor are shared, and the interpreter waits for them when it ends. A thread that hangs in a read
may never return, so neither must wait for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


class DaemonThread:
    """Runs one piece of work at a time. `limit_s` bounds the wait for one, its turn included; None: no bound."""

    def __init__(self, name: str, limit_s: float | None = None) -> None:
        self._name = name
        self._limit_s = limit_s
        self._free = asyncio.Semaphore(1)

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """The result of `work`. Raises TimeoutError after the limit: work that has begun continues unattended."""
        async with asyncio.timeout(self._limit_s):
            await self._free.acquire()
            loop = asyncio.get_running_loop()
            done: asyncio.Future[T] = loop.create_future()
            threading.Thread(
                target=self._work, args=(loop, done, work, arguments), name=self._name, daemon=True
            ).start()
            return await done

    def _work(
        self, loop: asyncio.AbstractEventLoop, done: asyncio.Future[T], work: Callable[..., T], arguments: Any
    ) -> None:
        result: Any = None
        failure: BaseException | None = None
        try:
            result = work(*arguments)
        except BaseException as error:
            failure = error
        with suppress(RuntimeError):  # the loop was closed in the meantime
            loop.call_soon_threadsafe(self._end, done, result, failure)

    def _end(self, done: asyncio.Future[T], result: T, failure: BaseException | None) -> None:
        self._free.release()
        if done.done():
            return
        if failure is None:
            done.set_result(result)
        else:
            done.set_exception(failure)
