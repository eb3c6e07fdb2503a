"""A worker that takes long to start is left alone; one that hangs is not."""

from __future__ import annotations

from multiprocessing import Pipe

from proxy.cli.starting import STARTING_S, Starting


class Worker:
    """Answers what was asked of it whenever `answer` is called, as a worker that has loaded its modules does."""

    def __init__(self, pid: int = 7) -> None:
        self.pid: int | None = pid
        self.exitcode: int | None = None
        self.parent_conn, self._conn = Pipe()

    def ping(self, timeout: float = 5) -> bool:
        self.parent_conn.send(b"ping")
        if not self.parent_conn.poll(timeout):
            return False
        self.parent_conn.recv()
        return True

    def answer(self) -> None:
        while self._conn.poll(0):
            self._conn.send(bool(self._conn.recv()))


def test_a_worker_that_loads_for_long_is_starting() -> None:
    """Until it answers, or for two minutes."""
    starting, worker = Starting(), Worker()
    assert [starting.is_starting(worker, now) for now in (10, 10 + STARTING_S - 1)] == [True, True]
    assert not starting.is_starting(worker, 10 + STARTING_S)


def test_a_worker_that_has_answered_is_no_longer_starting() -> None:
    """No earlier ping is left whose answer could pass for a later one."""
    starting, worker = Starting(), Worker()
    assert [starting.is_starting(worker, now) for now in (1, 2, 3)] == [True] * 3
    worker.answer()
    assert not starting.is_starting(worker, 4)
    worker.answer()
    assert worker.parent_conn.poll(0)  # the answer to the ping at 4
    worker.parent_conn.recv()
    assert not worker.parent_conn.poll(0)
    assert not starting.is_starting(worker, 5)


def test_a_worker_that_has_ended_is_not_starting() -> None:
    starting, worker = Starting(), Worker()
    worker.exitcode = 3
    assert not starting.is_starting(worker, 1)


def test_a_process_id_that_is_used_again_starts_anew() -> None:
    starting, worker = Starting(), Worker()
    assert starting.is_starting(worker, 1)
    starting.forget({8})
    assert starting.is_starting(worker, 2 * STARTING_S)
