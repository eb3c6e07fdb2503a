"""Orchestrates: `python -m bench [--quick] [--seconds N]` prints what a request, a start and an idle server cost.

CPU is that of the server's process alone: the load generator is this process, the fake upstream a third one, on other
cores where there are any. Rounds of all cases take turns, so that a slow minute of the machine hits each of them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from bench.load import Case, run
from bench.server import Server, on_cores, serving
from tests.upstream import spawn

CONNECTIONS = 32
CASES = (
    Case("whole answer", "fake/ok(n_tokens=80)", False, 3000),
    Case("stream of 200 events, in few writes", "fake/fast", True, 600),
    Case("stream of 200 events, a write each", "fake/ok(n_tokens=200)", True, 300),
)
QUICK = tuple(Case(case.name, case.model, case.stream, case.requests // 20) for case in CASES)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small round of everything: does it run at all?")
    parser.add_argument("--seconds", type=float, default=60, help="no new round begins after so long (default 60)")
    options = parser.parse_args()
    rounds = 1 if options.quick else 7
    until = time.monotonic() + options.seconds
    print(_machine())
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        _starts(Path(folder), rounds, until - options.seconds / 2)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        _requests(Path(folder), QUICK if options.quick else CASES, rounds, until)


def _starts(folder: Path, rounds: int, until: float) -> None:
    """Start-up times and idle memory; the first start warms the disk's and Python's caches and is not counted."""
    seconds: dict[str, list[float]] = {"start to the first /livez": [], "start to the first embedded answer": []}
    memory: dict[str, list[float]] = {"server, idle": [], "server, after an answer": [], "embedded model's process": []}
    for number in range(rounds + 1):
        with serving(folder, None, set()) as server:
            server.get("/livez")
            ready_s, idle_mb = server.since_start_s(), server.rss_mb()
            server.ask("auto")
            if number > 0:
                _add(seconds, ready_s, server.since_start_s())
                _add(memory, idle_mb, server.rss_mb(), server.child_rss_mb())
        if number > 0 and time.monotonic() > until:
            break
    _table("start and memory", {f"{name}, s": values for name, values in seconds.items()}, ".2f")
    _table("", {f"{name}, MB": values for name, values in memory.items()}, ".0f")


def _requests(folder: Path, cases: tuple[Case, ...], rounds: int, until: float) -> None:
    """CPU per request with the server on a core of its own."""
    core, others = _cores()
    labels: dict[str, str] = {}
    noise: list[float] = []
    cpu_us: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    busy: dict[str, list[float]] = {}
    with on_cores(others), spawn() as upstream, serving(folder, upstream.url, core) as server:
        for number in range(rounds + 1):
            noise.append(_fixed_work_ms(core))
            for case in cases:
                before_s = server.cpu_s()
                done = asyncio.run(run(server.port, case, CONNECTIONS))
                used_s = server.cpu_s() - before_s
                if number > 0:  # the first round warms
                    name = labels.setdefault(case.name, f"{case.name}, {done.answer_bytes / 1000:.0f} kB")
                    cpu_us.setdefault(name, []).append(used_s / done.requests * 1e6)
                    rates.setdefault(name, []).append(done.requests / done.wall_s)
                    busy.setdefault(name, []).append(used_s / done.wall_s * 100)
            if number > 0 and time.monotonic() > until:
                break
        _table("CPU of the server per request, µs", cpu_us, ".0f")
        _table("requests per second, everything on this machine", rates, ".0f")
        _table("how busy the server's core was meanwhile, %", busy, ".0f")
        _table("memory", {"server, after all of this, MB": [server.rss_mb()]}, ".0f")
        _check_metered(server, cases, len(noise))
    _table("noise of the machine", {"the same work in plain Python, ms of CPU": noise}, ".1f")


def _check_metered(server: Server, cases: tuple[Case, ...], rounds: int) -> None:
    """Figures without the ledger would be another product's."""
    sent = rounds * sum(case.requests for case in cases)
    if f'"calls":{sent},"successes":{sent},'.encode() not in server.get("/v1/usage"):
        raise RuntimeError(f"the ledger has not {sent} successful calls")


def _cores() -> tuple[set[int], set[int]]:
    """The server's core and the others; both empty where processes cannot be kept apart."""
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
    return (set(cores[:1]), set(cores[1:])) if len(cores) > 1 else (set(), set())


def _fixed_work_ms(core: set[int]) -> float:
    """CPU time of work that is always the same, on the server's core: what differs is the machine."""
    with on_cores(core):
        started = time.process_time()
        sum(number * number for number in range(300_000))
        return (time.process_time() - started) * 1000


def _add(columns: dict[str, list[float]], *values: float) -> None:
    for column, value in zip(columns.values(), values, strict=True):
        column.append(value)


def _table(title: str, rows: dict[str, list[float]], form: str) -> None:
    if title:
        print(f"\n{title:<54}{'median':>9}{'min':>9}{'max':>9}{'runs':>6}")
    for name, values in rows.items():
        figures = "".join(f"{value:>9{form}}" for value in (statistics.median(values), min(values), max(values)))
        print(f"  {name:<52}{figures}{len(values):>6}")


def _machine() -> str:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"
    version = sys.version.split()[0]
    return f"{datetime.now(UTC):%Y-%m-%d}, Python {version}, {os.cpu_count()} cores, load before: {load}"


if __name__ == "__main__":
    main()
