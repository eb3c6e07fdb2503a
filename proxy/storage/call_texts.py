"""Performs I/O: prompts and answers of calls, encrypted, in the usage database, by call.

One connection, used from one thread of the owner. Texts that cannot be decrypted (another key, a broken row, a row of
another call) are treated as missing. `storage.retention` deletes them.
"""

from __future__ import annotations

import sqlite3
import zlib
from contextlib import suppress
from pathlib import Path

from proxy.schema.records import Secret
from proxy.storage.side_store import Seal, SideStore
from proxy.storage.upkeep_tables import m021_call_texts

_WHAT = "texts of calls"
_PUT = "INSERT OR REPLACE INTO call_texts (call_id, opened_ns, sealed) VALUES (?, ?, ?)"
_FIND = "SELECT sealed FROM call_texts WHERE call_id = ?"


class CallTexts:
    """The texts of all calls. `database` None: in memory. `key` None: the key in the file next to the database."""

    def __init__(self, database: Path | None, key: Secret | None = None, *, busy_s: float = 2.0) -> None:
        self._store = SideStore(database, m021_call_texts, busy_s=busy_s)
        self._seal = Seal(self._store.database, key, b"texts of calls")

    def put(self, caller: str, call_id: str, opened_ns: int, text: bytes) -> None:
        """Commits the text of a call. Raises StoreError."""
        sealed = self._seal.seal(zlib.compress(text, 1), _bound_to(caller, call_id))
        try:
            self._store.connected().execute(_PUT, (call_id, opened_ns, sealed))
        except (OSError, sqlite3.Error) as error:
            raise self._store.failed(error, _WHAT) from error

    def find(self, caller: str, call_id: str) -> bytes | None:
        """The text of a call with this caller's key. Raises StoreError."""
        self._seal.open()
        try:
            row = self._store.connected().execute(_FIND, (call_id,)).fetchone()
        except (OSError, sqlite3.Error) as error:
            raise self._store.failed(error, _WHAT) from error
        text = None if row is None else self._seal.unseal(row[0], _bound_to(caller, call_id))
        if text is not None:
            with suppress(zlib.error):
                return zlib.decompress(text)
        return None

    def close(self) -> None:
        """Safe to call twice."""
        self._store.close()


def _bound_to(caller: str, call_id: str) -> list[str]:
    return ["text of a call", caller, call_id]
