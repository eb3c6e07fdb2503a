"""Performs I/O: the latency of calls while 500,000 old rows are deleted, and without.

.venv/bin/python -m bench.retention          # about ten minutes: makes its databases in a temporary folder
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

from proxy.storage.sqlite import SqliteStore
from tests.faults.books import files
from tests.faults.talking import ask
from tests.serving import spawned
from tests.upstream import spawn

ROWS, RATE = 500_000, 50
ROUND_S, MEASURED_S, LIMIT_S = 10, 60, 900
DAY_NS = 86_400 * 10**9
_CALLS = """
    INSERT INTO calls (id, opened_ns, closed_ns, owner, key_id, requested_model, provider, model, stream, outcome,
        input_tokens, output_tokens, total_tokens, cost_nano, latency_ms, attempts, success, facts, candidates)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows)
    SELECT lower(hex(randomblob(13))), :first + i * 1000000, :first + i * 1000000 + 500, 'x', 'ann', 'auto', 'fake',
        'ok', 0, 'ok', 10, 10, 20, 1000, 5.0, 1, 1, printf('%0200d', i), printf('%0300d', i) FROM n
"""
_ATTEMPTS = """
    INSERT INTO attempts (call_id, seq, id, provider, model, opened_ns, closed_ns, outcome, input, output, cost_nano)
    SELECT id, 1, id || '-1', provider, model, opened_ns, closed_ns, outcome, 10, 10, cost_nano FROM calls
"""


def fill(path: Path, rows: int) -> None:
    """Calls with an attempt each, of 200 days ago, with random ids as real ones have."""
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


async def trial(folder: Path, url: str, rows: int, keep_days: int) -> None:
    """One database and one server. If it deletes, calls are sent until it has deleted all."""
    routing = files(folder, url)
    written = json.loads(routing.read_text())
    written["storage"]["keep_days"] = keep_days
    routing.write_text(json.dumps(written))
    await asyncio.to_thread(fill, folder / "usage.db", rows)
    found: list[float] = []
    with spawned(routing) as server:
        begun = time.perf_counter()
        while True:
            found += await latencies(server.port, ROUND_S)
            remaining = await asyncio.to_thread(left, folder / "usage.db")
            took_s = time.perf_counter() - begun
            if took_s >= MEASURED_S and (keep_days > 200 or not remaining or took_s > LIMIT_S):
                break
    found.sort()
    shares = {name: round(found[int(share * len(found))], 1) for name, share in (("p50", 0.5), ("p99", 0.99))}
    deleted = f"{rows - remaining} old calls deleted in {took_s:.0f} s"
    print(f"keep_days {keep_days}: {len(found)} calls, {shares} ms, {deleted}", flush=True)


async def main(rows: int) -> None:
    """Without, with, without."""
    with spawn() as upstream, tempfile.TemporaryDirectory() as scratch:
        for number, keep_days in enumerate((36_500, 90, 36_500)):
            await trial(Path(tempfile.mkdtemp(str(number), dir=scratch)), upstream.url, rows, keep_days)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS))
