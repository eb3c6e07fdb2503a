"""Performs I/O: which process owns which open calls, told by OS locks and leases.

Every process holds `flock` on a file of its own, named in its rows. A free lock means a dead owner, also after kill -9
and without looking at process ids, which are reused. Lock files lie beside the database, on the same machine.

A process that reaches the database by another name may not see the lock file, and somebody may delete it. So each owner
also renews a lease in the database: without a lock file, it is dead once its lease ran out.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LEASE_S = 90.0  # three times as long as the time between two sweeps, at which it is renewed
_SUFFIX = ".lock"
_RENEW = """
    INSERT INTO owners (id, renewed_ns) VALUES (?, ?)
    ON CONFLICT (id) DO UPDATE SET renewed_ns = excluded.renewed_ns
"""


class Owners:
    """The lock files of one database, `<database>-owners/<id>.lock`, and its leases."""

    def __init__(self, database: Path) -> None:
        self.directory = database.with_name(database.name + "-owners")
        self.id = ""
        self._fd = -1

    def enter(self) -> str:
        """Takes a lock of our own and returns its id. Raises OSError."""
        if self._fd < 0:
            self.id = f"{os.getpid()}-{secrets.token_hex(6)}"
            self._fd = self._locked_file()
        return self.id

    def hold(self) -> None:
        """Makes our lock file anew if it is gone; to be called before rows are written. Raises OSError."""
        if self._fd >= 0 and not is_same_file(self._fd, self._path(self.id)):
            lost, self._fd = self._fd, self._locked_file()
            os.close(lost)

    def leave(self, has_lease: bool = False) -> None:
        """Gives the lock up. Calls that are still open become `unknown` at the next sweep of any process.

        `has_lease`: it could not be ended, so the lock file stays: a free lock tells what a lease would not.
        """
        if self._fd >= 0:
            if not has_lease:
                self._path(self.id).unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1

    def renew(self, db: sqlite3.Connection, now_ns: int) -> None:
        """Extends our lease. Raises sqlite3.Error."""
        db.execute(_RENEW, (self.id, now_ns))

    def leases(self, db: sqlite3.Connection) -> dict[str, int]:
        """When each owner's lease was renewed. Raises sqlite3.Error."""
        return dict(db.execute("SELECT id, renewed_ns FROM owners").fetchall())

    def end_lease(self, db: sqlite3.Connection, owner: str) -> None:
        db.execute("DELETE FROM owners WHERE id = ?", (owner,))

    def lock_files(self) -> set[str]:
        """Owners that have a lock file, dead or alive, without our own."""
        return {path.name.removesuffix(_SUFFIX) for path in self.directory.glob("*" + _SUFFIX)} - {self.id}

    @contextmanager
    def dead(self, owner: str, renewed_ns: int | None, now_ns: int) -> Iterator[bool]:
        """True for the length of the block if the owner is dead; then its lock file goes, unless the block raised.

        `renewed_ns`: its lease, None where it has none.
        """
        path = self._path(owner)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            yield renewed_ns is None or now_ns - renewed_ns > LEASE_S * 1e9
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

    def _locked_file(self) -> int:
        """Our lock file, which is locked before it has a name that others look for."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        unnamed = self.directory / f".{self.id}"
        fd = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            if not take_lock(fd):
                raise OSError(f"{unnamed} is locked by another process")
            os.rename(unnamed, self._path(self.id))
        except BaseException:
            os.close(fd)
            raise
        return fd

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
