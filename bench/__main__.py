"""Orchestrates: `python -m bench [--quick] [--peers] [--seconds N]` prints what a request, a start and an idle server
cost; with `--peers` also what a request costs other gateways in the same run.

CPU is that of the gateway's processes alone. The load generator is this process, the upstream one more, on other cores
where there are any. Rounds of all cases and gateways take turns, so a slow minute of the machine hits each of them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from bench.answers import Case
from bench.process import leave_on_sigterm
from bench.product import Product, serving
from bench.report import lines, table
from bench.tensorzero import TensorZero
from bench.trials import Gateway, Plan, measure

CASES = (
    Case("whole answer", "whole", False, 4000),
    Case("stream of 200 events, in few writes", "few", True, 800),
    Case("stream of 200 events, a write each", "each", True, 400),
)
QUICK = tuple(replace(case, requests=case.requests // 8) for case in CASES)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small round of everything: does it run at all?")
    parser.add_argument("--peers", action="store_true", help="measure other gateways too, instead of starts and memory")
    parser.add_argument("--seconds", type=float, default=60, help="no new round begins after so long (default 60)")
    options = parser.parse_args()
    leave_on_sigterm()
    until = time.monotonic() + options.seconds
    print(_machine())
    product = Product()
    gateways: list[Gateway] = [product]
    if options.peers:
        gateways.append(TensorZero())
    else:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            _starts(Path(folder), 1 if options.quick else 7, until - options.seconds / 2)
    return run(gateways, quick=options.quick, until=until)


def run(gateways: Sequence[Gateway], *, quick: bool, until: float) -> int:
    """Prints what requests cost at each of them, with the first as the one that others are compared with."""
    core, others = _cores()
    plan = Plan(QUICK if quick else CASES, 1 if quick else 7, 1 if quick else 3, until, core, others)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        results = measure(Path(folder), gateways, plan)
    for line in lines(results, gateways[0].name):
        print(line)
    failed = {name for _, name in results.errors} | results.not_served.keys()
    return 1 if gateways[0].name in failed else 0


def _starts(folder: Path, rounds: int, until: float) -> None:
    """Start-up times and idle memory; the first start warms the disk's and Python's caches and is not counted."""
    seconds: dict[str, list[float]] = {"start to the first /livez": [], "start to the first embedded answer": []}
    memory: dict[str, list[float]] = {"server, idle": [], "server, after an answer": [], "embedded model's process": []}
    for number in range(rounds + 1):
        with serving(folder, None, set()) as server:
            server.get("/livez")
            ready_s, idle_mb = server.process.since_start_s(), server.process.rss_mb()
            server.ask("auto")
            if number > 0:
                _add(seconds, ready_s, server.process.since_start_s())
                _add(memory, idle_mb, server.process.rss_mb(), server.process.child_rss_mb())
        if number > 0 and time.monotonic() > until:
            break
    for line in table("start and memory", {f"{name}, s": values for name, values in seconds.items()}, ".2f"):
        print(line)
    for line in table("", {f"{name}, MB": values for name, values in memory.items()}, ".0f"):
        print(line)


def _cores() -> tuple[set[int], set[int]]:
    """The gateway's core and the others; both empty where processes cannot be kept apart."""
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
    return (set(cores[:1]), set(cores[1:])) if len(cores) > 1 else (set(), set())


def _add(columns: dict[str, list[float]], *values: float) -> None:
    for column, value in zip(columns.values(), values, strict=True):
        column.append(value)


def _machine() -> str:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"
    version = sys.version.split()[0]
    return f"{datetime.now(UTC):%Y-%m-%d}, Python {version}, {os.cpu_count()} cores, load before: {load}"


if __name__ == "__main__":
    sys.exit(main())
