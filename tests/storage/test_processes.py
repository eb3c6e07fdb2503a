"""Real processes on one file: killed, side by side, and on a full disk."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from proxy.schema.queries import UsageQuery
from proxy.storage.sqlite import SqliteStore
from tests.storage.samples import HOLD_NANO, rows

ROOT = Path(__file__).parents[2]
WAVES, ABREAST = 5, 4


def start(mode: str, path: Path, prefix: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.storage.writing_process", mode, str(path), prefix]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_kill_9_loses_no_settled_call_and_counts_none_twice(tmp_path: Path) -> None:
    """20 processes, 4 at a time on one file, killed at random moments.

    What a process said was settled is `ok` with exact tokens; what was open becomes `unknown` at the cost of its hold.
    """
    path, rng = tmp_path / "calls.db", random.Random(7)
    said: dict[str, int] = {}
    for wave in range(WAVES):
        processes = [start("endless", path, f"w{wave}p{place}") for place in range(ABREAST)]
        for place, process in enumerate(processes):
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(rng.randrange(1, 30))]
            time.sleep(rng.random() * 0.02)
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
            process.wait()
            process.stdout.close()
            for number in (int(line) for line in lines if line.endswith("\n")):
                said[f"w{wave}p{place}-{number:06}"] = number
    assert len(said) >= WAVES * ABREAST
    store = SqliteStore(path)
    store.open()
    swept = store.sweep(1)
    store.close()
    found = {row["id"]: row for row in rows(path, "SELECT * FROM calls")}
    for name, number in said.items():
        failed = int(number % 3 == 0)
        row = found[name]
        assert (row["outcome"], row["attempts"]) == ("ok", 1 + failed)
        assert (row["input_tokens"], row["output_tokens"]) == (number + 10 * failed, 1 + 20 * failed)
        assert row["cost_nano"] == number + 7 * failed
    assert {row["outcome"] for row in found.values()} <= {"ok", "unknown"}
    assert swept <= sum(row["outcome"] == "unknown" for row in found.values())
    for row in found.values():
        if row["outcome"] == "unknown":
            assert row["cost_nano"] == HOLD_NANO + 7 * (row["attempts"] - 1)
    assert rows(path, "SELECT COUNT(*) AS n FROM attempts WHERE closed_ns IS NULL") == [{"n": 0}]
    assert rows(path, "SELECT SUM(attempts) = (SELECT COUNT(*) FROM attempts) AS same FROM calls") == [{"same": 1}]
    assert rows(path, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    assert list(path.with_name("calls.db-owners").iterdir()) == []


@pytest.mark.slow
def test_processes_that_write_side_by_side_never_meet_a_locked_database(tmp_path: Path) -> None:
    """Two writers of 200 calls/s each, a snapshot held open all the time, and usage read again and again."""
    path = tmp_path / "calls.db"
    store = SqliteStore(path)
    store.open()
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT COUNT(*) FROM calls").fetchone() == (0,)
        processes = [start("paced", path, name) for name in ("one", "two")]
        while any(process.poll() is None for process in processes):
            store.usage(UsageQuery(group_by=("model", "day")))
            time.sleep(0.02)
        assert reader.execute("SELECT COUNT(*) FROM calls").fetchone() == (0,)
    for process in processes:
        slowest_ms, _ = process.communicate()
        assert process.returncode == 0
        assert float(slowest_ms) < 2000
    assert store.usage(UsageQuery())["total"]["successes"] == 400
    store.close()


def test_a_full_disk_refuses_calls_and_is_survived(tmp_path: Path) -> None:
    """No room for another byte: 503, and ends are kept; with room again they are written, and calls go on."""
    path = tmp_path / "calls.db"
    process = start("full", path, "")
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert output.splitlines() == ["during: refused", "degraded: True", "after: settled"]
    found = rows(path, "SELECT id, outcome FROM calls ORDER BY id")
    assert found == [{"id": "after", "outcome": "ok"}, {"id": "before", "outcome": "ok"}]
    assert rows(path, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]


def test_processes_that_start_together_make_one_schema(tmp_path: Path) -> None:
    """Of several workers on a new file one migrates, the others wait; none fails."""
    path = tmp_path / "calls.db"
    processes = [start("once", path, f"p{number}") for number in range(4)]
    assert [process.communicate(timeout=30) and process.returncode for process in processes] == [0, 0, 0, 0]
    assert rows(path, "SELECT COUNT(*) AS n FROM calls WHERE outcome = 'ok'") == [{"n": 4}]
