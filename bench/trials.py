"""Orchestrates: gateways in turn, in random order, with the same requests before the same upstream."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from itertools import groupby
from pathlib import Path
from typing import Protocol

import uvloop
from msgspec import Struct
from msgspec.structs import replace

from bench.answers import WrongAnswer
from bench.cases import Case
from bench.load import Target, run
from bench.pacing import run_paced
from bench.process import NotServed, on_cores
from bench.upstream import upstream

_WARM_SHARE = 0.25


class Spent(Protocol):
    """What a gateway's processes use."""

    def cpu_s(self) -> float:
        """CPU seconds so far."""

    def memory_mb(self) -> float:
        """Resident memory of all of them."""


class Running(Protocol):
    """A gateway that serves."""

    @property
    def process(self) -> Spent: ...

    @property
    def target(self) -> Target: ...

    def check(self, answers: int) -> None:
        """Raises RuntimeError unless it knows of so many successful answers."""


class Gateway(Protocol):
    """What can be measured. `share`: of a round's requests; a slow one gets fewer, so that a run stays short."""

    name: str
    share: float

    def serves(self, case: Case) -> bool:
        """Whether it is measured in this case."""

    def serving(self, folder: Path, upstream_url: str, cores: set[int]) -> AbstractContextManager[Running]:
        """Starts it. Raises NotServed."""


class Trial(Struct, frozen=True, omit_defaults=True):
    """One gateway in one round of one case. For paced streams the latencies are those of the first event.

    `gap_p99_ms`: how much longer a pause between two events was than the upstream's; `open_mb`: memory while all
    streams were open.
    """

    cpu_us: float
    per_second: float
    p50_ms: float
    p99_ms: float
    busy_percent: float
    answer_bytes: int
    gap_p99_ms: float | None = None
    open_mb: float | None = None


class Results(Struct):
    """`trials` by case and by gateway, round by round. `not_served` and `errors`: why a gateway has no figures."""

    trials: dict[str, dict[str, list[Trial]]] = {}
    memory_mb: dict[str, float] = {}
    not_served: dict[str, str] = {}
    errors: dict[str, dict[str, str]] = {}
    fixed_work_ms: list[float] = []

    def of(self, case: Case, name: str) -> list[Trial]:
        """The trials of one gateway; none if there are no figures."""
        return self.trials.get(case.name, {}).get(name, [])


class Plan(Struct, frozen=True):
    """`rounds` at most and no new one after `until`, but at least `at_least`. A shorter round before them warms."""

    cases: Sequence[Case]
    rounds: int
    at_least: int
    until: float
    core: set[int]
    others: set[int]


def measure(folder: Path, gateways: Sequence[Gateway], plan: Plan) -> Results:
    """All trials. A gateway that cannot be served, or whose answers are wrong, has a reason in place of figures."""
    results = Results()
    with on_cores(plan.others), upstream() as url, ExitStack() as stack:
        running: dict[str, tuple[Gateway, Running]] = {}
        for gateway in gateways:
            try:
                running[gateway.name] = gateway, stack.enter_context(gateway.serving(folder, url, plan.core))
            except NotServed as reason:
                results.not_served[gateway.name] = str(reason)
        answered = dict.fromkeys(running, 0)
        for number in _rounds(plan):
            results.fixed_work_ms.append(_fixed_work_ms(plan.core))
            for case, name in _turns(plan.cases, [gateway for gateway, _ in running.values()], number):
                if name not in results.errors.get(case.name, {}):
                    answered[name] += _trial(results, case, name, running[name][1], counts=number > 0)
        for case_name, errors in results.errors.items():
            for name in errors:
                results.trials.get(case_name, {}).pop(name, None)
        results.trials = {
            case.name: {name: found[name] for name in running if name in found}
            for case in plan.cases
            if (found := results.trials.get(case.name))
        }
        for name, (_, each) in running.items():
            results.memory_mb[name] = each.process.memory_mb()
            if not any(name in errors for errors in results.errors.values()):
                each.check(answered[name])
    return results


def _rounds(plan: Plan) -> Iterator[int]:
    """0 is the round that warms."""
    for number in range(plan.rounds + 1):
        if number > plan.at_least and time.monotonic() > plan.until:
            return
        yield number


def _turns(cases: Sequence[Case], gateways: Sequence[Gateway], number: int) -> Iterator[tuple[Case, str]]:
    """The trials of one round, shuffled within each group of cases."""
    for _, group in groupby(cases, key=lambda case: case.group or case.name):
        turns = []
        for case in group:
            if (number == 0 and case.paced) or (number > 1 and case.once):
                continue
            for gateway in gateways:
                if gateway.serves(case):
                    share = 1 if case.paced else gateway.share * (_WARM_SHARE if number == 0 else 1)
                    requests = max(min(case.connections, case.requests), int(case.requests * share))
                    turns.append((replace(case, requests=requests), gateway.name))
        yield from random.sample(turns, len(turns))


def _trial(results: Results, case: Case, name: str, gateway: Running, *, counts: bool) -> int:
    """How many answers there were."""
    before_s = gateway.process.cpu_s()
    try:
        requests, wall_s, trial = _measured(case, gateway)
    except (WrongAnswer, OSError) as error:
        results.errors.setdefault(case.name, {})[name] = repr(error)[:500]
        return 0
    used_s = gateway.process.cpu_s() - before_s
    if counts:
        trial = replace(trial, cpu_us=used_s / requests * 1e6, busy_percent=used_s / wall_s * 100)
        results.trials.setdefault(case.name, {}).setdefault(name, []).append(trial)
    return requests


def _measured(case: Case, gateway: Running) -> tuple[int, float, Trial]:
    """How many requests, in how many seconds, and what they showed."""
    gap_ms, open_mb = None, []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if case.paced:
            paced = runner.run(run_paced(gateway.target, case, lambda: open_mb.append(gateway.process.memory_mb())))
            done, gap_ms = paced.round, paced.gap_ms(0.99)
        else:
            done = runner.run(run(gateway.target, case))
    trial = Trial(
        cpu_us=0,
        per_second=done.requests / done.wall_s,
        p50_ms=done.percentile_ms(0.5),
        p99_ms=done.percentile_ms(0.99),
        busy_percent=0,
        answer_bytes=done.answer_bytes,
        gap_p99_ms=gap_ms,
        open_mb=open_mb[0] if open_mb else None,
    )
    return done.requests, done.wall_s, trial


def _fixed_work_ms(core: set[int]) -> float:
    """CPU time of work that is always the same, on the gateway's core: what differs is the machine."""
    with on_cores(core):
        started = time.process_time()
        sum(number * number for number in range(300_000))
        return (time.process_time() - started) * 1000
