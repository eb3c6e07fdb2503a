"""Stores for tests: a real one behind a gate, or broken at will."""

from __future__ import annotations

import threading
from pathlib import Path

from proxy.storage.base import Answers, StoreError
from proxy.storage.batch import Batch
from proxy.storage.sqlite import SqliteStore


class GatedStore(SqliteStore):
    """Writes wait at a gate while it is closed; `waiting` tells that one has arrived."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()

    def write(self, batch: Batch) -> Answers:
        if not self.gate.is_set():
            self.waiting.set()
            self.gate.wait()
        return super().write(batch)


class StuckStore(GatedStore):
    """Fails what comes through the gate while `fails`."""

    fails = False

    def write(self, batch: Batch) -> Answers:
        if not self.gate.is_set():
            self.waiting.set()
            self.gate.wait()
        if self.fails:
            raise StoreError("database or disk is full")
        return super().write(batch)


class BrokenStore(SqliteStore):
    """Fails every write with `fault` while there is one."""

    fault: BaseException | None = None
    tries = 0

    def write(self, batch: Batch) -> Answers:
        self.tries += 1
        if self.fault is not None:
            raise self.fault
        return super().write(batch)

    def break_down(self) -> None:
        self.fault = StoreError("database or disk is full")

    def heal(self) -> None:
        self.fault = None


class FarStore(BrokenStore):
    """As in a database beyond a network: while `loses_answers`, a batch is committed and its answer does not arrive."""

    loses_answers = False

    def write(self, batch: Batch) -> Answers:
        answers = super().write(batch)
        if self.loses_answers:
            raise StoreError("the connection was reset at COMMIT")
        return answers
