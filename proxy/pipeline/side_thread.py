"""Performs I/O: the thread that owns the connection of a store other than the ledger. Every wait for it is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from proxy.storage.base import StoreError

CLOSE_S = 5.0  # how long shutdown waits for the store

T = TypeVar("T")


class SideThread:
    """Runs work on the store. After a failure it refuses everything for `pause_s`. `warn` logs an event with fields.

    The events are `<name>_degraded`, once, and `<name>_recovered`.
    """

    def __init__(self, name: str, warn: Callable[..., object], wait_s: float, pause_s: float) -> None:
        self.failures = 0
        self.executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._name = name
        self._warn = warn
        self._wait_s = wait_s
        self._pause_s = pause_s
        self._is_down = False
        self._again_at = 0.0

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`. Raises StoreError if the store fails, or takes too long: then the work continues
        unattended.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._again_at:
            self.failures += 1
            raise StoreError(f"The store failed less than {self._pause_s:g} s ago.")
        working = loop.run_in_executor(self.executor, work)
        working.add_done_callback(_retrieve_exception)
        await asyncio.wait({working}, timeout=self._wait_s)
        if not working.done():
            raise self._failed(StoreError(f"no answer within {self._wait_s:g} s"), loop.time())
        try:
            result = working.result()
        except StoreError as error:
            raise self._failed(error, loop.time()) from error
        if self._is_down:
            self._is_down = False
            self._warn(f"{self._name}_recovered", failures=self.failures)
        return result

    async def close(self, close: Callable[[], None] | None) -> None:
        """Runs `close` after the pending work; waits at most CLOSE_S, in case the disk hangs."""
        if close is not None:
            closing = asyncio.get_running_loop().run_in_executor(self.executor, close)
            await asyncio.wait({closing}, timeout=CLOSE_S)
        self.executor.shutdown(wait=False, cancel_futures=True)

    def _failed(self, error: StoreError, now_s: float) -> StoreError:
        self.failures += 1
        self._again_at = now_s + self._pause_s
        if not self._is_down:
            self._is_down = True
            self._warn(f"{self._name}_degraded", error=str(error))
        return error


def _retrieve_exception(working: asyncio.Future[T]) -> None:
    """Retrieves the exception of unattended work, so that asyncio does not report it."""
    if not working.cancelled():
        working.exception()
