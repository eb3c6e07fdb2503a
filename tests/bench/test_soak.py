"""The soak judges what a long run shows, and its own short run passes."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from msgspec.structs import replace

from bench.soak.verdict import Books, Sample, findings, growth_per_minute, table

ROOT = Path(__file__).parents[2]
GOOD = Books(requests=1000, rows=1003, unsent=3, lost=0, doubled=0, unanswered=0)


def samples(minutes: int, grown_mib: float = 0.0, **last_third: int) -> list[Sample]:
    """One a minute. The first minutes always grow: caches fill."""
    made = []
    for minute in range(minutes):
        young = min(minute, 3) * 5.0
        sample = Sample(minute, 80 + young + grown_mib * minute, tasks=9, descriptors=30, threads=11, kept=minute % 7)
        sample = replace(sample, descriptors=24 + sample.kept)
        made.append(replace(sample, **last_third) if minute >= 2 * minutes / 3 else sample)
    return made


def failed(run: list[Sample], books: Books = GOOD) -> list[str]:
    return [each.what.partition(" (")[0] for each in findings(run, books) if each.ok is False]


def test_a_steady_server_passes():
    """However much it grew while it was young, and however many idle connections it keeps."""
    assert failed(samples(30)) == []
    assert growth_per_minute(samples(30)) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("run", "what"),
    [
        (samples(30, grown_mib=0.25), "growth of resident memory, MiB/min"),
        (samples(30, tasks=12), "drift of tasks"),
        (samples(30, threads=8), "drift of threads"),
        (samples(30, descriptors=40), "drift of other descriptors"),
    ],
)
def test_what_grows_fails(run, what):
    """Each of the four, and nothing else with it."""
    assert failed(run) == [what]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"rows": 1002}, "attempt rows for the upstream's requests"),
        ({"requests": 0, "rows": 3}, "attempt rows for the upstream's requests"),
        ({"lost": 1}, "requests without a row"),
        ({"doubled": 1}, "requests with two rows, or sent twice"),
        ({"unanswered": 1}, "clients without an answer"),
    ],
)
def test_books_that_differ_fail(change, what):
    """A run without any request shows nothing, so it fails too."""
    assert failed(samples(30), replace(GOOD, **change)) == [what]


def test_a_short_run_says_nothing_about_memory():
    """Its other findings count."""
    assert [each.ok for each in findings(samples(2), GOOD)] == [None] * 4 + [True] * 4
    assert failed(samples(4, grown_mib=9)) == []


def test_a_long_table_is_thinned_and_keeps_its_end():
    """About forty rows of a hundred and eighty."""
    rows = table(samples(180)).splitlines()[1:]
    assert 30 < len(rows) < 45
    assert rows[-1].split()[0] == "179.0"


@pytest.mark.slow
def test_a_run_of_seconds_passes():
    """Load, samples, books and the verdict, over real sockets."""
    command = [sys.executable, "-m", "bench.soak", "--minutes", "0.15", "--interval", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    requests = re.search(r"attempt rows for the upstream's requests +(\d+) of (\d+)", done.stdout)
    assert requests is not None
    assert int(requests[1]) == int(requests[2]) > 200
    assert "the server's exit code: 0; soak passed" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("module", ["bench.soak", "bench"])
def test_a_run_that_is_ended_leaves_no_process(module):
    """SIGTERM in the middle of the load: the server and the upstream end too."""
    run = subprocess.Popen([sys.executable, "-m", module], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        started: list[psutil.Process] = []
        until = time.monotonic() + 60
        while not started and time.monotonic() < until:
            time.sleep(0.5)
            started = psutil.Process(run.pid).children(recursive=True)
        assert started
        run.terminate()
        assert run.wait(timeout=60) == 128 + signal.SIGTERM
    finally:
        run.kill()
        run.communicate()
    assert psutil.wait_procs(started, timeout=10)[1] == []
