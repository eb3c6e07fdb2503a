"""The child's own rules, tried on the process itself."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from proxy.upstream.local_model.child import threads_for, usable_cores
from proxy.upstream.local_model.model import CHILD_COMMAND


@pytest.fixture
def child():
    with subprocess.Popen(CHILD_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.kill()


def tell(child, path):
    settings = {"path": str(path), "alias": "m", "context": 256, "slots": 1, "key": "k"}
    child.stdin.write(json.dumps(settings).encode() + b"\n")
    child.stdin.flush()


def open_once_it_is_read(path, timeout_s=10.0):
    """Opens a FIFO for writing as soon as some process has opened it for reading."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):  # ENXIO: nobody reads it yet
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        time.sleep(0.005)
    raise TimeoutError(path)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGIO there")
def test_the_child_ends_while_it_loads_when_its_pipe_closes(child, tmp_path):
    """Loading holds the interpreter's lock; a file that never arrives makes it last for ever."""
    fifo = tmp_path / "endless.gguf"
    os.mkfifo(fifo)
    tell(child, fifo)
    writer = open_once_it_is_read(fifo)
    child.stdin.close()
    assert child.wait(timeout=2) == -signal.SIGIO
    os.close(writer)


def test_the_child_ends_when_its_pipe_closes_before_the_first_line(child):
    child.stdin.close()
    assert child.wait(timeout=5) == 0
    assert child.stdout.read() == b""


@pytest.mark.parametrize("content", [b"", b"not a model", b"GGUF\x03\x00\x00\x00"])
def test_a_file_that_is_no_model_is_reported_in_one_line(child, tmp_path, content):
    (tmp_path / "broken.gguf").write_bytes(content)
    tell(child, tmp_path / "broken.gguf")
    reported = child.stdout.read()
    expected = "llama.cpp cannot load the file: it is broken, of an unknown kind, or too large for the memory"
    assert json.loads(reported) == {"error": expected}
    assert child.wait(timeout=5) == 1


@pytest.mark.parametrize(
    ("cores", "cpu_max", "expected"),
    [
        (8, "max 100000\n", 8),
        (8, "max", 8),
        (8, "200000 100000\n", 2),
        (8, "50000 100000\n", 1),
        (2, "400000 100000\n", 2),
        (2, "", 2),
    ],
)
def test_a_containers_quota_bounds_the_cores(cores, cpu_max, expected):
    """The format is that of cpu.max in the kernel's cgroup v2."""
    assert usable_cores(cores, cpu_max) == expected


@pytest.mark.parametrize(
    ("size", "cores", "threads"),
    [
        (98_000_000, 1, 1),
        (98_000_000, 2, 1),
        (98_000_000, 64, 1),
        (4_700_000_000, 1, 1),
        (4_700_000_000, 2, 1),
        (4_700_000_000, 8, 7),
        (4_700_000_000, 64, 8),
        (900_000_000, 8, 3),
        (0, 4, 1),
    ],
)
def test_a_small_model_gets_one_thread_and_no_model_all_cores(size, cores, threads):
    """Threads that wait for each other on busy cores are slower than one."""
    assert threads_for(size, cores) == threads
