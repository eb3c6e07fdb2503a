"""Stores for tests: a real one behind a gate, or broken at will."""

from __future__ import annotations

import threading
from pathlib import Path

from proxy.storage.base import StoreError
from proxy.storage.batch import Batch
from proxy.storage.sqlite import SqliteStore


class GatedStore(SqliteStore):
    """Writes wait at a gate while it is closed; `waiting` tells that one has arrived."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()

    def write(self, batch: Batch) -> dict[str, str]:
        if not self.gate.is_set():
            self.waiting.set()
            self.gate.wait()
        return super().write(batch)


class BrokenStore(SqliteStore):
    """Fails every write with `fault` while there is one."""

    fault: Exception | None = None
    tries = 0

    def write(self, batch: Batch) -> dict[str, str]:
        self.tries += 1
        if self.fault is not None:
            raise self.fault
        return super().write(batch)

    def break_down(self) -> None:
        self.fault = StoreError("database or disk is full")

    def heal(self) -> None:
        self.fault = None
