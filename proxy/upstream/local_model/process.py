"""Performs I/O: one child process with one line of input, one line of output, and an awaitable end, on any event loop.

A thread watches it instead of the loop's own subprocess transport: uvloop's leaves handles open if a start is
cancelled or the loop ends soon after the child (uvloop 0.23).
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

# The child gets only these variables: it must not see the providers' keys.
_ENVIRONMENT = ("HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH", "SYSTEMROOT", "TMPDIR")


class Child:
    """Starts with `line` on its standard input, which stays open: the child ends itself when this process is gone.

    The pipe's end is not inherited by any other child. A session of its own keeps a terminal's signals away. `report`
    is the child's first line of output (empty: it died before), `dead` is set once it has been reaped. Raises OSError.
    """

    def __init__(self, command: Sequence[str], line: bytes) -> None:
        self._process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._loop = asyncio.get_running_loop()
        self.report: asyncio.Future[bytes] = self._loop.create_future()
        self.dead = asyncio.Event()
        # A daemon: if the child is never ended, this thread does not hold up the process, and its end ends the child.
        threading.Thread(target=self._watch, name="local-model-child", daemon=True).start()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it is already dead, and the thread reports it
            self._process.stdin.write(line)  # smaller than a pipe's buffer: does not block

    async def end(self) -> None:
        """Kills and reaps the child, which has no data to lose. The kill comes before the first await."""
        self._process.kill()
        await self.dead.wait()

    def _watch(self) -> None:
        # Leaving the block closes the child's standard input, which ends the child: so that comes after the wait.
        with self._process as process:
            assert process.stdout is not None
            self._tell(self._reported, process.stdout.readline())
            process.wait()
        self._tell(self.dead.set)

    def _tell(self, listener: Callable[..., None], *news: bytes) -> None:
        with suppress(RuntimeError):  # the loop is closed: no waiter is left
            self._loop.call_soon_threadsafe(listener, *news)

    def _reported(self, line: bytes) -> None:
        if not self.report.cancelled():
            self.report.set_result(line)
