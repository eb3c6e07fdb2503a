"""Failing providers under calls that begin at fixed times, whether or not earlier ones have ended (R14, R15).

In a closed loop slow errors slow the load down, which hides an amplification. With `OPEN_LOOP=full` the rates and times
are those of the tables in docs/resilience.md; it takes minutes.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from tests.faults.books import attempts_by_call, reconcile
from tests.faults.talking import Heard, ask
from tests.faults.test_resilience import FAILURES, NAMES, Load, Way, configured
from tests.serving import serving
from tests.upstream import FakeUpstream

FULL = os.environ.get("OPEN_LOOP") == "full"
PER_S, OUTAGE_S, RECOVERY_S = (100, 30.0, 10.0) if FULL else (40, 5.0, 7.0)
ONE_FAILS_S = 20.0 if FULL else 4.0
DELAY_S = 2 if FULL else 0.5  # as shipped, or shorter
RECOVERED_S = 5.0  # R14: after it every call is answered


class Begun(Struct):
    """One call: when it began and ended, in seconds since the first."""

    at: float
    ended: float
    heard: Heard

    @property
    def is_answered(self) -> bool:
        return self.heard.status == 200 and self.heard.finish_reasons == ["stop"]


async def open_loop(port: int, seconds: float, **fields: Any) -> list[Begun]:
    """PER_S calls a second, half of them streams, by turns from each provider."""
    origin = time.monotonic()

    async def one(number: int) -> Begun:
        at = time.monotonic() - origin
        heard = await ask(port, f"from-{NAMES[number % 3]}", stream=number % 2 == 0, max_tokens=10, **fields)
        return Begun(at, time.monotonic() - origin, heard)

    tasks = []
    for number in range(int(PER_S * seconds)):
        await asyncio.sleep(max(0.0, origin + number / PER_S - time.monotonic()))
        tasks.append(asyncio.create_task(one(number)))
    return list(await asyncio.gather(*tasks))


def p99_ms(begun: list[Begun]) -> float:
    times = sorted(each.ended - each.at for each in begun)
    return times[min(len(times) - 1, int(0.99 * len(times)))] * 1000


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[list[str]]:
    """The lines of the tables in docs/resilience.md, printed at the end (`-s` shows them)."""
    lines: list[str] = []
    yield lines
    print("\n".join(["", *lines]))


@pytest.mark.slow
async def test_an_outage_of_all_is_not_amplified(tmp_path: Path, table: list[str]) -> None:
    """R14: at most 1.2 attempts for each call that came to an upstream, and three; at most four attempts of a call; no
    slow errors; all is well five seconds after the outage.
    """
    modes = dict.fromkeys(NAMES, "e500")
    async with (
        FakeUpstream(modes=modes) as upstream,
        serving(configured(tmp_path, dict.fromkeys(NAMES, upstream.url), retry_delay_s=DELAY_S)) as server,
    ):
        asyncio.get_running_loop().call_later(OUTAGE_S, upstream.modes.update, dict.fromkeys(NAMES, "ok"))
        begun = await open_loop(server.port, OUTAGE_S + RECOVERY_S)
        tally = reconcile(tmp_path, upstream.ledger)
    assert (tally.lost, tally.duplicated) == ([], [])
    failed = [each for each in begun if each.ended < OUTAGE_S]
    borne = Load(Counter(), Counter())
    borne.add(tmp_path, {each.heard.call_id for each in failed})
    borne.assert_bounded()
    assert {each.heard.status for each in failed} == {503}
    assert p99_ms(failed) < 2000
    assert all(each.is_answered for each in begun if each.at > OUTAGE_S + RECOVERED_S)
    recovered_s = max(each.at for each in begun if not each.is_answered) - OUTAGE_S
    worst = max(borne.attempts[name] / borne.meant[name] for name in NAMES)
    attempts = f"{sum(borne.attempts.values()) / len(failed):.2f} | {worst:.2f} | {borne.most}"
    table.append(f"| {len(failed)} | {attempts} | {p99_ms(failed):.0f} | {max(0.0, recovered_s):.1f} |")


WAYS = (
    Way("500, every request", "e500"),
    Way("500, 30 % of the requests", "flap(p=0.7)"),
    Way("3 s to the first token", "slow_ttft(s=3)"),
    Way("connection reset", "cut_rst(k=-1)"),
    Way("429, Retry-After 20", "e429(retry_after=20)"),
)


@pytest.mark.parametrize("way", WAYS, ids=[way.name for way in WAYS])
@pytest.mark.slow
async def test_one_failing_provider_is_ejected_early(tmp_path: Path, way: Way, table: list[str]) -> None:
    """R15: after five failures or two seconds, while the others answer; a 429's time is kept."""
    modes = {**dict.fromkeys(NAMES, "ok"), "one": way.mode or ""}
    async with (
        FakeUpstream(modes=modes) as upstream,
        serving(configured(tmp_path, dict.fromkeys(NAMES, upstream.url), retry_delay_s=DELAY_S)) as server,
    ):
        begun = await open_loop(server.port, ONE_FAILS_S)
        tally = reconcile(tmp_path, upstream.ledger)
    assert (tally.lost, tally.duplicated) == ([], [])
    attempts = [each for rows in attempts_by_call(tmp_path).values() for each in rows if each["provider"] == "one"]
    failures = sorted(each["closed_ns"] for each in attempts if each["outcome"] != "ok")
    first, last = min(each["opened_ns"] for each in attempts), max(each["opened_ns"] for each in attempts)
    ejected_ns = failures[0] if "429" in way.name else failures[FAILURES - 1]
    late = [each["opened_ns"] - ejected_ns for each in attempts if each["opened_ns"] > ejected_ns]
    soon = [each for each in late if each < 19e9] if "429" in way.name else late  # its 20 s are over in a full run
    assert len(soon) <= 3 and all(each < 1e9 for each in soon)  # those that were being sent
    assert all(each.is_answered for each in begun)
    answered = 100 * sum(each.is_answered for each in begun) / len(begun)
    found = f"{len(failures)} of {len(attempts)} | {(last - first) / 1e9:.1f}"
    table.append(f"| {way.name} | {len(begun)} | {answered:.1f} % | {found} |")


@pytest.mark.slow
async def test_a_provider_that_recovers_is_readmitted_with_a_single_probe(tmp_path: Path) -> None:
    """R15: until the probe is answered, all other calls go elsewhere."""
    upstream = FakeUpstream(modes={**dict.fromkeys(NAMES, "ok"), "one": "e500"})
    breaker = {"failures": FAILURES, "open_s": 1.0}
    async with upstream, serving(configured(tmp_path, dict.fromkeys(NAMES, upstream.url), breaker=breaker)) as server:
        asyncio.get_running_loop().call_later(0.7, upstream.modes.update, {"one": "ok(delay=0.5)"})
        begun = await open_loop(server.port, 4.0)
        begun += await open_loop(server.port, 1.0)
    assert all(each.is_answered for each in begun)
    attempts = [each for rows in attempts_by_call(tmp_path).values() for each in rows if each["provider"] == "one"]
    attempts.sort(key=lambda each: each["opened_ns"])
    failures = [each["closed_ns"] for each in attempts if each["outcome"] != "ok"]
    probe = next(each for each in attempts if each["outcome"] == "ok")
    during = [each for each in attempts if probe["opened_ns"] < each["opened_ns"] < probe["closed_ns"]]
    assert (len(failures) >= FAILURES, during) == (True, [])
    assert len(attempts) > len(failures) + 5
