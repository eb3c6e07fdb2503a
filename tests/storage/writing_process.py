"""A process of its own that uses the ledger: `python -m tests.storage.writing_process MODE DATABASE PREFIX`.

`endless` prints each call's number once it is settled, until it is killed. `paced` writes 200 calls in a second and
prints the slowest admission in milliseconds. `once` writes one call. `full` meets a disk without room for more, which
then has room again.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from itertools import count
from pathlib import Path

import structlog

from proxy.metering.ledger import Ledger
from proxy.metering.writer import Waits
from proxy.schema.errors import StorageUnavailable
from proxy.schema.records import Outcome, Tokens
from proxy.storage.sqlite import SqliteStore
from tests.storage.samples import attempt, attempt_end, call, call_end


async def endless(ledger: Ledger, prefix: str) -> None:
    """Eight calls at a time; each third call needs a second attempt."""
    numbers = count()

    async def caller() -> None:
        for number in numbers:
            name = f"{prefix}-{number:06}"
            end = attempt_end(name, tokens=Tokens(input=number, output=1), cost_nano=number)
            await ledger.open(call(name), attempt(name))
            if number % 3 == 0:
                ledger.end(attempt_end(name, outcome=Outcome.UPSTREAM_ERROR, cost_nano=7))
                await ledger.intend(attempt(name, 2))
                end = attempt_end(name, 2, tokens=Tokens(input=number, output=1), cost_nano=number)
            await asyncio.sleep(0)
            ledger.end(end)
            await ledger.settle(call_end(name))
            print(number, flush=True)

    await asyncio.gather(*(caller() for _ in range(8)))


async def paced(ledger: Ledger, prefix: str) -> None:
    slowest_s = 0.0
    begun = time.monotonic()
    for number in range(200):
        name = f"{prefix}-{number:06}"
        before = time.monotonic()
        await ledger.open(call(name), attempt(name))
        slowest_s = max(slowest_s, time.monotonic() - before)
        ledger.end(attempt_end(name))
        await ledger.settle(call_end(name))
        await asyncio.sleep(max(0.0, begun + (number + 1) * 0.005 - time.monotonic()))
    print(slowest_s * 1000, flush=True)


async def once(ledger: Ledger, prefix: str) -> None:
    await ledger.open(call(prefix), attempt(prefix))
    ledger.end(attempt_end(prefix))
    await ledger.settle(call_end(prefix))


async def full(ledger: Ledger, prefix: str) -> None:
    """Prints what happened to an open, whether the settle before it came through in the end, and to the last open."""
    await ledger.open(call("before"), attempt("before"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))
    try:
        await ledger.open(call("during"), attempt("during"))
        print("during: open")
    except StorageUnavailable:
        print("during: refused")
    ledger.end(attempt_end("before"))
    await ledger.settle(call_end("before"))
    print("degraded:", ledger.state.degraded)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    while ledger.state.degraded:  # noqa: ASYNC110 - it is the writer thread that recovers
        await asyncio.sleep(0.01)
    await ledger.open(call("after"), attempt("after"))
    ledger.end(attempt_end("after"))
    await ledger.settle(call_end("after"))
    print("after: settled", flush=True)


async def main(mode: str, database: str, prefix: str) -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    # Who reads the output takes a settle that returned for a committed one: wait for it, however slow the machine.
    settle_s = 0.05 if mode == "full" else 60
    ledger = Ledger(SqliteStore(Path(database)), waits=Waits(settle=settle_s, retry=0.05, sweep=0.5))
    await ledger.start()
    await {"endless": endless, "paced": paced, "once": once, "full": full}[mode](ledger, prefix)
    await ledger.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
