"""Performs I/O: shares moved conversations with the other workers. No call waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from proxy.routing.warm_sessions import WarmSessions
from proxy.schema.daemon_thread import DaemonThread
from proxy.storage.base import StoreError
from proxy.storage.sticky_moves import StickyMoves

EVERY_S = 1.0
_LIMIT_S = 10.0


class SharedSessions:
    """The conversations of this process and those in the database. Without it workers only agree less often, so a
    failure is logged and retried.
    """

    def __init__(
        self,
        sessions: WarmSessions,
        store: StickyMoves,
        log: FilteringBoundLogger,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._log = log
        self._clock_ns = clock_ns
        self._thread = DaemonThread("sticky-moves", _LIMIT_S)
        self._seen = 0
        self._is_down = False

    async def follow(self) -> None:
        """Exchanges every EVERY_S, until cancelled."""
        while True:
            await self.exchange()
            await asyncio.sleep(EVERY_S)

    async def exchange(self) -> None:
        """Stores the moves of this process, and reads those of others since the last time."""
        told = self._sessions.take_untold()
        try:
            moves, self._seen = await self._thread.run(self._store.exchange, told, self._seen, self._clock_ns())
        except (StoreError, TimeoutError) as error:
            self._sessions.give_back(told)
            if not self._is_down:
                self._is_down = True
                self._log.warning("sticky_moves_degraded", error=str(error) or f"no answer within {_LIMIT_S:g} s")
            return
        if self._is_down:
            self._is_down = False
            self._log.warning("sticky_moves_recovered")
        self._sessions.learn(moves)
