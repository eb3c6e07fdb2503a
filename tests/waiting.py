"""Polls what cannot be awaited, for as long as anybody would wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

PATIENCE_S = 30


async def eventually(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Waits for something that tells nobody when it changes. Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.005)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Returns once it is true. Raises TimeoutError after PATIENCE_S."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)
