"""Performs I/O: the latency of calls while 500,000 old rows are deleted, and without.

.venv/bin/python -m bench.retention          # about half an hour: makes its database in a temporary folder
.venv/bin/python -m bench.retention 50000    # fewer rows
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from proxy.storage.retention import KeptDays, Retention
from proxy.storage.sqlite import SqliteStore
from tests.faults.books import files
from tests.faults.talking import ask
from tests.serving import spawned
from tests.upstream import spawn

ROWS, RATE = 500_000, 50
ROUND_S, LIMIT_S = 5, 1800
DAY_NS = 86_400 * 10**9
_CALLS = """
    INSERT INTO calls (id, opened_ns, closed_ns, owner, key_id, requested_model, provider, model, stream, outcome,
        input_tokens, output_tokens, total_tokens, cost_nano, latency_ms, attempts, success, facts, candidates)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows)
    SELECT printf('%014x', (:first + i * 1000000) / 1000) || lower(hex(randomblob(6))),
        :first + i * 1000000, :first + i * 1000000 + 500, 'x', 'ann', 'auto', 'fake', 'ok', 0, 'ok',
        10, 10, 20, 1000, 5.0, 1, 1, printf('%0200d', i), printf('%0300d', i) FROM n
"""
_ATTEMPTS = """
    INSERT INTO attempts (call_id, seq, id, provider, model, opened_ns, closed_ns, outcome, input, output, cost_nano)
    SELECT id, 1, id || '-1', provider, model, opened_ns, closed_ns, outcome, 10, 10, cost_nano FROM calls
"""


def fill(path: Path, rows: int) -> None:
    """Calls with an attempt each, of 200 days ago. Their ids begin with the time, as those of `new_id` do: the rows of
    calls that are deleted together share pages.
    """
    store = SqliteStore(path)
    store.open()
    with closing(sqlite3.connect(path)) as db:
        db.execute(_CALLS, {"rows": rows, "first": time.time_ns() - 200 * DAY_NS})
        db.execute(_ATTEMPTS)
        db.commit()
    store.close()


def left(path: Path) -> int:
    with closing(sqlite3.connect(path, timeout=10)) as db:
        return int(db.execute("SELECT COUNT(*) FROM calls WHERE owner = 'x'").fetchone()[0])


async def latencies(port: int, seconds: float) -> list[float]:
    """In milliseconds: RATE calls a second, half of them streams, whatever the server does."""
    found: list[float] = []

    async def one(number: int) -> None:
        begun = time.perf_counter()
        heard = await ask(port, "fake/ok(n_tokens=5)", stream=number % 2 == 0)
        assert heard.status == 200
        found.append((time.perf_counter() - begun) * 1000)

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int(seconds * RATE)):
            await asyncio.sleep(max(0.0, begun + number / RATE - time.perf_counter()))
            group.create_task(one(number))
    return found


def clean_up(path: Path, pause: Path) -> None:
    """In a process of its own, as another worker; it rests on while the file `pause` exists."""

    def rest(seconds: float) -> None:
        time.sleep(seconds)
        while pause.exists():
            time.sleep(0.01)

    rest(0)
    retention = Retention(path, KeptDays(90, 90, 7), rest=rest)
    while (cleaned := retention.clean_up()) is None:  # it was not due: the server has just cleaned up, by its own days
        make_due(path)
    print(cleaned, flush=True)


def make_due(path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=10)) as db:
        db.execute("UPDATE clean_ups SET due_ns = 0")
        db.commit()


async def measure(folder: Path, url: str, rows: int) -> None:
    """Turns with and without deletion, so that whatever else the machine does meets both."""
    routing, pause = files(folder, url), folder / "pause"
    written = json.loads(routing.read_text())
    written["storage"]["keep_days"] = 36_500
    routing.write_text(json.dumps(written))
    pause.touch()
    await asyncio.to_thread(fill, folder / "usage.db", rows)
    found: dict[bool, list[float]] = {False: [], True: []}
    with spawned(routing) as server:
        await latencies(server.port, ROUND_S)
        command = [sys.executable, "-m", "bench.retention", "clean", str(folder / "usage.db"), str(pause)]
        cleaning = await asyncio.create_subprocess_exec(*command)
        deleting_s = 0.0
        while cleaning.returncode is None and deleting_s < LIMIT_S:
            found[False] += await latencies(server.port, ROUND_S)
            pause.unlink()
            found[True] += await latencies(server.port, ROUND_S)
            pause.touch()
            deleting_s += ROUND_S
        remaining = await asyncio.to_thread(left, folder / "usage.db")
        if cleaning.returncode is None:
            cleaning.kill()
            await cleaning.wait()
    print(f"{rows - remaining} old calls deleted in {deleting_s:.0f} s, {RATE} calls/s", flush=True)
    for is_deleting, each in found.items():
        each.sort()
        shares = {name: round(each[int(share * len(each))], 1) for name, share in (("p50", 0.5), ("p99", 0.99))}
        print(f"  {'with' if is_deleting else 'without'} deletion: {len(each)} calls, {shares} ms", flush=True)


async def main(rows: int) -> None:
    """Server, upstream and clean-up are processes of their own."""
    with spawn() as upstream, tempfile.TemporaryDirectory() as scratch:
        await measure(Path(scratch), upstream.url, rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["clean"]:
        clean_up(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS))
