"""Orchestrates: the processes of a server with several workers."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import structlog
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from proxy.cli.sighup import hangup_handler
from proxy.cli.starting import Starting
from proxy.server.metrics import mark_dead

_START_AGAIN_S = 5.0


class Supervisor(Multiprocess):
    """uvicorn's supervisor, with five changes.

    It stops listening together with its workers, so a client that connects during the drain is refused at once instead
    of waiting in vain. SIGHUP makes the workers reload instead of restarting them, so their streams continue. It marks
    the metrics of a dead worker in `metrics_folder`. While other workers serve, one that cannot start is retried later,
    instead of ending them all: the disk may be full or read-only for a while. A slow start is tolerated.
    """

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], metrics_folder: Path) -> None:
        hang_up = hangup_handler(lambda: self.signal_queue.append(signal.SIGHUP))
        super().__init__(config, sockets)
        signal.signal(signal.SIGHUP, hang_up)
        self._metrics_folder = metrics_folder
        self._seen: set[int] = set()
        self._start_at: dict[int, float] = {}  # by place
        self._starting = Starting()
        self._log = structlog.get_logger("supervisor")

    def keep_subprocess_alive(self) -> None:
        """Replaces the workers that have ended or hang. Stops the server if one cannot start and no other serves."""
        now = time.monotonic()
        for place, worker in enumerate(self.processes):
            if self._starting.is_starting(worker, now) or worker.is_alive(self.config.timeout_worker_healthcheck):
                continue
            worker.kill()  # if it hangs; this closes its pipes too
            worker.join()
            # Its exit code is certain only now: it may have ended while it was being asked.
            if worker.exitcode == STARTUP_FAILURE:
                if not any(each.exitcode is None and each.is_ready() for each in self.processes):
                    self._log.error("worker_cannot_start", pid=worker.pid, then="the server stops")
                    self.should_exit.set()
                    return
                if now < self._start_at.get(place, 0):
                    continue
                self._start_at[place] = now + _START_AGAIN_S
            self._log.warning("worker_replaced", pid=worker.pid, exit_code=worker.exitcode)
            self.processes[place] = Process(self.config, self.sockets)
            self.processes[place].start()
        alive = {process.pid for process in self.processes if process.pid is not None}
        self._starting.forget(alive)
        for pid in self._seen - alive:
            mark_dead(self._metrics_folder, pid)
        self._seen = alive

    def handle_hup(self) -> None:
        for process in self.processes:
            if process.pid is not None and process.is_ready():  # a starting worker reads the files anyway
                os.kill(process.pid, signal.SIGHUP)

    def terminate_all(self) -> None:
        for sock in self.sockets:
            sock.close()
        super().terminate_all()
