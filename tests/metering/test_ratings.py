"""Ratings wait for the store on a thread of their own: a bounded number of them, for a bounded time."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from proxy.metering.ratings import MAX_WAITING, Ratings
from proxy.schema.ensembles import Rating, StoredRating
from proxy.schema.errors import ProxyError
from proxy.storage.base import StoreError
from proxy.storage.sqlite import SqliteStore
from tests.storage.test_sqlite import settled


class Gated(SqliteStore):
    """Ratings wait at a gate."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.gate = threading.Event()

    def rate(self, rating: Rating, key_id: str | None, now_ns: int) -> StoredRating | None:
        self.gate.wait(30)
        return super().rate(rating, key_id, now_ns)


@pytest.fixture
def store(tmp_path: Path) -> Gated:
    made = Gated(tmp_path / "x.db")
    made.open()
    made.write(settled("a"))
    return made


async def test_a_bounded_number_waits(store: Gated) -> None:
    """The next is refused at once; all that waited are stored."""
    ratings = Ratings(store, lambda: 5, wait_s=30)
    waiting = [asyncio.ensure_future(ratings.add(Rating("a", True), None)) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(ProxyError) as refused:
        await ratings.add(Rating("a", True), None)
    assert (refused.value.status, refused.value.code) == (429, "rate_limit_exceeded")
    store.gate.set()
    assert all(await asyncio.gather(*waiting))
    assert await ratings.add(Rating("b", True), None) is None
    ratings.close()


async def test_a_store_that_hangs_is_not_waited_for(store: Gated) -> None:
    """503. What has not begun is not stored later."""
    ratings = Ratings(store, lambda: 5, wait_s=0.05)
    results = await asyncio.gather(*(ratings.add(Rating("a", True), None) for _ in range(5)), return_exceptions=True)
    assert [each.status for each in results if isinstance(each, ProxyError)] == [503] * 5
    store.gate.set()
    ratings.close()
    ratings._thread.shutdown(wait=True)
    found = store.call("a", None)
    assert found is not None and len(found["feedback"]) <= 1


async def test_a_store_that_fails_is_told(store: Gated) -> None:
    """503, and so is a server that stops."""

    class Broken(Gated):
        def rate(self, rating: Rating, key_id: str | None, now_ns: int) -> StoredRating | None:
            raise StoreError("disk is full")

    broken = Ratings(Broken(store._path), lambda: 5)
    for _ in range(2):
        with pytest.raises(ProxyError) as refused:
            await broken.add(Rating("a", True), None)
        assert (refused.value.status, refused.value.code) == (503, "storage_unavailable")
        broken.close()
