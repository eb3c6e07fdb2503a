"""Orchestrates: a call in a task of its own, with an owner who reads what it writes.

The owner is the client's connection. When it leaves, when the deadline passes or when the server stops, the task is
cancelled, and with it everything that it waits for: a place, a connection, an answer, a back-off. The task itself says
how the call ended; nobody has to wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from proxy.pipeline.call import Call
from proxy.pipeline.format import Format, StreamWriter
from proxy.pipeline.output import Output
from proxy.schema.errors import ProxyError, UpstreamTimeout
from proxy.schema.records import Outcome


class ClientLeft(Exception):
    """The client closed its connection before its answer was complete."""


class RunningCall:
    """One call as it runs. `output` has the body of a whole answer in one piece, or the frames that `writer` wrote."""

    def __init__(self, call: Call, format: Format) -> None:
        self.call = call
        self.format = format
        self._writer: StreamWriter | None = None
        self.output = Output()
        self._task: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def writer(self) -> StreamWriter:
        """What writes the frames, of a streamed call."""
        if self._writer is None:
            self._writer = self.format.writer(self.call)
        return self._writer

    def start(self, work: Coroutine[Any, Any, None], deadline_s: float, on_end: Callable[[RunningCall], None]) -> None:
        """Runs `work` for at most `deadline_s`; `on_end` is told when it has ended."""
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(deadline_s, self._cancel, Outcome.TIMEOUT_TOTAL)
        self._task = loop.create_task(work)
        self._task.add_done_callback(lambda _: self._ended(on_end))

    def leave(self) -> None:
        """The client is gone. What it did not read is dropped; the upstream is cancelled."""
        if self._cancel(Outcome.CLIENT_CLOSED):
            self.output.discard(ClientLeft())

    def stop(self) -> None:
        """The server stops."""
        self._cancel(Outcome.CANCELLED)

    async def ended(self) -> None:
        """Returns when the call has ended and its row was handed to the ledger."""
        if self._task is not None and not self._task.done():
            await asyncio.wait({self._task})

    def _cancel(self, why: Outcome) -> bool:
        """True where the task was still running. The first reason stands."""
        if self._task is None or self._task.done():
            return False
        if self.call.cancelled_by is None:
            self.call.cancelled_by = why
            # A task that is cancelled before its first step never runs, and would give nothing back.
            asyncio.get_running_loop().call_soon(self._task.cancel)
        return True

    def _ended(self, on_end: Callable[[RunningCall], None]) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        on_end(self)


def stopping() -> ProxyError:
    """503: the server stops, and this call did not end in time."""
    return ProxyError("The server is stopping. Try again.", status=503, code="overloaded", headers={"retry-after": "1"})


def deadline_passed(deadline_s: float) -> UpstreamTimeout:
    """504: the whole call took too long, over all its attempts."""
    error = UpstreamTimeout(
        f"No answer within {deadline_s:g} s, the deadline of a call over all its attempts (router.deadline_s).",
        Outcome.TIMEOUT_TOTAL,
    )
    error.headers["x-should-retry"] = "false"
    return error
