"""Performs I/O: rescues the rows if the database file is removed or replaced while in use.

SQLite keeps writing to the file it opened, which no other process can open any more. So its rows are copied to the file
now at the path, or to a new one. Everything here may be repeated, and run in several processes at once.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from proxy.storage.carried_spending import carry_spending, spent_since

Identity = tuple[int, int]
Files = tuple[Identity | None, ...]  # a database and its logs
_LOGS = ("-wal", "-shm")
_OF_CALLS = " WHERE call_id IN (SELECT id FROM calls WHERE opened_ns >= ?)"
_CHOSEN = {  # table and key -> the rows of calls opened since a time
    ("calls", "id"): "SELECT * FROM calls WHERE opened_ns >= ?",
    ("attempts", "call_id, seq"): "SELECT * FROM attempts" + _OF_CALLS,
    ("ensemble_calls", "call_id"): "SELECT * FROM ensemble_calls" + _OF_CALLS,
    ("feedback", "call_id, seq"): "SELECT * FROM feedback" + _OF_CALLS,
}
_ADD = """
    INSERT INTO {table} ({columns}) VALUES ({marks})
    ON CONFLICT ({key}) DO {change}
"""
_END = "UPDATE SET {same} WHERE {table}.closed_ns IS NULL"
_WITH_END = ("calls", "attempts")  # tables whose rows may change until they end
_MANY = 1_000
# A call that ends is listed for the sums (storage/rollups.py); some calls arrive here already ended.
_LIST_ENDED = """
    CREATE TEMP TRIGGER calls_arrived AFTER INSERT ON main.calls WHEN NEW.closed_ns IS NOT NULL
    BEGIN INSERT INTO calls_to_sum (call_id) VALUES (NEW.id); END
"""


def identity(path: Path) -> Identity | None:
    """The identity of the file at a path, independent of its name; None without a file. Raises OSError."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def file_and_logs(database: Path) -> Files:
    """The files that a connection has just opened."""
    return tuple(identity(_beside(database, suffix)) for suffix in ("", *_LOGS))


def keep_open(connection: sqlite3.Connection) -> None:
    """Leaks a connection whose file is gone: closing it would delete the new file's log, which has its name."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """A lock: one process at a time changes the file at the path. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def remove_logs(orphan: sqlite3.Connection, database: Path, opened: Files) -> None:
    """Removes the logs of the lost file, because SQLite would apply them to the new one.

    Raises OSError.
    """
    with suppress(sqlite3.Error):  # completes the moved file, without waiting for locks
        orphan.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    for suffix, known in zip(_LOGS, opened[1:], strict=True):
        path = _beside(database, suffix)
        if known is not None and identity(path) == known:
            path.unlink(missing_ok=True)


def recreate(orphan: sqlite3.Connection, database: Path) -> None:
    """Copies the lost file, unless another process did so first. Raises OSError and sqlite3.Error."""
    copy = _beside(database, f"-copy-{os.getpid()}")
    try:
        os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(copy, isolation_level=None)) as target:
            orphan.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")  # the copy is a single file, without logs
        with suppress(FileExistsError):
            os.link(copy, database)
    finally:
        copy.unlink(missing_ok=True)


def carry_over(orphan: sqlite3.Connection, db: sqlite3.Connection, since_ns: int) -> None:
    """Copies the calls opened since then, the ends of those that were open, and the spend of budgets.

    Raises sqlite3.Error.
    """
    db.execute(_LIST_ENDED)
    before = spent_since(db, since_ns)
    for (table, key), chosen in _CHOSEN.items():
        rows = orphan.execute(chosen, (since_ns,))
        columns = [description[0] for description in rows.description]
        parts = {
            "{change}": _END if table in _WITH_END else "NOTHING",
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
    db.execute("DROP TRIGGER calls_arrived")
    carry_spending(orphan, db, before, since_ns)


def _beside(database: Path, suffix: str) -> Path:
    return database.with_name(database.name + suffix)
