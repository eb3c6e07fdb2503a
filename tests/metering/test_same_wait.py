"""One timer for all: who is late is told, in order; who is done is not; nothing is kept for long."""

from __future__ import annotations

import asyncio
import gc
import weakref

from proxy.metering.same_wait import SameWait


def waiting(loop: asyncio.AbstractEventLoop, count: int) -> list[asyncio.Future[None]]:
    return [loop.create_future() for _ in range(count)]


async def test_only_those_that_are_not_done_are_told() -> None:
    loop = asyncio.get_running_loop()
    told: list[asyncio.Future[None]] = []

    def tell(future: asyncio.Future[None]) -> None:
        told.append(future)
        future.set_result(None)

    wait = SameWait(loop, 0.02, tell)
    futures = waiting(loop, 5)
    for future in futures:
        wait.watch(future)
    futures[0].set_result(None)
    futures[3].cancel()
    await asyncio.wait(futures)
    assert told == [futures[1], futures[2], futures[4]]
    late = loop.create_future()  # the timer starts again
    wait.watch(late)
    await asyncio.wait_for(late, 10)


async def test_what_is_done_is_let_go_by_the_next() -> None:
    """A call's future must not stay for as long as its deadline."""
    loop = asyncio.get_running_loop()
    wait = SameWait(loop, 1000, lambda future: future.set_result(None))
    future = loop.create_future()
    wait.watch(future)
    gone = weakref.ref(future)
    future.set_result(None)
    del future
    other = loop.create_future()
    wait.watch(other)
    gc.collect()
    assert gone() is None
    wait.close()


async def test_closed_it_keeps_nobody() -> None:
    """After a reload the old configuration must not live on until the last deadline."""

    class Owner:
        def __init__(self) -> None:
            self.wait = SameWait(asyncio.get_running_loop(), 1000, self.expire)

        def expire(self, future: asyncio.Future[None]) -> None:
            future.set_result(None)

    owner = Owner()
    owner.wait.watch(asyncio.get_running_loop().create_future())
    gone = weakref.ref(owner)
    owner.wait.close()
    del owner
    gc.collect()
    assert gone() is None
