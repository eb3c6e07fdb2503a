"""Orchestrates: background tasks that run as long as the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from structlog.typing import FilteringBoundLogger


@asynccontextmanager
async def following(
    followers: Iterable[Coroutine[Any, Any, object]], log: FilteringBoundLogger
) -> AsyncGenerator[None, None]:
    """Runs the tasks until the end of the block. One that fails is logged at once, and the others continue."""
    tasks = [asyncio.create_task(follower, name=getattr(follower, "__qualname__", None)) for follower in followers]
    for task in tasks:
        task.add_done_callback(partial(_note_end, log))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _note_end(log: FilteringBoundLogger, task: asyncio.Task[object]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("background_task_failed", task=task.get_name(), exc_info=error)
