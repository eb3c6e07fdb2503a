"""Orchestrates: `scripts/bench [--quick] [--peers] [--seconds N] [--write]` prints what a request, a start and an idle
server cost, and how that stands to the goals; with `--peers` also what a request costs other gateways in the same run.

CPU is that of the gateway's processes alone. The load generator is this process, the upstream one more, on other cores
where there are any. Rounds of all cases and gateways take turns, so a slow minute of the machine hits each of them.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from bench import page, states
from bench.cases import CASES, Case
from bench.direct import Direct
from bench.goals import TWO_WORKERS, Run
from bench.peers import peers
from bench.process import leave_on_sigterm
from bench.product import Product
from bench.report import lines
from bench.trials import Gateway, Plan, measure


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small round of everything: does it run at all?")
    parser.add_argument("--peers", action="store_true", help="measure other gateways too; installs them on first use")
    parser.add_argument("--seconds", type=float, default=60, help="no fourth round begins after so long (default 60)")
    parser.add_argument("--write", action="store_true", help="renew the figures and the plot of docs/performance.md")
    options = parser.parse_args()
    leave_on_sigterm()
    _allow_many_files()
    gateways: list[Gateway] = [Product(), Product(TWO_WORKERS, workers=2), Direct()]
    if options.peers:
        gateways += peers()
    run = measured(gateways, CASES, quick=options.quick, seconds=options.seconds)
    for line in lines(run):
        print(line)
    if options.write:
        page.write(run)
    own = gateways[0].name
    return 1 if own in run.results.not_served or any(own in errors for errors in run.results.errors.values()) else 0


def measured(gateways: Sequence[Gateway], cases: Sequence[Case], *, quick: bool, seconds: float) -> Run:
    """Everything, in one run."""
    machine, load = _machine(), ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{machine}, load before: {load}", flush=True)
    started = states.starts(1 if quick else 5, time.monotonic() + seconds / 2)
    reads = {str(calls): states.usage_ms(calls) for calls in states.CALLS[: 1 if quick else None]}
    core, others = _cores()
    if quick:
        cases = [replace(case, requests=max(1, case.requests // 8)) for case in cases]
    plan = Plan(cases, 1 if quick else 7, 1 if quick else 3, time.monotonic() + seconds, core, others)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        results = measure(Path(folder), gateways, plan)
    return Run(f"{datetime.now(UTC):%-d %B %Y}", machine, load, results, started, reads)


def _cores() -> tuple[set[int], set[int]]:
    """The gateway's core and the others; both empty where processes cannot be kept apart."""
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
    return (set(cores[:1]), set(cores[1:])) if len(cores) > 1 else (set(), set())


def _allow_many_files() -> None:
    """A thousand open streams take as many descriptors here and at the upstream, which inherits this limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _machine() -> str:
    processor, about = "", Path("/proc/cpuinfo")
    if about.exists() and (found := re.search(r"^model name\s*: (.+)$", about.read_text(), re.MULTILINE)):
        processor = f" ({found[1].strip()})"
    system = f"{platform.system()} {platform.machine()}"
    return f"{system}, {os.cpu_count()} cores{processor}, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main())
