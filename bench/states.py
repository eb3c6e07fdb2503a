"""Performs I/O: what the server costs besides requests: its start, its memory when idle, and reads of its usage."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from pathlib import Path

from bench import usage
from bench.peers.install import cache
from bench.product import serving

_STARTS, _MEMORY = (
    ("start to the first /readyz, s", "start to the first embedded answer, s"),
    ("server, idle, MB", "server, after an answer, MB", "embedded model's process, MB"),
)
READY, IDLE = _STARTS[0], _MEMORY[0]
CALLS = (10_000, 100_000, 1_000_000)
_QUERY = "group_by=model"


def starts(rounds: int, until: float) -> dict[str, list[float]]:
    """Start-up times and idle memory; the first start warms the disk's and Python's caches and is not counted."""
    found: dict[str, list[float]] = {name: [] for name in (*_STARTS, *_MEMORY)}
    for number in range(rounds + 1):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, serving(Path(folder), None, set()) as server:
            server.get("/readyz")
            ready_s, idle_mb = server.process.since_start_s(), server.process.rss_mb()
            server.ask("auto")
            answered_s = server.process.since_start_s()
            figures = (ready_s, answered_s, idle_mb, server.process.rss_mb(), server.process.child_rss_mb())
        if number > 0:
            for values, figure in zip(found.values(), figures, strict=True):
                values.append(figure)
            if time.monotonic() > until:
                break
    return found


def usage_ms(calls: int) -> list[float]:
    """Three reads of a month's usage by model, in a database of so many calls, which is made once and kept."""
    made_by = hashlib.sha256(Path(usage.__file__).read_bytes()).hexdigest()[:8]
    path = cache() / f"usage-{calls}-{made_by}.db"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            usage.make(Path(folder) / "usage.db", calls)
            os.replace(Path(folder) / "usage.db", path)
    ask = usage.usage(path, _QUERY)
    took_ms = []
    for _ in range(3):
        begun = time.perf_counter()
        ask()
        took_ms.append((time.perf_counter() - begun) * 1000)
    return took_ms
