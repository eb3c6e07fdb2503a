"""Performs I/O: reports when one of a few files has changed, by any kind of change.

It watches the directories, not the files, because editors and deployments replace files and links. The exception is the
directory of the database: every write there would cost 5 µs, so it watches the files themselves. In addition it polls
the files every `POLL_S`, for changes that the system does not report: on a network or container mount, when the
directory itself is replaced, or when the watch limit is reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from pathlib import Path

from watchfiles import awatch

from proxy.schema.daemon_thread import DaemonThread

POLL_S = 1.0
QUIET_S = 0.1  # one save is often several writes
_MAX_WAITS = 20  # in case the writer never pauses
_STEP_MS, _GROUP_MS = 100, 500  # other activity in the directory must not wake us all the time

FileState = tuple[int, ...] | None


def file_states(paths: Sequence[Path]) -> list[FileState]:
    """A state for each file that changes with its content; None for a file that does not exist. Follows links."""
    return [_state(path) for path in paths]


def _state(path: Path) -> FileState:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


async def changes(
    paths: Sequence[Path],
    thread: DaemonThread,
    busy: Path | None = None,
    *,
    poll_s: float = POLL_S,
    quiet_s: float = QUIET_S,
) -> AsyncGenerator[None, None]:
    """Yields once at the start, so that no earlier change is missed, then after each change, once the file is stable.

    `thread` checks the files. `busy` is the directory of the database. Raises TimeoutError if the files cannot be
    checked in time.
    """
    while True:
        seen = await _at_rest(paths, thread, quiet_s)
        yield
        wake = asyncio.Event()
        waking = asyncio.create_task(_wake(await thread.run(_places, paths, busy), poll_s, wake))
        try:
            await asyncio.sleep(0)  # the watch starts here, so that no change falls between two checks
            while await thread.run(file_states, paths) == seen:
                await wake.wait()
                wake.clear()
        finally:
            waking.cancel()
            await asyncio.wait([waking])


async def _at_rest(paths: Sequence[Path], thread: DaemonThread, quiet_s: float) -> list[FileState]:
    """The files' states once nothing has been written for `quiet_s`, or after `_MAX_WAITS` tries."""
    now = await thread.run(file_states, paths)
    for _ in range(_MAX_WAITS):
        await asyncio.sleep(quiet_s)
        before, now = now, await thread.run(file_states, paths)
        if before == now:
            break
    return now


async def _wake(places: set[Path], poll_s: float, wake: asyncio.Event) -> None:
    """Sets `wake` when anything happens in these places, and every `poll_s`."""
    events = awatch(
        *places,
        watch_filter=None,
        debounce=_GROUP_MS,
        step=_STEP_MS,
        rust_timeout=int(poll_s * 1000),
        yield_on_timeout=True,
        recursive=False,
    )
    with suppress(OSError, RuntimeError):  # a place has disappeared, or the system has no watches left
        async for _ in events:
            wake.set()
    while True:
        await asyncio.sleep(poll_s)
        wake.set()


def _places(paths: Sequence[Path], busy: Path | None) -> set[Path]:
    """The places to watch: the directories of the files and of their link targets, if they exist."""
    files = {path.absolute() for path in paths}
    with suppress(OSError, RuntimeError):  # circular links
        files |= {path.resolve() for path in paths}
        busy = busy and busy.resolve()
    places = {file if file.parent.resolve() == busy else file.parent for file in files}
    return {place for place in places if place.exists()}
