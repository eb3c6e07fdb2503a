"""A task beside the calls that fails says so when it fails, not when the server stops."""

from __future__ import annotations

import asyncio

from structlog.testing import CapturingLogger
from structlog.typing import FilteringBoundLogger

from proxy.server.followers import following


async def test_a_task_that_fails_is_logged_at_once_and_the_others_go_on() -> None:
    """It is a bug: nothing else would tell that files are no longer watched, say."""
    log = CapturingLogger()
    turns = 0

    async def watch_files() -> None:
        raise RuntimeError("a bug")

    async def look_once() -> None:
        """There is nothing to follow."""

    async def go_on() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    logger: FilteringBoundLogger = log
    async with following([watch_files(), look_once(), go_on()], logger):
        for _ in range(5):
            await asyncio.sleep(0)
        (call,) = log.calls
        assert (call.method_name, call.args) == ("error", ("background_task_failed",))
        assert call.kwargs["task"].endswith("watch_files")
        assert str(call.kwargs["exc_info"]) == "a bug"
        before = turns
        await asyncio.sleep(0)
        assert turns > before
    ended = turns
    await asyncio.sleep(0)
    assert turns == ended
    assert len(log.calls) == 1
