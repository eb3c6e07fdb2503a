"""Translates: results into the tables that a run prints."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from bench.goals import Run
from bench.page import goals
from bench.trials import Results

_FIGURES = (
    ("CPU of the gateway per request, µs", "cpu_us", ".0f"),
    ("requests per second, everything on this machine", "per_second", ".0f"),
    ("latency, median, ms; of paced streams to the first event", "p50_ms", ".1f"),
    ("latency, p99, ms; of paced streams to the first event", "p99_ms", ".1f"),
    ("pauses between paced events beyond the upstream's, p99, ms", "gap_p99_ms", ".1f"),
    ("memory while all paced streams were open, MB", "open_mb", ".0f"),
    ("how busy the gateway's core was meanwhile, %", "busy_percent", ".0f"),
)
_WIDTH = 78


def table(title: str, rows: Mapping[str, Sequence[float]], form: str) -> Iterator[str]:
    """A line for each row; without a title the rows continue the table before."""
    if title:
        yield f"\n{title:<{_WIDTH}}{'median':>9}{'min':>9}{'max':>9}{'runs':>6}"
    for name, values in rows.items():
        figures = "".join(f"{value:>9{form}}" for value in (statistics.median(values), min(values), max(values)))
        yield f"  {name:<{_WIDTH - 2}}{figures}{len(values):>6}"


def lines(run: Run) -> Iterator[str]:
    """Every table, the goals, and why some gateway has no figures."""
    results = run.results
    for title, figure, form in _FIGURES:
        yield from table(title, dict(_rows(results, figure)), form)
    for part, form in ((" s", ".2f"), (" MB", ".0f")):
        rows = {name: values for name, values in run.states.items() if name.endswith(part) and values}
        yield from table(f"start and memory,{part}", rows, form)
    after = {f"{name}, after all of this, MB": [mb] for name, mb in results.memory_mb.items() if mb}
    yield from table("memory", after, ".0f")
    reads = {f"of {int(calls):,} calls": took_ms for calls, took_ms in run.usage_ms.items()}
    yield from table("reads of /v1/usage, ms", reads, ".1f")
    yield from table("noise of the machine", {"the same work in plain Python, ms of CPU": results.fixed_work_ms}, ".1f")
    yield f"\n{'goal':<60}{'median':>12}  {'verdict':<14}all rounds"
    for goal, median, spread, verdict in goals(run):
        yield f"  {goal.what:<58}{median:>12}  {verdict.strip('*'):<14}{spread}"
    yield "" if run.is_quiet else "Other programs had the processors too: times by the clock on the wall say little."
    for case, errors in results.errors.items():
        for name, error in errors.items():
            yield f"errors: {name}, {case}: {error}"
    for name, reason in results.not_served.items():
        yield f"{name}  served: false  {reason}"
    if not results.errors:
        yield "errors: none; each answer was complete"


def _rows(results: Results, figure: str) -> Iterator[tuple[str, list[float]]]:
    for case, found in results.trials.items():
        for name, trials in found.items():
            values = [value for trial in trials if (value := getattr(trial, figure))]
            if values:
                yield f"{case} · {name}", values
