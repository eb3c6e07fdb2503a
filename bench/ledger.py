"""Performs I/O: `python -m bench.ledger`: how many calls a second the ledger commits, and what it adds to each.

Callers open a call and settle it, again and again, on a database in the working directory. Nothing else happens, so the
figures are those of the ledger alone: its thread, its commits, and the wake-ups of those who wait.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from proxy.metering.ledger import Ledger
from proxy.schema.records import AttemptEnd, AttemptOpen, CallEnd, CallOpen, Charge, Outcome, Tokens
from proxy.storage.sqlite import SqliteStore

SECONDS = 3.0
WINDOWS = tuple(Charge(name, 0, 0, 10**18) for name in ("daily", "monthly", "key app daily"))
PROMPT, ANSWER = 400, 200  # tokens


async def call(ledger: Ledger, number: str, charges: tuple[Charge, ...]) -> float:
    """Milliseconds that the ledger adds to a call: until it may be sent, and until its answer may end."""
    begun = time.perf_counter()
    now_ns = time.time_ns()
    opening = AttemptOpen(f"{number}-1", number, 1, "openai", "gpt-6-luna", now_ns, 5_000_000, "v1")
    await ledger.open(CallOpen(number, now_ns, "app", "auto", False, charges=charges), opening)
    used = Tokens(input=PROMPT, output=ANSWER)
    ledger.end(AttemptEnd(opening.id, number, Outcome.OK, 200, tokens=used, usage_source="provider", cost_nano=90_000))
    await ledger.settle(CallEnd(number, Outcome.OK, 200, latency_ms=300.0))
    return (time.perf_counter() - begun) * 1000


async def measured(durability: str, callers: int, charges: tuple[Charge, ...]) -> tuple[float, list[float], float]:
    """Calls a second, the milliseconds of each, and calls per commit."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        ledger = Ledger(SqliteStore(Path(folder) / "bench.db", durability=durability))
        await ledger.start()
        took: list[float] = []
        until = time.perf_counter() + SECONDS

        async def caller(place: int) -> None:
            number = 0
            while time.perf_counter() < until:
                number += 1
                took.append(await call(ledger, f"{place:04d}{number:022d}", charges))

        await asyncio.gather(*(caller(place) for place in range(callers)))
        commits = ledger.state.commits
        await ledger.stop()
    return len(took) / SECONDS, took, 2 * len(took) / commits


def main() -> None:
    print("| durability | callers | windows | calls/s | added p50 | added p99 | commits shared by |")
    print("|---|---|---|---|---|---|---|")
    for durability in ("process", "power"):
        for callers in (1, 32, 256):
            for charges in ((), WINDOWS):
                rate, took, shared = asyncio.run(measured(durability, callers, charges))
                p99 = statistics.quantiles(took, n=100)[98]
                print(
                    f"| `{durability}` | {callers} | {len(charges)} | {rate:,.0f} | {statistics.median(took):.2f} ms"
                    f" | {p99:.2f} ms | {shared:.1f} |"
                )


if __name__ == "__main__":
    main()
