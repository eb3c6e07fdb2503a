"""Large bodies are processed in threads, small ones on the event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from proxy.pipeline.off_loop import LARGE_BYTES, OffLoop


@pytest.mark.parametrize(("size", "is_beside"), [(1, False), (LARGE_BYTES, False), (LARGE_BYTES + 1, True)])
async def test_where_work_is_done_depends_on_the_size(size: int, is_beside: bool) -> None:
    """A thread costs more than a small body does."""
    here = threading.get_ident()
    assert (await OffLoop().run(size, threading.get_ident) != here) is is_beside


async def test_the_loop_turns_while_a_large_body_is_worked_on() -> None:
    """And what the work raises reaches its caller."""
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(5)
        raise ValueError("no")

    working = asyncio.ensure_future(OffLoop().run(LARGE_BYTES + 1, work))
    assert await asyncio.to_thread(begun.wait, 5)
    assert not working.done()
    go_on.set()
    with pytest.raises(ValueError, match="no"):
        await working


async def test_a_caller_that_is_cancelled_does_not_wait() -> None:
    """What has begun goes on by itself."""
    go_on = threading.Event()
    working = asyncio.ensure_future(OffLoop().run(LARGE_BYTES + 1, lambda: go_on.wait(5)))
    await asyncio.sleep(0)
    working.cancel()
    await asyncio.wait({working})
    assert working.cancelled()
    go_on.set()
