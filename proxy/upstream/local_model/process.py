"""Performs I/O: one child process with a line in, a line out, and an end that can be awaited, on any event loop.

A thread watches it instead of the loop's own subprocess transport: that of uvloop leaves handles open where a start is
cancelled or the loop ends soon after the child (uvloop 0.23).
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

# The child gets these variables only: it has no business with the providers' keys.
_ENVIRONMENT = ("HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH", "SYSTEMROOT", "TMPDIR")


class Child:
    """Starts with `line` on its standard input, which stays open: the child ends itself when this process has gone.

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
        # A daemon: where nobody ends the child, this thread does not keep the process, and its end ends the child.
        threading.Thread(target=self._watch, name="local-model-child", daemon=True).start()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it is dead already, and the thread says so
            self._process.stdin.write(line)  # smaller than a pipe's buffer: does not block

    async def end(self) -> None:
        """Kills and reaps: the child keeps nothing that it could lose. The kill comes before the first await."""
        self._process.kill()
        await self.dead.wait()

    def _watch(self) -> None:
        # The end of the block closes the child's standard input, and that ends the child: so it comes after the wait.
        with self._process as process:
            assert process.stdout is not None
            self._tell(self._reported, process.stdout.readline())
            process.wait()
        self._tell(self.dead.set)

    def _tell(self, listener: Callable[..., None], *news: bytes) -> None:
        with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            self._loop.call_soon_threadsafe(listener, *news)

    def _reported(self, line: bytes) -> None:
        if not self.report.cancelled():
            self.report.set_result(line)
