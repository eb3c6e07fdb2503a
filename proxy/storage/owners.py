"""Performs I/O: which process owns which open calls, told by OS locks that vanish with their process.

Every process holds `flock` on a file of its own, named in its rows. A free lock means a dead owner, also after kill -9
and without looking at process ids, which are reused. Lock files live beside the database, on the same machine.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SUFFIX = ".lock"


class Owners:
    """The lock files of one database: `<database>-owners/<id>.lock`."""

    def __init__(self, database: Path) -> None:
        self.directory = database.with_name(database.name + "-owners")
        self.id = ""
        self._fd = -1

    def enter(self) -> str:
        """Takes a lock of our own and returns its id. Raises OSError."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        while self._fd < 0:
            owner = f"{os.getpid()}-{secrets.token_hex(6)}"
            path = self._path(owner)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            # A sweeper may have locked and removed the file between its creation and our lock: then take another.
            if take_lock(fd) and is_same_file(fd, path):
                self.id, self._fd = owner, fd
            else:
                os.close(fd)
        return self.id

    def leave(self) -> None:
        """Gives the lock up. Calls that are still open become `unknown` at the next sweep of any process."""
        if self._fd >= 0:
            self._path(self.id).unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1

    def lock_files(self) -> set[str]:
        """Owners that have a lock file, dead or alive, without our own."""
        return {path.name.removesuffix(_SUFFIX) for path in self.directory.glob("*" + _SUFFIX)} - {self.id}

    @contextmanager
    def dead(self, owner: str) -> Iterator[bool]:
        """True for the length of the block if the owner is dead; then its lock file goes, unless the block raised."""
        path = self._path(owner)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            # Files are made before the first row and removed after the last: a missing one is a dead owner's.
            yield True
            return
        try:
            is_dead = take_lock(fd)
            yield is_dead
            if is_dead:
                # Still locked, so that nobody can take the file over between the unlink and the close.
                with suppress(FileNotFoundError):
                    path.unlink()
        finally:
            os.close(fd)

    def _path(self, owner: str) -> Path:
        return self.directory / (owner + _SUFFIX)


def take_lock(fd: int) -> bool:
    """False where another process holds the file's lock; ours ends with the descriptor, or with this process."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_same_file(fd: int, path: Path) -> bool:
    """False where the file of a descriptor no longer stands at its path."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
