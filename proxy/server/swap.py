"""Orchestrates: what runs now, what ran before it for as long as somebody still uses it, and what a reload came to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from msgspec import Struct

T = TypeVar("T")


class ConfigState(Struct):
    """For `/health` and metrics, and changed in place. `config_error`: why the files are not what runs now.

    `config_loaded_at`: Unix seconds; `reloads` counts the swaps since the start, `refused` the files that were wrong.
    """

    config_version: str
    config_loaded_at: float
    config_error: str | None = None
    reloads: int = 0
    refused: int = 0


class Reloaded(Struct, frozen=True):
    """`version` runs now. `error`: why the files were refused; `at_restart`: what in them waits for the next start."""

    version: str
    changed: bool
    error: str | None = None
    at_restart: list[str] = []


class _Held(Generic[T]):
    """One value and its users."""

    def __init__(self, value: T, close: Callable[[], Awaitable[None]]) -> None:
        self.value = value
        self.close = close
        self.users = 0


class Swap(Generic[T]):
    """A value that is replaced as a whole. The one before is closed when its last user has left."""

    def __init__(self) -> None:
        self._now: _Held[T] | None = None
        self._open: list[_Held[T]] = []
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def current(self) -> T:
        """What runs now. Raises RuntimeError before the first `put` and after `close`."""
        return self._current().value

    @property
    def open(self) -> list[T]:
        """The current value, and the earlier ones that are still used."""
        return [held.value for held in self._open]

    @contextmanager
    def using(self) -> Iterator[T]:
        """What runs now, kept open until the block is left, whatever comes after it."""
        held = self._current()
        held.users += 1
        try:
            yield held.value
        finally:
            held.users -= 1
            self._close_if_unused(held)

    def put(self, value: T, close: Callable[[], Awaitable[None]]) -> None:
        """From now on `value` is current; `close` is called once, when it no longer is and nobody uses it."""
        before, self._now = self._now, _Held(value, close)
        self._open.append(self._now)
        if before is not None:
            self._close_if_unused(before)

    async def close(self) -> None:
        """Closes everything, the newest first, used or not."""
        self._now = None
        await asyncio.gather(*self._closing)
        while self._open:
            await self._open.pop().close()

    def _current(self) -> _Held[T]:
        if self._now is None:
            raise RuntimeError("the application is not running")
        return self._now

    def _close_if_unused(self, held: _Held[T]) -> None:
        if held is self._now or held.users or held not in self._open:
            return
        self._open.remove(held)
        task = asyncio.ensure_future(held.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
