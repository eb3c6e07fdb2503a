"""One timer for all the waits of an exchange."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from proxy.upstream.deadline import Deadline
from tests.slowness import takes


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def soon(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def check_time_out_and_go_on() -> None:
    loop = asyncio.get_running_loop()
    deadline = Deadline()
    assert await deadline.wait(soon(1), loop.time() + 10) == 1
    with takes(0.045, 0.5), pytest.raises(TimeoutError):
        await deadline.wait(forever(), loop.time() + 0.05)
    assert await deadline.wait(soon(2), loop.time() + 10) == 2
    with pytest.raises(TimeoutError):
        await deadline.wait(forever(), loop.time() - 1)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    deadline.close()
    await asyncio.sleep(0)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_wait_ends_at_its_time_and_the_next_one_starts_afresh(new_loop: object) -> None:
    """Sooner than the wait before, or later; a time that has passed ends it at once."""
    with asyncio.Runner(loop_factory=new_loop) as runner:  # type: ignore[arg-type]
        runner.run(check_time_out_and_go_on())


async def test_a_limit_that_moves_on_is_kept() -> None:
    """The timer was set for the first wait; it moves on its own when it goes off too early."""
    loop = asyncio.get_running_loop()
    deadline = Deadline()
    begun = loop.time()
    for _ in range(5):
        await deadline.wait(asyncio.sleep(0.15), loop.time() + 0.5)
    with pytest.raises(TimeoutError):
        await deadline.wait(forever(), loop.time() + 0.5)
    assert 1.24 < loop.time() - begun < 10


async def test_nothing_happens_to_a_task_that_does_not_wait() -> None:
    """The timer goes off between two waits: a client may hold its provider back for as long as it likes."""
    loop = asyncio.get_running_loop()
    deadline = Deadline()
    await deadline.wait(soon(1), loop.time() + 0.02)
    await asyncio.sleep(0.05)
    assert await deadline.wait(soon(2), loop.time() + 0.02) == 2
    deadline.close()


async def test_a_cancel_from_outside_is_no_time_out() -> None:
    """Also in the very moment in which the time is over."""
    loop = asyncio.get_running_loop()
    outcomes: list[str] = []

    async def work(by: float) -> None:
        deadline = Deadline()
        try:
            await deadline.wait(forever(), by)
        except TimeoutError:
            outcomes.append("timed out")
            raise
        except asyncio.CancelledError:
            outcomes.append("cancelled")
            raise

    task = asyncio.create_task(work(loop.time() + 10))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert outcomes == ["cancelled"]
    by = loop.time() + 0.02
    task = asyncio.create_task(work(by))
    await asyncio.sleep(0)
    loop.call_at(by, task.cancel)
    await asyncio.wait([task])
    assert outcomes[1:] == ["cancelled"]
    assert task.cancelled()


async def test_what_fails_in_its_own_way_when_it_is_cancelled_leaves_no_cancel_behind() -> None:
    """Its error stands, and the task can go on waiting."""
    loop = asyncio.get_running_loop()
    deadline = Deadline()

    async def stubborn() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            raise ConnectionError("broken") from None

    with pytest.raises(ConnectionError):
        await deadline.wait(stubborn(), loop.time() + 0.01)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0.01)
    deadline.close()


async def test_it_costs_one_timer_for_a_thousand_waits() -> None:
    """Every wait has the same limit or a later one."""
    loop = asyncio.get_running_loop()
    set_timers = 0

    class Counted(Deadline):
        def _arm(self) -> None:
            nonlocal set_timers
            set_timers += 1
            super()._arm()

    deadline = Counted()
    for number in range(1000):
        await deadline.wait(soon(1), loop.time() + 60 + number / 1000)
    deadline.close()
    assert set_timers == 1
