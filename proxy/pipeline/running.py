"""Orchestrates: a call in its own task, whose output an owner reads.

The owner is the client's connection. The task is cancelled when the client leaves, the deadline passes or the server
stops, and with it whatever it waits for: a place, a connection, an answer, a back-off. The task itself records how the
call ended, so nothing has to wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from proxy.pipeline.call import Call
from proxy.pipeline.format import Format, StreamWriter
from proxy.pipeline.output import Output
from proxy.schema.errors import ProxyError, UpstreamTimeout
from proxy.schema.records import Outcome


class ClientLeft(Exception):
    """The client closed its connection before its answer was complete."""


class CallOutput(Protocol):
    """What a call needs of its output: an `Output`, or the `Recording` of a shared call."""

    @property
    def is_discarded(self) -> bool: ...
    def write(self, frames: bytes) -> asyncio.Future[None] | None: ...
    def end(self, last: bytes = b"", error: BaseException | None = None) -> None: ...
    def discard(self, error: BaseException) -> None: ...


class RunningCall:
    """A running call. `output` gets the body of a whole answer in one piece, or the frames from `writer`.

    `sink`: gets them instead if several clients share the call.
    """

    def __init__(self, call: Call, format: Format, sink: CallOutput | None = None) -> None:
        self.call = call
        self.format = format
        self._writer: StreamWriter | None = None
        self.output = Output()
        self.sink = sink or self.output
        self._task: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def writer(self) -> StreamWriter:
        """The writer of a streamed call's frames."""
        if self._writer is None:
            self._writer = self.format.writer(self.call)
        return self._writer

    def start(self, work: Coroutine[Any, Any, None], deadline_s: float, on_end: Callable[[RunningCall], None]) -> None:
        """Runs `work` for at most `deadline_s`, then calls `on_end`."""
        self.begin(work, on_end)
        self._deadline = asyncio.get_running_loop().call_later(deadline_s, self.expire)

    def begin(self, work: Coroutine[Any, Any, None], on_end: Callable[[RunningCall], None]) -> asyncio.Task[None]:
        """The same for a caller that calls `expire` itself at the deadline. Returns the task."""
        task = self._task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(lambda _: self._ended(on_end))
        return task

    def expire(self) -> None:
        """The deadline has passed."""
        self._cancel(Outcome.TIMEOUT_TOTAL)

    def runs(self, task: asyncio.Future[None]) -> bool:
        return self._task is task

    def leave(self) -> None:
        """The client is gone. Drops unread output and cancels the upstream."""
        if self._cancel(Outcome.CLIENT_CLOSED):
            self.sink.discard(ClientLeft())

    def stop(self) -> None:
        """Ends the call because the server is stopping."""
        self._cancel(Outcome.CANCELLED)

    async def ended(self) -> None:
        """Returns when the call has ended and the ledger has its row."""
        if self._task is not None and not self._task.done():
            await asyncio.wait({self._task})

    def _cancel(self, why: Outcome) -> bool:
        """True if the task was still running. Only the first reason counts.

        A call that is being settled has its answer, and the ledger bounds that wait. It is not cancelled as long as its
        client is connected.
        """
        if self._task is None or self._task.done():
            return False
        if self.call.settled is not None and why is not Outcome.CLIENT_CLOSED:
            return False
        if self.call.cancelled_by is None:
            self.call.cancelled_by = why
            # Not before its first step: a task cancelled before it starts could not record its end.
            asyncio.get_running_loop().call_soon(self._task.cancel)
        return True

    def _ended(self, on_end: Callable[[RunningCall], None]) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        on_end(self)


def stopping() -> ProxyError:
    """503: the server is stopping, and this call did not end in time."""
    return ProxyError("The server is stopping. Try again.", status=503, code="overloaded", headers={"retry-after": "1"})


def deadline_passed(deadline_s: float, whose: str = "router.deadline_s") -> UpstreamTimeout:
    """504: the call and all its attempts took too long. `whose`: what set the deadline."""
    error = UpstreamTimeout(
        f"No answer within {deadline_s:g} s, the deadline for a call with all its attempts ({whose}).",
        Outcome.TIMEOUT_TOTAL,
    )
    error.headers["x-should-retry"] = "false"
    return error
