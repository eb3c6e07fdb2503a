"""Performs I/O: what becomes of the rows when the database file is removed or replaced while it is in use.

SQLite goes on writing to the file it opened, which nobody can open again. So its rows move to the file that stands at
the path now, or to a new one. Everything here is safe to repeat, and for several processes at once.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

Identity = tuple[int, int]
Files = tuple[Identity | None, ...]  # a database and its logs
_LOGS = ("-wal", "-shm")
_CHOSEN = {  # by table and key: the rows of calls that were opened since a time
    ("calls", "id"): "SELECT * FROM calls WHERE opened_ns >= ?",
    ("attempts", "call_id, seq"): (
        "SELECT * FROM attempts WHERE call_id IN (SELECT id FROM calls WHERE opened_ns >= ?)"
    ),
}
_ADD = """
    INSERT INTO {table} ({columns}) VALUES ({marks})
    ON CONFLICT ({key}) DO UPDATE SET {same} WHERE {table}.closed_ns IS NULL
"""
_MANY = 1_000


def identity(path: Path) -> Identity | None:
    """Which file stands at a path, whatever its name; None: none does. Raises OSError."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def file_and_logs(database: Path) -> Files:
    """Which files a connection has just opened."""
    return tuple(identity(_beside(database, suffix)) for suffix in ("", *_LOGS))


def keep_open(connection: sqlite3.Connection) -> None:
    """Never closes a connection whose file is gone: that deletes its log by name, which is the new file's by then."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """One process at a time changes what stands at the path. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def remove_logs(orphan: sqlite3.Connection, database: Path, opened: Files) -> None:
    """Removes the logs of the file that is gone: SQLite would apply them to whatever file stands there now.

    Raises OSError.
    """
    with suppress(sqlite3.Error):  # for whoever moved the file away and wants all of it; waits for nobody
        orphan.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    for suffix, known in zip(_LOGS, opened[1:], strict=True):
        path = _beside(database, suffix)
        if known is not None and identity(path) == known:
            path.unlink(missing_ok=True)


def recreate(orphan: sqlite3.Connection, database: Path) -> None:
    """A copy of the file that is gone, unless another process made one first. Raises OSError and sqlite3.Error."""
    copy = _beside(database, f"-copy-{os.getpid()}")
    try:
        os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(copy, isolation_level=None)) as target:
            orphan.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")  # the copy is one file, without logs
        with suppress(FileExistsError):
            os.link(copy, database)
    finally:
        copy.unlink(missing_ok=True)


def carry_over(orphan: sqlite3.Connection, db: sqlite3.Connection, since_ns: int) -> None:
    """Adds the calls that were opened since then, and the ends of those that were open. Raises sqlite3.Error."""
    for (table, key), chosen in _CHOSEN.items():
        rows = orphan.execute(chosen, (since_ns,))
        columns = [description[0] for description in rows.description]
        parts = {
            "{table}": table,
            "{key}": key,
            "{columns}": ", ".join(columns),
            "{marks}": ", ".join("?" * len(columns)),
            "{same}": ", ".join(name + " = excluded." + name for name in columns),
        }
        statement = _ADD
        for place, text in parts.items():
            statement = statement.replace(place, text)
        while some := rows.fetchmany(_MANY):
            db.executemany(statement, some)


def _beside(database: Path, suffix: str) -> Path:
    return database.with_name(database.name + suffix)
