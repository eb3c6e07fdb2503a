"""Orchestrates: the clean-up of the usage database, and its size for `/health`. No call waits for either."""

from __future__ import annotations

import asyncio

from structlog.typing import FilteringBoundLogger

from proxy.schema.daemon_thread import DaemonThread
from proxy.storage.base import StoreError
from proxy.storage.retention import Retention, StorageState

LOOK_S = 15.0  # interval at which each worker checks whether a clean-up is due
COUNT_S = 300.0  # interval at which the calls are counted
_LIMIT_S = 60.0


class Upkeep:
    """`state` is None until the calls have been counted."""

    def __init__(self, retention: Retention, log: FilteringBoundLogger, look_s: float = LOOK_S) -> None:
        self.state: StorageState | None = None
        self._retention = retention
        self._log = log
        self._look_s = look_s
        self._cleaning = DaemonThread("clean-up")
        self._counting = DaemonThread("storage-state", _LIMIT_S)
        self._is_over = False

    async def follow(self) -> None:
        """Runs until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._clean_up_when_due())
                group.create_task(self._count_at_times())
        finally:
            self._is_over = True  # a clean-up ends after its current transaction

    async def count(self) -> None:
        """Updates `state`; a failure leaves it as it was."""
        try:
            self.state = await self._counting.run(self._retention.state)
        except (StoreError, TimeoutError) as error:
            self._log.warning("storage_state_unknown", error=str(error) or f"no answer within {_LIMIT_S:g} s")

    async def _count_at_times(self) -> None:
        while True:
            await self.count()
            await asyncio.sleep(COUNT_S)

    async def _clean_up_when_due(self) -> None:
        while True:
            try:
                done = await self._cleaning.run(self._retention.clean_up, lambda: self._is_over)
            except StoreError as error:
                self._log.warning("clean_up_failed", error=str(error))
            else:
                if done is not None:
                    self._log.info(
                        "clean_up", calls=done.calls, attempts=done.attempts, texts=done.texts, windows=done.windows
                    )
                    await self.count()
            await asyncio.sleep(self._look_s)
