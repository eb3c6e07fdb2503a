"""Large bodies are processed in threads, small ones on the event loop."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import pytest

from proxy.pipeline.off_loop import LARGE_BYTES, OffLoop, take_apart
from tests.waiting import eventually


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


async def test_threads_take_turns_more_often_while_one_works_here() -> None:
    """A stream beside it would wait 5 ms for each of its events. Afterwards all is as before."""
    usual = 0.005
    await eventually(lambda: sys.getswitchinterval() == usual)  # the thread of another test may be at work
    beside = OffLoop()
    assert await beside.run(LARGE_BYTES + 1, sys.getswitchinterval) < 0.001 < usual
    both = threading.Barrier(2)
    await asyncio.gather(*(beside.run(LARGE_BYTES + 1, both.wait) for _ in range(2)))
    with pytest.raises(ZeroDivisionError):
        await beside.run(LARGE_BYTES + 1, lambda: 1 // 0)
    assert sys.getswitchinterval() == usual


class Counted:
    """Counts how many of its kind are left."""

    left = 0

    def __init__(self) -> None:
        Counted.left += 1

    def __del__(self) -> None:
        Counted.left -= 1


@pytest.mark.parametrize("count", [0, 1, 256, 257, 10_000])
def test_a_value_that_is_taken_apart_holds_nothing(count: int) -> None:
    """At any depth, however long its lists are."""
    value: dict[str, Any] = {
        "a": [{"b": [Counted(), {"c": Counted()}]} for _ in range(count)],
        "d": {"e": [[Counted()] * count] * 3, "f": Counted()},
        "g": "text",
    }
    take_apart(value)
    assert (value, Counted.left) == ({}, 0)
