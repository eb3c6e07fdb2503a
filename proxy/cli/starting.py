"""Orchestrates: how long a worker may take to start before its supervisor replaces it."""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Protocol

STARTING_S = 120.0


class Worker(Protocol):
    """The interface of uvicorn's `Process`."""

    parent_conn: Any

    @property
    def pid(self) -> int | None: ...

    @property
    def exitcode(self) -> int | None: ...

    def ping(self, timeout: float = 5) -> bool: ...


class Starting:
    """Distinguishes workers that still load the application from hanging ones.

    uvicorn kills a worker that does not answer within 5 s. On busy or slow processors loading takes longer, so no
    worker would ever serve, and each new one would slow down the others.
    """

    def __init__(self) -> None:
        self._begun: dict[int, float] = {}
        self._answered: set[int] = set()

    def is_starting(self, worker: Worker, now: float) -> bool:
        """True if the worker lives, has not answered yet, and was first seen less than STARTING_S ago."""
        pid = worker.pid
        if pid is None or worker.exitcode is not None or pid in self._answered:
            return False
        if worker.ping(timeout=0):
            self._answered.add(pid)
            while worker.parent_conn.poll(0):  # answers to earlier pings would hide that it hangs
                worker.parent_conn.recv()
            return False
        return now - self._begun.setdefault(pid, now) < STARTING_S

    def forget(self, alive: Container[int]) -> None:
        """Forgets dead workers, because process ids are reused."""
        self._answered = {pid for pid in self._answered if pid in alive}
        self._begun = {pid: begun for pid, begun in self._begun.items() if pid in alive}
