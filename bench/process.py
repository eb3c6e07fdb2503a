"""Performs I/O: a gateway's process: started on cores of its own, its CPU time and memory read."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil

_READY_S = 120


class NotServed(Exception):
    """A gateway cannot be installed or started; the text says why."""


class Measured:
    """A running process. `started`: monotonic seconds when it was made."""

    def __init__(self, process: subprocess.Popen[bytes], started: float) -> None:
        self._process = psutil.Process(process.pid)
        self._started = started

    def cpu_s(self) -> float:
        """CPU seconds so far, of all threads and of the processes it started and still has."""
        total = 0.0
        for each in (self._process, *self._process.children(recursive=True)):
            times = each.cpu_times()
            total += times.user + times.system
        return total

    def rss_mb(self) -> float:
        return float(self._process.memory_info().rss / 1e6)

    def memory_mb(self) -> float:
        """Resident memory, also of the processes it started."""
        return self.rss_mb() + self.child_rss_mb()

    def child_rss_mb(self) -> float:
        """Resident memory of the processes it started."""
        return float(sum(child.memory_info().rss for child in self._process.children(recursive=True)) / 1e6)

    def since_start_s(self) -> float:
        return time.monotonic() - self._started


@contextmanager
def started(
    command: Sequence[str], url: str, log: Path, cores: set[int], environ: Mapping[str, str] | None = None
) -> Iterator[tuple[Measured, int]]:
    """Runs a gateway; it and the port in the first line of its output that matches `url`. Raises NotServed."""
    with log.open("ab") as errors, _running(command, cores, environ, subprocess.PIPE, errors) as (process, measured):
        yield measured, _port(process, url, log)


@contextmanager
def listening(
    command: Sequence[str],
    port: int,
    log: Path,
    cores: set[int],
    environ: Mapping[str, str] | None = None,
    ready: str = "",
) -> Iterator[Measured]:
    """Runs a gateway that is told its port, until it listens there and answers GET `ready`. Raises NotServed."""
    with log.open("ab") as output, _running(command, cores, environ, output, output) as (process, measured):
        until = time.monotonic() + _READY_S
        while not _answers(port, ready):
            if process.poll() is not None or time.monotonic() > until:
                raise NotServed(f"it did not start: {log.read_text(errors='replace')[-300:].strip()}")
            time.sleep(0.1)
        yield measured


@contextmanager
def _running(
    command: Sequence[str], cores: set[int], environ: Mapping[str, str] | None, out: int | IO[bytes], err: IO[bytes]
) -> Iterator[tuple[subprocess.Popen[bytes], Measured]]:
    """A process with an open standard input, which ends with this block."""
    with on_cores(cores):
        began = time.monotonic()
        env = _environment(environ or {})
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=err, env=env)
    try:
        yield process, Measured(process, began)
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.connect()
        if not path:
            return True
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def leave_on_sigterm() -> None:
    """SIGTERM ends this process as Ctrl-C does: by an exception, so that the processes it started end with it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """This process, and those it starts meanwhile, run on these cores alone; does nothing where there are none."""
    if not cores or sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """Ours without keys and settings of the proxy; compiled modules are kept, or no start would be a warm one."""
    ignored = re.compile(r"_API_KEY$|^PROXY_|^PYTHONDONTWRITEBYTECODE$")
    return {name: value for name, value in os.environ.items() if not ignored.search(name)} | dict(more)


def _port(process: subprocess.Popen[bytes], url: str, log: Path) -> int:
    """Reads the output as far as a line that matches. Raises NotServed when it ends before."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        found = re.search(url.encode(), line)
        if found is not None:
            return int(found[1])
        said.append(line)
    raise NotServed(
        f"it did not start: {b''.join(said).decode(errors='replace')}{log.read_text(errors='replace')}"[-500:]
    )
