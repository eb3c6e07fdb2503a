"""Orchestrates: `scripts/soak [--minutes 30]`. Exit code 1 if the server leaks, or if the books differ.

The server is a process of its own behind a real socket; so is the fake upstream. Load comes in bursts: between two of
them, with no request in flight, the server is sampled and the upstream's ledger is emptied.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import psutil

from bench.process import leave_on_sigterm
from bench.soak.load import Load
from bench.soak.verdict import Books, Sample, findings, table
from tests.faults.books import files, reconcile
from tests.serving import Spawned, spawned
from tests.upstream import Seen, spawn
from tests.upstream import Spawned as Upstream

_QUIET_S = 15
_TIMEOUTS = {"connect": 2.0, "first_token": 2.0, "idle": 1.0, "total": 5.0}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="length of the run (default 30)")
    parser.add_argument("--interval", type=float, default=10, help="seconds between two samples (default 10)")
    parser.add_argument("--rate", type=float, default=40, help="requests per second (default 40)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    leave_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, ExitStack() as stack:
        upstream = stack.enter_context(spawn())
        routing_file = files(Path(folder), upstream.url, fake={"timeout_s": _TIMEOUTS})
        server = stack.enter_context(spawned(routing_file, "--log-format", "json"))
        load = Load(server.port, options.seed, options.rate)
        samples, seen = asyncio.run(_soak(server, upstream, load, options.minutes, options.interval))
        exit_code = server.stop()
        return _report(samples, _books(Path(folder), seen, len(load.unanswered)), load, exit_code)


async def _soak(
    server: Spawned, upstream: Upstream, load: Load, minutes: float, interval_s: float
) -> tuple[list[Sample], list[Seen]]:
    """Samples, and every request that the upstream saw."""
    process = psutil.Process(server.process.pid)
    started = time.monotonic()
    samples: list[Sample] = []
    seen: list[Seen] = []
    while time.monotonic() - started < minutes * 60:
        await load.burst(interval_s)
        await _quiet(server, upstream)
        seen += await asyncio.to_thread(_emptied, upstream)
        samples.append(_sample(process, server.port, upstream.connections(), (time.monotonic() - started) / 60))
        print(table(samples[-1:]).splitlines()[-1], flush=True)
    return samples, seen


async def _quiet(server: Spawned, upstream: Upstream) -> None:
    """Waits until no request is in flight, here or there. Raises TimeoutError: one never ended."""
    async with asyncio.timeout(_QUIET_S):
        while _gauge(server.port, "mmproxy_in_flight_requests") or upstream.open():  # noqa: ASYNC110 - two processes
            await asyncio.sleep(0.05)


def _emptied(upstream: Upstream) -> list[Seen]:
    """The upstream's ledger so far, without what takes memory; it starts anew."""
    seen = upstream.ledger()
    upstream.reset()
    for each in seen:
        each.headers = {}
    return seen


def _sample(process: psutil.Process, port: int, kept: int, minute: float) -> Sample:
    with process.oneshot():
        rss = process.memory_info().rss / 2**20
        threads = process.num_threads()
    return Sample(minute, rss, _gauge(port, "mmproxy_tasks"), process.num_fds(), threads, kept)


def _gauge(port: int, name: str) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        found = re.search(rf"^{name} (\d+)", answer.read().decode(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/metrics has no {name}")
    return int(found[1])


def _books(folder: Path, seen: list[Seen], unanswered: int) -> Books:
    """The two ledgers side by side, after the server's end."""
    tally = reconcile(folder, seen)
    return Books(tally.requests, tally.rows, tally.unsent, len(tally.lost), len(tally.duplicated), unanswered)


def _report(samples: list[Sample], books: Books, load: Load, exit_code: int) -> int:
    print(f"\nwhat {load.heard.total()} clients met")
    for what, count in sorted(load.heard.items()):
        print(f"  {what:<40}{count:>8}")
    for error in load.unanswered[:5]:
        print(f"  {error}")
    print(f"\n{table(samples)}\n")
    found = findings(samples, books)
    for each in found:
        print(f"  {'-' if each.ok is None else 'ok' if each.ok else 'FAILED':<8}{each.what:<56}{each.figure}")
    ok = all(each.ok is not False for each in found) and exit_code == 0
    print(f"\nthe server's exit code: {exit_code}; soak {'passed' if ok else 'FAILED'}")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
