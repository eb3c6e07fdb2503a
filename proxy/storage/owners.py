"""Performs I/O: detects dead owners of open calls, by OS locks and leases.

Every process holds `flock` on its own file, which its rows name. A free lock means a dead owner, even after kill -9,
and without process ids, which are reused. Lock files are next to the database, on the same machine.

A process that opens the database under another name may not see the lock file, and it may be deleted. So each owner
also renews a lease in the database: an owner without a lock file is dead once its lease expires.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LEASE_S = 90.0  # three times the interval of sweeps, at which it is renewed
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
        self._note = b""

    def enter(self) -> str:
        """Takes our own lock and returns its id. Raises OSError."""
        if self._fd < 0:
            self.id = f"{os.getpid()}-{secrets.token_hex(6)}"
            self._own_path = str(self._path(self.id))  # checked at every commit
            self._fd = self._locked_file()
        return self.id

    def hold(self) -> None:
        """Recreates our lock file if it is gone. Call it before writing rows. Raises OSError."""
        if self._fd >= 0 and not is_same_file(self._fd, self._own_path):
            lost, self._fd = self._fd, self._locked_file()
            os.close(lost)

    def note(self, text: bytes) -> None:
        """Records in our lock file which files we use (`connections`). Raises OSError."""
        self._note = text
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, text, 0)

    def leave(self, has_lease: bool = False) -> None:
        """Releases the lock. Calls that are still open become `unknown` at the next sweep of any process.

        `has_lease`: the lease could not be ended. Then the lock file stays, and its free lock shows that we are dead.
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
        """All owners with a lock file, dead or alive, except us."""
        return {path.name.removesuffix(_SUFFIX) for path in self.lock_paths()} - {self.id}

    def lock_paths(self) -> list[Path]:
        return list(self.directory.glob("*" + _SUFFIX))

    @contextmanager
    def dead(self, owner: str, renewed_ns: int | None, now_ns: int) -> Iterator[bool]:
        """True, during the block, if the owner is dead. Its lock file is then removed, unless the block raises.

        `renewed_ns`: its lease; None without one.
        """
        path = self._path(owner)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            yield renewed_ns is None or now_ns - renewed_ns > LEASE_S * 1e9
            return
        try:
            # A living owner whose file was removed holds a new one: the lock of the old one is no evidence.
            is_dead = take_lock(fd) and is_same_file(fd, path)
            yield is_dead
            if is_dead:
                # Unlinked while locked, so that no other process can take it before the close.
                with suppress(FileNotFoundError):
                    path.unlink()
        finally:
            os.close(fd)

    def _locked_file(self) -> int:
        """Our lock file, locked before it gets the name that other processes look for."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        unnamed = self.directory / f".{self.id}"
        fd = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            if not take_lock(fd):
                raise OSError(f"{unnamed} is locked by another process")
            os.pwrite(fd, self._note, 0)
            os.rename(unnamed, self._path(self.id))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _path(self, owner: str) -> Path:
        return self.directory / (owner + _SUFFIX)


def take_lock(fd: int) -> bool:
    """False if another process holds the lock. Ours ends with the descriptor or the process."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_same_file(fd: int, path: str | Path) -> bool:
    """False if the path no longer leads to the descriptor's file."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
