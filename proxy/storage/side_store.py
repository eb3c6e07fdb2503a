"""Performs I/O: an additional connection to the usage database, and the encryption of stored content.

For stores other than the ledger, which may lose rows: each has one connection, used from one thread of its owner.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlite_utils import Database

from proxy.schema.records import Secret
from proxy.storage.base import StoreError
from proxy.storage.connections import connect
from proxy.storage.rescue import Files, file_and_logs, identity, keep_open

KEY_SUFFIX = "-vault-key"  # the key file is next to the database
_KEY_BYTES = 32
_NONCE_BYTES = 12


class SideStore:
    """Opens and closes the connection. `database` None: the tables that `schema` creates, in memory."""

    def __init__(self, database: Path | None, schema: Callable[[Database], None], *, busy_s: float = 1.0) -> None:
        self.database = None if database is None else Path(os.path.realpath(database))
        self._schema = schema
        self._busy_s = busy_s
        self._db: sqlite3.Connection | None = None
        self._files: Files = ()  # opened by the connection

    def connected(self) -> sqlite3.Connection:
        """The connection, to the file now at the path. Raises OSError and sqlite3.Error."""
        if self._db is not None and self._is_gone():
            keep_open(self._db)
            self._db = None
        if self._db is None:
            self._db = self._connect()
        return self._db

    def failed(self, error: Exception, what: str) -> StoreError:
        """Resets the connection, so that no transaction stays open; the next call reconnects."""
        if self.database is not None:
            self.close()
        elif self._db is not None and self._db.in_transaction:
            self._db.execute("ROLLBACK")
        return StoreError(f"Cannot use the {what} in {self.database or 'memory'}: {error}.")

    def close(self) -> None:
        """Safe to call twice."""
        db, self._db = self._db, None
        if db is None:
            return
        if self._is_gone():
            keep_open(db)
            return
        with suppress(sqlite3.Error):  # the connection is dropped either way
            db.close()

    def _is_gone(self) -> bool:
        """True if the file was removed or replaced; the ledger creates another."""
        if self.database is None:
            return False
        try:
            return bool(self._files) and identity(self.database) != self._files[0]
        except OSError:
            return True

    def _connect(self) -> sqlite3.Connection:
        if self.database is None:
            db = sqlite3.connect(":memory:", isolation_level=None)
            self._schema(Database(db, recursive_triggers=False, execute_plugins=False))
            return db
        found = file_and_logs(self.database)
        if self._files and found[0] != self._files[0] and {*found[1:]} & {*self._files[1:]} - {None}:
            raise sqlite3.OperationalError("the file was replaced, and the ledger has not removed its old log yet")
        db = connect(self.database, "rw", self._busy_s)  # the ledger creates the file and its schema
        try:
            db.execute("PRAGMA synchronous=NORMAL")  # survives the process; loss at a power failure is acceptable
            db.execute("SELECT 1 FROM sqlite_master").fetchone()  # opens the logs
            self._files = file_and_logs(self.database)
        except BaseException:
            db.close()
            raise
        return db


class Seal:
    """AES-256-GCM. `key` None: the key in the file next to the database; without a database one for this process.

    `purpose` makes the keys of two stores different that are derived from one secret.
    """

    def __init__(self, database: Path | None, key: Secret | None, purpose: bytes) -> None:
        self._database = database
        self._key = key
        self._purpose = purpose
        self._cipher: AESGCM | None = None

    def open(self) -> None:
        """Reads or creates the key. Raises StoreError."""
        if self._cipher is None:
            self._cipher = AESGCM(self._key_bytes())

    def seal(self, data: bytes, bound_to: list[str]) -> bytes:
        """The encrypted data, authenticated with its row, so that it cannot be moved to another one."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._opened().encrypt(nonce, data, msgspec.json.encode(bound_to))

    def unseal(self, sealed: bytes, bound_to: list[str]) -> bytes | None:
        """The data; None if it was sealed with another key or for another row, or is damaged."""
        with suppress(InvalidTag, ValueError):
            return self._opened().decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], msgspec.json.encode(bound_to))
        return None

    def _opened(self) -> AESGCM:
        self.open()
        if self._cipher is None:
            raise RuntimeError("the key was not read")
        return self._cipher

    def _key_bytes(self) -> bytes:
        if self._key is not None:
            return hashlib.sha256(self._purpose + b"\0" + self._key.reveal().encode()).digest()
        if self._database is None:
            return os.urandom(_KEY_BYTES)
        return shared_key(self._database.with_name(self._database.name + KEY_SUFFIX))


def shared_key(path: Path) -> bytes:
    """The key in a file that only this user can read. The first process creates it; concurrent ones wait.

    Raises StoreError.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(fd).st_mode & 0o077:
                message = f"Other users may read the key file {path}. Run `chmod 600` on it, or set PROXY_VAULT_KEY."
                raise StoreError(message)
            fcntl.flock(fd, fcntl.LOCK_EX)  # released when the process ends, even during the write
            key = os.read(fd, _KEY_BYTES + 1)
            if not key:  # new, or left by a process that died at this point: not used yet
                key = os.urandom(_KEY_BYTES)
                if os.write(fd, key) < _KEY_BYTES:
                    os.ftruncate(fd, 0)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(fd)
            if len(key) != _KEY_BYTES:
                raise StoreError(f"{path} is not a valid key file. Move it away, or set PROXY_VAULT_KEY.")
            return key
        finally:
            os.close(fd)
    except OSError as error:
        raise StoreError(f"Cannot use the key file {path}: {error.strerror}.") from error
