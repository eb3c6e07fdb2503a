"""Orchestrates: hot swap of the running configuration: the current one, and earlier ones until their last call ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

from msgspec import Struct

T = TypeVar("T")


class ConfigState(Struct):
    """The state shown by `/health` and metrics; mutable. `config_error`: why the files differ from the running config.

    `config_loaded_at`: Unix seconds. `reloads` and `refused` count swaps and rejected files since startup.
    """

    config_version: str
    config_loaded_at: float
    config_error: str | None = None
    reloads: int = 0
    refused: int = 0


class Reloaded(Struct, frozen=True):
    """The result of a reload. `version` is running; `error`: why the files were rejected; `at_restart`: changes that
    need a restart.
    """

    version: str
    changed: bool
    error: str | None = None
    at_restart: list[str] = []


class _Entry(AbstractContextManager[T]):
    """A value and the number of its users, each inside a `with` block: every call has one, so it is no generator."""

    def __init__(self, value: T, close: Callable[[], Awaitable[None]], on_left: Callable[[_Entry[T]], None]) -> None:
        self.value = value
        self.close = close
        self.users = 0
        self._on_left = on_left

    def __enter__(self) -> T:
        self.users += 1
        return self.value

    def __exit__(self, *_: object) -> None:
        self.users -= 1
        if not self.users:
            self._on_left(self)


class Swap(Generic[T]):
    """A value that is replaced as a whole. An earlier value is closed when its last user leaves."""

    def __init__(self) -> None:
        self._latest: _Entry[T] | None = None
        self._open: list[_Entry[T]] = []
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def current(self) -> T:
        """The current value. Raises RuntimeError before the first `put` and after `close`."""
        return self._current().value

    @property
    def open(self) -> list[T]:
        """The current value, and earlier values still in use."""
        return [entry.value for entry in self._open]

    def using(self) -> AbstractContextManager[T]:
        """The current value for a `with` block, at whose end it is closed if it was replaced in the meantime.

        Raises RuntimeError as `current` does.
        """
        return self._current()

    def put(self, value: T, close: Callable[[], Awaitable[None]]) -> None:
        """Makes `value` current. `close` is called once, when `value` has been replaced and has no users."""
        before, self._latest = self._latest, _Entry(value, close, self._close_if_unused)
        self._open.append(self._latest)
        if before is not None:
            self._close_if_unused(before)

    async def close(self) -> None:
        """Closes all values, newest first, even those in use."""
        self._latest = None
        await asyncio.gather(*self._closing)
        while self._open:
            await self._open.pop().close()

    def _current(self) -> _Entry[T]:
        if self._latest is None:
            raise RuntimeError("the application is not running")
        return self._latest

    def _close_if_unused(self, entry: _Entry[T]) -> None:
        if entry is self._latest or entry.users or entry not in self._open:
            return
        self._open.remove(entry)
        task = asyncio.ensure_future(entry.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
