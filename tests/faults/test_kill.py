"""kill -9 at random moments under load: no request is lost from the books, none is counted twice.

`KILLS=500 scripts/test -s tests/faults/test_kill.py` kills more often than the 200 times of a slow run.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import random
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.faults.books import assert_sums, attempts_by_call, budgets, files, reconcile, rows
from tests.faults.talking import Heard, ask
from tests.serving import Spawned, spawned
from tests.upstream import Seen, spawn
from tests.waiting import PATIENCE_S

CALLERS = 12
KILLS = int(os.environ.get("KILLS", "200"))
BUDGET = {"total_usd": 1000, "last_24h_usd": 1000, "per_provider": {"fake": {"daily_usd": 1000}}}
MODELS = (
    "fake/ok(n_tokens={n},pace=0.002)",
    "fake/ok(n_tokens={n},delay=0.03)",
    "fake/slow_usage(s=0.05,n_tokens={n})",
    "fake/fast(n_tokens={n})",
    "fake/tools(n=2,n_tokens={n})",
    "fake/flap(p=0.7,n_tokens={n},seed={n})",
    "single/ok(n_tokens={n},pace=0.002)",  # asked for three choices: three requests at once
)


class Load:
    """Callers that keep asking the current server at `port`. `finished`: the answers whose end they saw."""

    def __init__(self, seed: int) -> None:
        self.port = 0
        self.finished: dict[str, Heard] = {}
        self.asked = self.broken = 0
        self._seed = seed

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(CALLERS):
                group.create_task(self._call_on(random.Random(f"{self._seed}:{number}")))

    async def _call_on(self, dice: random.Random) -> None:
        while True:
            model = dice.choice(MODELS).format(n=dice.randrange(1, 60))
            stream = dice.random() < 0.6
            options: dict[str, Any] = {"stream_options": {"include_usage": True}} if stream else {}
            if model.startswith("single/"):
                options["n"] = 3
            try:
                async with asyncio.timeout(30):
                    heard = await ask(self.port, model, stream=stream, **options)
            except ConnectionError:
                await asyncio.sleep(0.01)  # between two servers
                continue
            self.asked += 1
            if heard.status == 200 and heard.whole and (heard.done or not stream):
                self.finished[heard.call_id] = heard
            elif heard.status in (0, 200):
                self.broken += 1
                await asyncio.sleep(0.01)


class Killing:
    """Servers on one database, each killed while the next one starts."""

    def __init__(self, routing_file: Path, load: Load, seed: int, scratch: str) -> None:
        self.dice = random.Random(seed)
        self.orphans: list[psutil.Process] = []
        self._routing_file = routing_file
        self._scratch = scratch
        self._load = load

    async def rounds(self, count: int) -> None:
        """Every fifth server has two workers: one of them is killed, then their supervisor."""
        with ExitStack() as stack:
            next_one = self._start(stack, workers=1)
            for number in range(1, count + 1):
                server = await next_one
                next_one = self._start(stack, workers=2 if number % 5 == 0 else 1)
                await ask(server.port, "fake/ok")  # it answers
                self._load.port = server.port
                await asyncio.sleep(self.dice.uniform(0.02, 0.5))
                await self._kill(server)
            (await next_one).kill()

    def _start(self, stack: ExitStack, workers: int) -> asyncio.Future[Spawned]:
        # What the last supervisor leaves behind goes with this folder.
        environ = {"TMPDIR": self._scratch}
        made = spawned(self._routing_file, "--workers", str(workers), environ=environ)
        return asyncio.ensure_future(asyncio.to_thread(stack.enter_context, made))

    async def _kill(self, server: Spawned) -> None:
        children = psutil.Process(server.process.pid).children()
        workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        if workers:
            self.dice.choice(workers).kill()
            await asyncio.sleep(self.dice.uniform(0, 0.3))
        self.orphans += workers
        server.kill()


def report(folder: Path, count: int, load: Load, seen: list[Seen], took_s: float) -> None:
    tally = reconcile(folder, seen)
    ends = Counter(row["outcome"] for row in rows(folder, "calls"))
    facts = {
        "kills": count,
        "answers whose end was seen": len(load.finished),
        "answers that broke off": load.broken,
        "requests upstream": tally.requests,
        "attempt rows": tally.rows,
        "lost": len(tally.lost),
        "duplicated": len(tally.duplicated),
        **{f"calls {outcome}": number for outcome, number in sorted(ends.items())},
        "seconds": round(took_s),
    }
    print("\n" + "\n".join(f"  {name:<28}{value:>8}" for name, value in facts.items()))


def check(folder: Path, load: Load, seen: list[Seen]) -> None:
    """Each promise of the ledger, row by row."""
    tally = reconcile(folder, seen)
    assert (tally.lost, tally.duplicated) == ([], [])
    sent = {each.id: each.usage for each in seen}
    calls = {row["id"]: row for row in rows(folder, "calls")}
    attempts = attempts_by_call(folder)
    for call_id, heard in load.finished.items():
        call, usage = calls[call_id], heard.usage
        assert usage is not None
        assert (call["outcome"], call["estimated"]) == ("ok", 0)
        told = (usage["prompt_tokens"], usage["completion_tokens"])
        assert told == (call["input_tokens"], call["output_tokens"])
    for call_id, call in calls.items():
        own = attempts[call_id]
        if call["outcome"] == "ok":
            answers = [sent[each["id"]] or {} for each in own if each["outcome"] == "ok"]
            told = tuple(sum(usage[name] for usage in answers) for name in ("prompt_tokens", "completion_tokens"))
            assert told == (call["input_tokens"], call["output_tokens"])
        else:
            assert call["outcome"] in ("unknown", "upstream_error", "cancelled", "client_closed")
        for each in own:
            if each["outcome"] == "unknown":
                assert each["cost_nano"] == each["hold_nano"] > 0
    unsent = [row for each in attempts.values() for row in each if row["id"] not in sent]
    assert {row["outcome"] for row in unsent} <= {"unknown", "cancelled"}
    assert_sums(folder)
    found = budgets(folder)
    assert found.booked == found.expected
    assert {held for _, held in found.booked.values()} == {0}


@pytest.mark.parametrize("count", [2, pytest.param(KILLS, marks=pytest.mark.slow)])
async def test_no_kill_loses_or_doubles_a_request(tmp_path: Path, count: int) -> None:
    """Each upstream request has its row, each finished answer its exact usage; open calls become `unknown`."""
    faulthandler.cancel_dump_traceback_later()  # two hundred kills take longer than a test usually may
    begun = time.monotonic()
    load = Load(seed=count)
    with spawn() as upstream, tempfile.TemporaryDirectory() as scratch:
        routing_file = files(tmp_path, upstream.url, fake={"retries": 1}, grace_s=2, budget=BUDGET)
        killing = Killing(routing_file, load, count, scratch)
        calling = asyncio.create_task(load.run())
        await killing.rounds(count)
        calling.cancel()
        await asyncio.wait([calling])
        _, alive = await asyncio.to_thread(psutil.wait_procs, killing.orphans, 10)
        assert alive == []
        left = [name for name in os.listdir(scratch) if name.startswith("multi-model-proxy-")]
        assert len(left) <= 1  # the last supervisor's: each removes what one that was killed before it left
        with spawned(routing_file) as last:
            async with httpx.AsyncClient(base_url=last.base_url, trust_env=False, timeout=PATIENCE_S) as client:
                usage = (await client.get("/usage")).json()
            assert await asyncio.to_thread(last.stop) == 0
        seen = await asyncio.to_thread(upstream.ledger)
    report(tmp_path, count, load, seen, time.monotonic() - begun)
    check(tmp_path, load, seen)
    assert usage["total"]["calls"] == len(rows(tmp_path, "calls"))
    assert len(load.finished) > count
