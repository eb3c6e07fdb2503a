"""Work in a thread that may hang: one piece at a time, for a bounded time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from proxy.schema.daemon_thread import DaemonThread


async def test_results_and_failures_reach_the_caller() -> None:
    """The work runs in another thread, under its name."""
    thread = DaemonThread("files")
    assert await thread.run(lambda: threading.current_thread().name) == "files"
    assert await thread.run(sum, [1, 2]) == 3
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0)


async def test_work_that_hangs_is_left_behind() -> None:
    """The next piece waits for its turn, for no longer than the limit; when the first returns, all is as before."""
    thread, may_end = DaemonThread("files", 0.1), threading.Event()
    begun: list[int] = []
    with pytest.raises(TimeoutError):
        await thread.run(may_end.wait, 60)
    with pytest.raises(TimeoutError):
        await thread.run(begun.append, 1)
    assert begun == []
    may_end.set()
    async with asyncio.timeout(10):
        while not begun:
            with suppress(TimeoutError):
                await thread.run(begun.append, 2)
    assert begun == [2]


async def test_a_caller_that_is_cancelled_does_not_wait() -> None:
    """Its work goes on, and the next piece follows it."""
    thread, may_end, begun = DaemonThread("files"), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        may_end.wait(60)

    working = asyncio.create_task(thread.run(work))
    assert await asyncio.to_thread(begun.wait, 10)
    working.cancel()
    await asyncio.wait({working})
    assert working.cancelled()
    following = asyncio.create_task(thread.run(lambda: 1))
    may_end.set()
    assert await following == 1


def test_the_process_ends_without_it() -> None:
    """Threads of an executor would be waited for."""
    code = (
        "import asyncio, time\n"
        "from proxy.schema.daemon_thread import DaemonThread\n"
        "async def main():\n"
        "    try: await DaemonThread('x', 0.1).run(time.sleep, 600)\n"
        "    except TimeoutError: print('left behind')\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("left behind\n", "")
