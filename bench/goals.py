"""Translates: results into the goals that the product has set itself, each with its figure.

Most are ratios to TensorZero in the same round of the same run, because a shared machine is noisy.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from math import inf

from msgspec import Struct

from bench import cases, direct, product
from bench.cases import Case
from bench.peers.smg import Smg
from bench.peers.tensorzero import TensorZero
from bench.states import CALLS, IDLE, READY
from bench.trials import Results

OURS, TWO_WORKERS = product.NAME, f"{product.NAME}, 2 workers"
_RUST = TensorZero.name
_QUIET_PERCENT = 85


class Run(Struct):
    """All of one run. `states`: start and memory; `usage_ms`: reads of usage by the number of calls."""

    day: str
    machine: str
    load_before: str
    results: Results
    states: dict[str, list[float]] = {}
    usage_ms: dict[str, list[float]] = {}

    @property
    def busy_percent(self) -> float:
        """How busy this product kept its core with whole answers: all of it, unless other programs ran there."""
        return statistics.median([trial.busy_percent for trial in self.results.of(cases.WHOLE, OURS)] or [0.0])

    @property
    def is_quiet(self) -> bool:
        return self.busy_percent >= _QUIET_PERCENT


_Figures = Callable[[Run], Sequence[float]]


class Goal(Struct, frozen=True):
    """`passes`: the figure that will do for now; infinity where it is only reported. `is_wall`: it is of the clock on
    the wall, so it says nothing when other programs had the processors too.
    """

    what: str
    goal: float
    passes: float
    figures: _Figures
    form: str = "{:.2f} ×"  # noqa: RUF001
    at_least: bool = False
    is_wall: bool = False

    def verdict(self, figures: Sequence[float], is_quiet: bool) -> str:
        """By the median."""
        if not figures:
            return "not measured"
        if self.is_wall and not is_quiet:
            return "machine busy"
        figure, sign = statistics.median(figures), -1 if self.at_least else 1
        if sign * figure <= sign * self.goal:
            return "met"
        if self.passes == inf:
            return "not met"
        return "passed" if sign * figure <= sign * self.passes else "**not met**"


def _ratio(
    case: Case, figure: str = "cpu_us", other: Case | None = None, peer: str = _RUST, us: str = OURS
) -> _Figures:
    """Ours in `case` to the peer's in `other`, round by round."""

    def figures(run: Run) -> list[float]:
        ours, theirs = run.results.of(case, us), run.results.of(other or case, peer)
        return [getattr(mine, figure) / getattr(its, figure) for mine, its in zip(ours, theirs, strict=False)]

    return figures


def _added(case: Case, figure: str = "p50_ms") -> _Figures:
    """Ours beyond that of requests which go to the upstream itself."""

    def figures(run: Run) -> list[float]:
        ours, alone = run.results.of(case, OURS), run.results.of(case, direct.NAME)
        return [getattr(mine, figure) - getattr(its, figure) for mine, its in zip(ours, alone, strict=False)]

    return figures


def _state(name: str) -> _Figures:
    return lambda run: run.states.get(name, [])


def _usage(calls: int) -> _Figures:
    return lambda run: run.usage_ms.get(str(calls), [])


def _open(run: Run) -> list[float]:
    return [trial.open_mb for trial in run.results.of(cases.OPEN, OURS) if trial.open_mb is not None]


_timed = partial(Goal, is_wall=True)
_MS, _MB, _S = "{:.1f} ms", "{:.0f} MB", "{:.2f} s"

GOALS = (
    Goal("CPU per whole answer, a named model", 0.7, 1.2, _ratio(cases.WHOLE)),
    Goal("the same, `auto` with a task hint", 0.9, 1.5, _ratio(cases.HINT, other=cases.WHOLE)),
    Goal("the same, `auto` with the classifier", 1.6, 2.5, _ratio(cases.AUTO, other=cases.WHOLE)),
    Goal("CPU per stream of 200 events in few writes", 0.2, 0.5, _ratio(cases.FEW)),
    Goal("CPU per stream of 200 events, a write each", 0.2, 0.5, _ratio(cases.EACH)),
    Goal("CPU per stream in few writes, beside smg", 1.0, inf, _ratio(cases.FEW, peer=Smg.name)),
    Goal("CPU per translated stream (Anthropic to OpenAI)", 0.8, 1.3, _ratio(cases.TRANSLATED)),
    _timed("requests/s on one core, 32 connections", 1.0, 0.8, _ratio(cases.WHOLE, "per_second"), at_least=True),
    _timed("requests/s on one core, 256 connections", 1.0, 0.8, _ratio(cases.MANY, "per_second"), at_least=True),
    _timed("latency at one connection, p50", 1.3, 2.0, _ratio(cases.ONE, "p50_ms")),
    _timed("128 streams at 50 events/s: added to the first event, p99", 3.0, inf, _added(cases.PACED, "p99_ms"), _MS),
    _timed("128 streams at 50 events/s: added to a gap, p99", 1.0, inf, _added(cases.PACED, "gap_p99_ms"), _MS),
    _timed("prompt of 100 kB: added, p50", 1.5, inf, _added(cases.LONG), _MS),
    _timed("image of 5 MB: added, p50", 15.0, inf, _added(cases.PICTURE), _MS),
    Goal(
        "`ensemble:voting` of 3: CPU beside one call's", 3.5, 3.5, _ratio(cases.ENSEMBLE, other=cases.WHOLE, peer=OURS)
    ),
    Goal("memory, idle", 110, 120, _state(IDLE), _MB),
    Goal("memory at 1,000 open streams", 250, 300, _open, _MB),
    _timed("start to ready", 1.0, 1.0, _state(READY), _S),
    Goal("CPU per whole answer, 2 workers beside one", 1.1, 1.1, _ratio(cases.WHOLE, peer=OURS, us=TWO_WORKERS)),
    *(_timed(f"`/v1/usage` of {calls:,} calls", 50.0, 50.0, _usage(calls), _MS) for calls in CALLS),
)
