"""Performs I/O: connections to the usage database other than the ledger's own.

After the file was replaced, the old file's log stays beside the new file until the ledger has removed it. SQLite would
apply it to the new file, so nothing else may open that for writing before.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from proxy.storage.base import StoreError
from proxy.storage.owners import Owners
from proxy.storage.rescue import Files, file_and_logs


def connect(database: Path, mode: str, busy_s: float) -> sqlite3.Connection:
    """`mode` is "rw" or "ro", never "rwc", which would create a file. "ro" never applies a log.

    Raises sqlite3.Error, also while the log of a replaced file exists.
    """
    try:
        is_foreign = mode != "ro" and has_log_of_another(database)
    except OSError as error:
        raise sqlite3.OperationalError(str(error)) from error
    if is_foreign:
        raise sqlite3.OperationalError("the file was replaced, and the ledger has not removed its old log yet")
    place = database.absolute().as_uri() + "?mode=" + mode
    return sqlite3.connect(place, uri=True, timeout=busy_s, isolation_level=None)


@contextmanager
def connected(database: Path, mode: str, busy_s: float, what: str) -> Iterator[sqlite3.Connection]:
    """A connection for the block. Raises StoreError, which says that `what` cannot be used."""
    try:
        with closing(connect(database, mode, busy_s)) as db:
            yield db
    except sqlite3.Error as error:
        raise StoreError(f"Cannot use the {what} {database}: {error}.") from error


def has_log_of_another(database: Path) -> bool:
    """True if the log at the path belongs to a file that no longer exists, by some owner's record of its files."""
    found = file_and_logs(database)
    if found[1] is None:
        return False
    for path in Owners(database).lock_paths():
        try:
            opened = msgspec.json.decode(path.read_bytes(), type=Files)
        except (OSError, msgspec.DecodeError):  # it is gone by now, or still empty
            continue
        if len(opened) == len(found) and opened[0] != found[0] and opened[1] == found[1]:
            return True
    return False
