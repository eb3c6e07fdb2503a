"""Polls what cannot be awaited, for as long as anybody would wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

PATIENCE_S = 10


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Returns once it is true. Raises TimeoutError after PATIENCE_S."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)
