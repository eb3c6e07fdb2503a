"""Orchestrates: gateways in turn, in random order, with the same requests before the same upstream."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Protocol

import uvloop
from msgspec import Struct

from bench.answers import Case, WrongAnswer
from bench.load import Round, Target, run
from bench.process import NotServed, on_cores
from bench.upstream import upstream

CONNECTIONS = 32


class Spent(Protocol):
    """What a gateway's processes use."""

    def cpu_s(self) -> float:
        """CPU seconds so far."""

    def rss_mb(self) -> float:
        """Resident memory."""


class Running(Protocol):
    """A gateway that serves."""

    @property
    def process(self) -> Spent: ...

    @property
    def target(self) -> Target: ...

    def check(self, answers: int) -> None:
        """Raises RuntimeError unless it knows of so many successful answers."""


class Gateway(Protocol):
    """What can be measured."""

    name: str

    def serving(self, folder: Path, upstream_url: str, cores: set[int]) -> AbstractContextManager[Running]:
        """Starts it. Raises NotServed."""


class Trial(Struct, frozen=True):
    """One gateway in one round of one case."""

    cpu_us: float
    per_second: float
    p50_ms: float
    p99_ms: float
    busy_percent: float
    answer_bytes: int


class Results(Struct):
    """`trials` by case and gateway, round by round. `not_served` and `errors`: why a gateway has no figures."""

    trials: dict[tuple[str, str], list[Trial]] = {}
    alone_per_second: dict[str, float] = {}
    rss_mb: dict[str, float] = {}
    not_served: dict[str, str] = {}
    errors: dict[tuple[str, str], str] = {}
    fixed_work_ms: list[float] = []


class Plan(Struct, frozen=True):
    """`rounds` at most and no new one after `until`, but at least `at_least`. A round before them warms."""

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
        running: dict[str, Running] = {}
        for gateway in gateways:
            try:
                running[gateway.name] = stack.enter_context(gateway.serving(folder, url, plan.core))
            except NotServed as reason:
                results.not_served[gateway.name] = str(reason)
        results.trials = {(case.name, name): [] for case in plan.cases for name in running}
        answered = dict.fromkeys(running, 0)
        for number in _rounds(plan):
            results.fixed_work_ms.append(_fixed_work_ms(plan.core))
            for case in plan.cases:
                for name in random.sample(list(running), len(running)):
                    if (case.name, name) not in results.errors:
                        answered[name] += _trial(results, case, name, running[name], counts=number > 0)
        results.trials = {key: trials for key, trials in results.trials.items() if trials and key not in results.errors}
        for name, each in running.items():
            results.rss_mb[name] = each.process.rss_mb()
            if not any(failed == name for _, failed in results.errors):
                each.check(answered[name])
        target = Target(int(url.split(":")[2].split("/")[0]))
        for case in plan.cases:
            done = _round(target, case)
            results.alone_per_second[case.name] = done.requests / done.wall_s
    return results


def _rounds(plan: Plan) -> Iterator[int]:
    """0 is the round that warms."""
    for number in range(plan.rounds + 1):
        if number > plan.at_least and time.monotonic() > plan.until:
            return
        yield number


def _trial(results: Results, case: Case, name: str, gateway: Running, *, counts: bool) -> int:
    """How many answers there were."""
    before_s = gateway.process.cpu_s()
    try:
        done = _round(gateway.target, case)
    except (WrongAnswer, OSError) as error:
        results.errors[case.name, name] = repr(error)
        return 0
    used_s = gateway.process.cpu_s() - before_s
    if counts:
        trial = Trial(
            cpu_us=used_s / done.requests * 1e6,
            per_second=done.requests / done.wall_s,
            p50_ms=done.percentile_ms(0.5),
            p99_ms=done.percentile_ms(0.99),
            busy_percent=used_s / done.wall_s * 100,
            answer_bytes=done.answer_bytes,
        )
        results.trials[case.name, name].append(trial)
    return done.requests


def _round(target: Target, case: Case) -> Round:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run(target, case, CONNECTIONS))


def _fixed_work_ms(core: set[int]) -> float:
    """CPU time of work that is always the same, on the gateway's core: what differs is the machine."""
    with on_cores(core):
        started = time.process_time()
        sum(number * number for number in range(300_000))
        return (time.process_time() - started) * 1000
