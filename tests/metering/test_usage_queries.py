"""Usage is read a few queries at a time, for a bounded time, on threads that nobody else needs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from proxy.metering.usage_queries import AT_ONCE, MAX_ASKED, UsageQueries
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.queries import UsageQuery
from proxy.storage.base import Store, StoreError, TooSlow
from proxy.storage.sqlite import SqliteStore
from tests.slowness import takes
from tests.storage.samples import fill_calls

EVERYTHING = UsageQuery(group_by=("model", "provider", "day", "session"))


class Gated:
    """A store whose queries wait until they are let go, or are given up."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.running = self.most = 0
        self._lock = threading.Lock()

    def usage(self, query: UsageQuery, give_up: Callable[[], bool]) -> dict[str, Any]:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            while not self.gate.wait(0.001):
                if give_up():
                    raise TooSlow
            return {"total": {}, "groups": []}
        finally:
            with self._lock:
                self.running -= 1


async def refused(asking: Any) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        await asking
    return caught.value


async def test_a_query_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    """The caller is told to ask for less, and the thread is free again."""
    fill_calls(tmp_path / "x.db", 20_000)
    queries = UsageQueries(SqliteStore(tmp_path / "x.db"), query_s=0.0)
    error = await refused(queries.read(EVERYTHING))
    assert (type(error), error.code, error.param) == (BadRequest, "query_too_slow", "since")
    queries.close()
    queries = UsageQueries(SqliteStore(tmp_path / "x.db"))
    assert (await queries.read(EVERYTHING))["total"]["calls"] == 20_000
    queries.close()


async def test_too_many_queries_at_once_are_refused_at_once() -> None:
    """Two run, six wait, and everybody else may come back in a few seconds."""
    store = Gated()
    queries = UsageQueries(cast(Store, store))
    asked = [asyncio.create_task(queries.read(UsageQuery())) for _ in range(MAX_ASKED)]
    await asyncio.sleep(0)
    for _ in range(32):
        error = await refused(queries.read(UsageQuery()))
        assert (error.status, error.code, error.headers) == (429, "rate_limit_exceeded", {"retry-after": "5"})
    store.gate.set()
    assert len(await asyncio.gather(*asked)) == MAX_ASKED
    assert store.most <= AT_ONCE
    await queries.read(UsageQuery())
    queries.close()


async def test_a_query_whose_caller_left_takes_its_place_until_it_ends() -> None:
    """Else clients that ask and leave would queue up work without end."""
    store = Gated()
    queries = UsageQueries(cast(Store, store))
    asked = [asyncio.create_task(queries.read(UsageQuery())) for _ in range(MAX_ASKED)]
    await asyncio.sleep(0)
    for each in asked:
        each.cancel()
    await asyncio.wait(asked)
    assert (await refused(queries.read(UsageQuery()))).status == 429
    store.gate.set()
    async with asyncio.timeout(20):
        while True:
            try:
                await queries.read(UsageQuery())
                break
            except ProxyError:
                await asyncio.sleep(0.001)
    queries.close()


async def test_closing_ends_what_runs() -> None:
    """A server that stops waits for no query."""
    store = Gated()
    queries = UsageQueries(cast(Store, store), query_s=60)
    asked = [asyncio.create_task(queries.read(UsageQuery())) for _ in range(MAX_ASKED)]
    while not store.running:  # noqa: ASYNC110 - the queries are on threads
        await asyncio.sleep(0.001)
    with takes(0, 1):
        queries.close()
        await asyncio.wait(asked)
    assert store.running == 0


async def test_a_database_that_cannot_be_read_refuses_no_call() -> None:
    """The message is about reading: nothing was called, so nothing was refused for being unmetered."""

    class Broken:
        def usage(self, query: UsageQuery, give_up: Callable[[], bool]) -> dict[str, Any]:
            raise StoreError("database disk image is malformed")

    queries = UsageQueries(cast(Store, Broken()))
    error = await refused(queries.read(UsageQuery()))
    assert (error.status, error.code, error.message) == (
        503,
        "storage_unavailable",
        "The usage database cannot be read.",
    )
    queries.close()


async def test_queries_do_not_use_the_threads_of_others() -> None:
    """The default executor also looks up names and files; it stays free, and may be busy."""
    store = Gated()
    queries = UsageQueries(cast(Store, store))
    asked = [asyncio.create_task(queries.read(UsageQuery())) for _ in range(MAX_ASKED)]
    others = [asyncio.ensure_future(asyncio.to_thread(time.monotonic)) for _ in range(64)]
    _, late = await asyncio.wait(others, timeout=20)
    assert not late
    assert not any(each.done() for each in asked)
    store.gate.set()
    await asyncio.gather(*asked)
    queries.close()
