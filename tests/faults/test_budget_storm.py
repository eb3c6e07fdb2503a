"""A hard budget under a storm: many calls at a time from two processes, streams, failures and clients that leave."""

from __future__ import annotations

import asyncio
import faulthandler
import json
import random
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.faults.books import budgets, files, rows
from tests.faults.talking import ask, talk
from tests.serving import spawned
from tests.upstream import spawn

NANO = 1_000_000_000
AT_ONCE = 200
MODELS = (
    "fake/ok(n_tokens={n},delay=0.02)",
    "fake/ok(n_tokens={n},pace=0.001)",
    "fake/flap(p=0.5,n_tokens={n},seed={n})",
    "fake/cut_rst(k=3,n_tokens={n})",
    "single/ok(n_tokens={n})",
)


class Watch(threading.Thread):
    """Looks at the database all the time, as another process would: each look is one moment."""

    def __init__(self, folder: Path, limit_nano: int) -> None:
        super().__init__(daemon=True)
        self.looks = 0
        self.most = 0
        self.faults: list[str] = []
        self._folder = folder
        self._limit_nano = limit_nano
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.01):
            found = budgets(self._folder)
            spent, held = found.booked.get("daily", (0, 0))
            self.looks += 1
            self.most = max(self.most, spent + held)
            if spent + held > self._limit_nano or found.booked != found.expected:
                self.faults.append(f"{found}")

    def stop(self) -> None:
        self._done.set()
        self.join()


async def one_call(port: int, number: int, facts: Counter[str], wrong: list[Any]) -> None:
    """One random call. Some clients leave in the middle."""
    dice = random.Random(number)
    model = dice.choice(MODELS).format(n=dice.randrange(1, 60))
    stream, leaves = dice.random() < 0.5, dice.random() < 0.1
    fields: dict[str, Any] = {"n": 2} if model.startswith("single/") else {}
    if dice.random() < 0.95:
        fields["max_tokens"] = dice.randrange(1, 250)
    async with asyncio.timeout(60):
        if leaves:
            talking = await talk(port, model, stream=stream, **fields)
            await asyncio.sleep(dice.random() * 0.05)
            talking.close()
            facts["left"] += 1
            return
        heard = await ask(port, model, stream=stream, **fields)
    if heard.status != 429:
        facts[f"status {heard.status}"] += 1
        return
    figures = heard.error["metadata"]
    facts["refused"] += 1
    left = figures["limit_usd"] - figures["spent_usd"] - figures["held_usd"]
    if figures["bound_usd"] <= left:
        wrong.append(figures)


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_a_hard_budget_holds_at_every_moment(tmp_path: Path, count: int) -> None:
    """In every snapshot: spent and held stay within the limit, and what is reserved is the sum of the open holds."""
    faulthandler.cancel_dump_traceback_later()
    facts: Counter[str] = Counter()
    wrong: list[Any] = []
    limit_usd = 0.5 * count / 10_000
    budget = {"daily_usd": limit_usd, "per_provider": {"single": {"last_24h_usd": limit_usd / 8}}}
    with spawn() as upstream:
        routing_file = files(tmp_path, upstream.url, fake={"retries": 1}, budget=budget)
        prices = {"input": 0.2, "output": 2, "max_output": 4096}
        models = {"version": 1, "models": {"fake/*": prices, "single/*": prices}}
        (tmp_path / "pricing.yaml").write_text(json.dumps(models))
        places = asyncio.Semaphore(AT_ONCE)

        async def in_turn(port: int, number: int) -> None:
            async with places:
                await one_call(port, number, facts, wrong)

        with spawned(routing_file, "--workers", "2") as server:
            watch = Watch(tmp_path, round(limit_usd * NANO))
            watch.start()
            await asyncio.gather(*(in_turn(server.port, number) for number in range(count)))
            watch.stop()
            assert await asyncio.to_thread(server.stop) == 0
        with spawned(routing_file) as last:
            await asyncio.to_thread(last.stop)
    found = budgets(tmp_path)
    (spent, held) = found.booked["daily"]
    outcomes = Counter(row["outcome"] for row in rows(tmp_path, "calls"))
    print(f"\n  {count} calls, {AT_ONCE} at a time, ${limit_usd}: {dict(facts)}; {dict(outcomes)}")
    print(f"  {watch.looks} looks; at most ${watch.most / NANO:.6f} spent and held; in the end ${spent / NANO:.6f}")
    assert (watch.faults, wrong) == ([], [])
    assert held == 0
    assert found.booked == found.expected
    assert watch.most > 0.9 * limit_usd * NANO
    assert facts["refused"] > 0
