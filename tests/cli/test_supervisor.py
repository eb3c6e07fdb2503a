"""A worker that cannot start ends the server only if no other worker serves."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.config import STARTUP_FAILURE

from proxy.cli import supervisor
from proxy.cli.supervisor import Supervisor


class Worker:
    """A process by script: `ends_with` is its exit code, once it is asked whether it is alive."""

    pids = iter(range(100, 200))

    def __init__(self, *_: object, serves: bool = True, ends_with: int | None = None) -> None:
        self.pid = next(self.pids)
        self.exitcode: int | None = None
        self.serves, self.ends_with = serves, ends_with

    def start(self) -> None: ...
    def kill(self) -> None: ...
    def join(self) -> None: ...

    def ping(self, timeout: float = 5) -> bool:
        return self.exitcode is None

    @property
    def parent_conn(self) -> Any:
        class Empty:
            def poll(self, timeout: float) -> bool:
                return False

        return Empty()

    def is_ready(self, timeout: float = 5) -> bool:
        return self.serves

    def is_alive(self, timeout: float = 5) -> bool:
        self.exitcode = self.ends_with  # it ends while it is being asked
        return self.exitcode is None


@pytest.fixture
def supervised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """Without workers yet; those it starts serve. The signal handlers of this process stay as they are."""
    monkeypatch.setattr(supervisor, "Process", Worker)
    assert threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in signal.valid_signals() if number not in (9, 19)}
    yield Supervisor(uvicorn.Config("any:app"), [], tmp_path)
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def pids(supervised: Supervisor) -> list[int | None]:
    return [each.pid for each in supervised.processes]


@pytest.mark.parametrize("place", [0, 1])
def test_a_worker_that_fails_to_start_while_it_is_asked_is_replaced(supervised: Supervisor, place: int) -> None:
    """The full disk that stops one worker from starting must not end the one that serves."""
    workers: list[Any] = [Worker(), Worker()]
    workers[place] = Worker(serves=False, ends_with=STARTUP_FAILURE)
    supervised.processes = workers
    kept = workers[1 - place]
    supervised.keep_subprocess_alive()
    assert not supervised.should_exit.is_set()
    replaced = supervised.processes[place]
    assert (replaced is not workers[1 - place], supervised.processes[1 - place]) == (True, kept)
    assert replaced.exitcode is None


def test_a_worker_that_fails_again_waits(supervised: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried every five seconds, beside others that failed with it: starting costs the processor a second."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    supervised.processes = [Worker(), *(Worker(ends_with=STARTUP_FAILURE) for _ in range(2))]  # type: ignore[list-item]
    begun = pids(supervised)
    supervised.keep_subprocess_alive()
    second = pids(supervised)
    assert second[0] == begun[0]
    assert not {*second[1:]} & {*begun}
    for each in supervised.processes[1:]:
        each.ends_with = STARTUP_FAILURE  # type: ignore[attr-defined]
    now[0] += 4.9
    supervised.keep_subprocess_alive()
    assert pids(supervised) == second
    now[0] += 0.2
    supervised.keep_subprocess_alive()
    assert not {*pids(supervised)[1:]} & {*second}
    assert not supervised.should_exit.is_set()


@pytest.mark.parametrize("other", [{"ends_with": STARTUP_FAILURE}, {"serves": False}])
def test_the_server_stops_if_nobody_serves(supervised: Supervisor, other: dict[str, Any]) -> None:
    """The configuration, the certificate or the port is at fault: the next try would fail too."""
    supervised.processes = [Worker(serves=False, ends_with=STARTUP_FAILURE), Worker(**other)]  # type: ignore[list-item]
    if "ends_with" in other:
        supervised.processes[1].exitcode = STARTUP_FAILURE  # type: ignore[misc]
    supervised.keep_subprocess_alive()
    assert supervised.should_exit.is_set()


def test_a_worker_that_is_killed_is_replaced_at_once(supervised: Supervisor) -> None:
    """Also the only one: a crash says nothing about the next start."""
    supervised.processes = [Worker(ends_with=-9)]  # type: ignore[list-item]
    (ended,) = pids(supervised)
    supervised.keep_subprocess_alive()
    assert pids(supervised) != [ended]
    assert not supervised.should_exit.is_set()
