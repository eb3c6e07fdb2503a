"""Orchestrates: usage queries. They run on threads of their own, a few at a time, each for a bounded time.

So a usage query never delays calls, key look-ups or the end of the process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from proxy.schema.ensembles import EnsembleCall, EnsembleQuery
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.queries import CallDetails, LogQuery, UsageQuery
from proxy.schema.records import PastCall
from proxy.storage.base import Store, StoreError, TooSlow

AT_ONCE = 2
MAX_ASKED = 8  # running and waiting
QUERY_S = 10.0
T = TypeVar("T")


class UsageQueries:
    """The reads of a store: usage, and single calls."""

    def __init__(self, store: Store, *, query_s: float = QUERY_S) -> None:
        self._store = store
        self._query_s = query_s
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="usage")
        self._asked = 0
        self._is_closed = False

    async def read(self, query: UsageQuery) -> dict[str, Any]:
        """`{"total", "groups"}`. Raises BadRequest for an unknown group or a query that takes too long; ProxyError 429
        if too many run at once, 503 if the database cannot be read.
        """
        return await self._ask(lambda give_up: self._store.usage(query, give_up))

    async def call(self, call_id: str, key_id: str | None) -> dict[str, Any] | None:
        """`Store.call`. Raises as `read` does."""
        return await self._ask(lambda give_up: self._store.call(call_id, key_id, give_up))

    async def details(self, call_id: str) -> CallDetails:
        """`Store.details`. Raises as `read` does."""
        return await self._ask(lambda give_up: self._store.details(call_id, give_up))

    async def log(self, query: LogQuery) -> list[dict[str, Any]]:
        """`Store.log`. Raises as `read` does."""
        return await self._ask(lambda give_up: self._store.log(query, give_up))

    async def latest(self, count: int) -> list[PastCall]:
        """`Store.latest`. Raises as `read` does."""
        return await self._ask(lambda give_up: self._store.latest(count, give_up))

    async def spending(self) -> dict[tuple[str, int], tuple[int, int]]:
        """`Store.spending`. Raises as `read` does."""
        return await self._ask(self._store.spending)

    async def ensemble_calls(self, query: EnsembleQuery, then: Callable[[list[EnsembleCall]], T]) -> T:
        """Applies `then` to `Store.ensemble_calls`, on the thread that read them. Raises as `read` does."""
        return await self._ask(lambda give_up: then(self._store.ensemble_calls(query, give_up)))

    async def _ask(self, query: Callable[[Callable[[], bool]], T]) -> T:
        if self._asked >= MAX_ASKED:
            raise ProxyError(
                "Too many usage queries are running. Try again in a few seconds.",
                status=429,
                code="rate_limit_exceeded",
                headers={"retry-after": "5"},
            )
        self._asked += 1
        try:
            reading = asyncio.get_running_loop().run_in_executor(self._threads, self._read, query)
        except RuntimeError as error:  # the server is stopping
            self._asked -= 1
            raise _unreadable() from error
        reading.add_done_callback(self._note_done)  # even if no caller waits for it any more
        try:
            return await asyncio.shield(reading)
        except TooSlow as error:
            raise BadRequest(
                f"The query took longer than {self._query_s:g} s. Ask for a shorter time (since, until).",
                param="since",
                code="query_too_slow",
            ) from error
        except StoreError as error:
            raise _unreadable() from error

    def close(self) -> None:
        """Ends running queries within milliseconds. Safe to call twice."""
        self._is_closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _read(self, query: Callable[[Callable[[], bool]], T]) -> T:
        until = time.monotonic() + self._query_s
        return query(lambda: self._is_closed or time.monotonic() > until)

    def _note_done(self, reading: asyncio.Future[Any]) -> None:
        self._asked -= 1
        if not reading.cancelled():
            reading.exception()  # retrieved, in case no caller waits any more


def _unreadable() -> ProxyError:
    message = "The usage database cannot be read."
    return ProxyError(message, status=503, code="storage_unavailable", headers={"retry-after": "5"})
