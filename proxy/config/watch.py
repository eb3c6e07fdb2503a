"""Performs I/O: tells when one of a few files has changed, in whatever way.

The directories are watched, not the files: editors and deployments put another file, or another link, in the place of
the first. Only where the database is written all the time the files are, since there each write would cost 5 µs. And
the files are looked at every `POLL_S` all the same, for what no system reports: a network or container mount, a
directory that was itself replaced, a limit of watches that is reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from pathlib import Path

from watchfiles import awatch

POLL_S = 1.0
QUIET_S = 0.1  # one save is often several writes
_MAX_WAITS = 20  # for a writer that never rests
_STEP_MS, _GROUP_MS = 100, 500  # what else happens in a directory must not wake us all the time

FileState = tuple[int, ...] | None


def file_states(paths: Sequence[Path]) -> list[FileState]:
    """What tells one content of each file from the next, links followed; None where there is none."""
    return [_state(path) for path in paths]


def _state(path: Path) -> FileState:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


async def changes(
    paths: Sequence[Path], busy: Path | None = None, *, poll_s: float = POLL_S, quiet_s: float = QUIET_S
) -> AsyncGenerator[None, None]:
    """Comes at once, so that nothing is missed that happened before, then after each change, once the writing rests.

    `busy`: the directory of the database.
    """
    while True:
        seen = await _at_rest(paths, quiet_s)
        yield
        wake = asyncio.Event()
        waking = asyncio.create_task(_wake(await asyncio.to_thread(_places, paths, busy), poll_s, wake))
        try:
            await asyncio.sleep(0)  # from here on it is watched: nothing falls between two looks
            while await asyncio.to_thread(file_states, paths) == seen:
                await wake.wait()
                wake.clear()
        finally:
            waking.cancel()
            await asyncio.wait([waking])


async def _at_rest(paths: Sequence[Path], quiet_s: float) -> list[FileState]:
    """The files' states when nobody has written for `quiet_s`, or does not stop to write."""
    now = await asyncio.to_thread(file_states, paths)
    for _ in range(_MAX_WAITS):
        await asyncio.sleep(quiet_s)
        before, now = now, await asyncio.to_thread(file_states, paths)
        if before == now:
            break
    return now


async def _wake(places: set[Path], poll_s: float, wake: asyncio.Event) -> None:
    """Sets `wake` when anything happens at these places, and every `poll_s`."""
    events = awatch(
        *places,
        watch_filter=None,
        debounce=_GROUP_MS,
        step=_STEP_MS,
        rust_timeout=int(poll_s * 1000),
        yield_on_timeout=True,
        recursive=False,
    )
    with suppress(OSError, RuntimeError):  # a place is gone again, or the system has no watches left
        async for _ in events:
            wake.set()
    while True:
        await asyncio.sleep(poll_s)
        wake.set()


def _places(paths: Sequence[Path], busy: Path | None) -> set[Path]:
    """What to watch: where the files stand, and where the links lead to, as far as that exists."""
    files = {path.absolute() for path in paths}
    with suppress(OSError, RuntimeError):  # links in a circle
        files |= {path.resolve() for path in paths}
        busy = busy and busy.resolve()
    places = {file if file.parent.resolve() == busy else file.parent for file in files}
    return {place for place in places if place.exists()}
