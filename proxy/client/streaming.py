"""Performs I/O: reads a stream of events in a task of its own.

That task ends with its reader: by `close`, when the reader is cancelled or dropped, or with the loop. A loop that ends
cancels its tasks in order, but it closes the inner ones of nested generators too early.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress

from proxy.client.sending import Received

_EVENTS = 16  # that may be queued for the reader
_Queue = asyncio.Queue[Received | Exception | None]


class EventStream:
    """The events of one answer. `events` opens them: at the first `next`."""

    def __init__(self, events: Callable[[], AsyncGenerator[Received, None]]) -> None:
        self._events = events
        self._queue: _Queue = asyncio.Queue(_EVENTS)
        self._task: asyncio.Task[None] | None = None
        self._has_ended = False

    async def next(self) -> Received | None:
        """The next event; None: there is none. Raises the error that ended the stream, once."""
        if self._has_ended:
            return None
        if self._task is None:
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(_read(self._events(), self._queue), name="multi-model-api-stream")
            weakref.finalize(self, _cancel, loop, self._task).atexit = False
        try:
            found = await self._queue.get()
        except BaseException:
            self._cancel()
            raise
        if found is None or isinstance(found, Exception):
            self._has_ended = True
        if isinstance(found, Exception):
            raise found
        return found

    async def close(self) -> None:
        """Returns once the call has ended."""
        self._cancel()
        if self._task is not None:
            await asyncio.wait([self._task])

    def _cancel(self) -> None:
        self._has_ended = True
        if self._task is not None:
            self._task.cancel()


async def _read(events: AsyncGenerator[Received, None], queue: _Queue) -> None:
    """Reads events into the queue. Holds no reference to the reader, which may be dropped."""
    end: Exception | None = None
    try:
        async with aclosing(events):
            async for event in events:
                await queue.put(event)
    except asyncio.CancelledError:
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(None)  # for a reader that waits while another task closes the stream
        raise
    except Exception as error:
        end = error
    await queue.put(end)


def _cancel(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    with suppress(RuntimeError):  # the loop is closed, and cancelled the task
        loop.call_soon_threadsafe(task.cancel)
