"""Translates: results into tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from bench.trials import Results, Trial

_FIGURES = (
    ("CPU of the gateway per request, µs", "cpu_us", ".0f"),
    ("requests per second, everything on this machine", "per_second", ".0f"),
    ("latency at 32 connections, median, ms", "p50_ms", ".1f"),
    ("latency at 32 connections, p99, ms", "p99_ms", ".1f"),
    ("how busy the gateway's core was meanwhile, %", "busy_percent", ".0f"),
)
_WIDTH = 76


def table(title: str, rows: Mapping[str, Sequence[float]], form: str) -> Iterator[str]:
    """A line for each row; without a title the rows continue the table before."""
    if title:
        yield f"\n{title:<{_WIDTH}}{'median':>9}{'min':>9}{'max':>9}{'runs':>6}"
    for name, values in rows.items():
        figures = "".join(f"{value:>9{form}}" for value in (statistics.median(values), min(values), max(values)))
        yield f"  {name:<{_WIDTH - 2}}{figures}{len(values):>6}"


def lines(results: Results, first: str) -> Iterator[str]:
    """Every table, and the ratios of the gateway `first` to each other one."""
    several = len({name for _, name in results.trials}) > 1
    for title, figure, form in _FIGURES:
        rows = {
            f"{case}, {trials[0].answer_bytes / 1000:.0f} kB{f' · {name}' if several else ''}": [
                getattr(trial, figure) for trial in trials
            ]
            for (case, name), trials in results.trials.items()
        }
        yield from table(title, rows, form)
    yield from _ratios(results, first)
    yield from table("memory", {f"{name}, after all of this, MB": [mb] for name, mb in results.rss_mb.items()}, ".0f")
    alone = {f"{case} · no gateway between": [rate] for case, rate in results.alone_per_second.items()}
    yield from table("requests per second of upstream and load generator alone", alone, ".0f")
    yield from table("noise of the machine", {"the same work in plain Python, ms of CPU": results.fixed_work_ms}, ".1f")
    yield ""
    for (case, name), error in results.errors.items():
        yield f"errors: {name}, {case}: {error}"
    for name, reason in results.not_served.items():
        yield f"{name}  served: false  {reason}"
    if not results.errors:
        yield "errors: none; each answer was complete"


def _ratios(results: Results, first: str) -> Iterator[str]:
    """Round by round: both halves of a ratio were measured within the same seconds."""
    for title, figure in (("ratio of CPU per request", "cpu_us"), ("ratio of requests per second", "per_second")):
        rows = {
            f"{case} · {first} / {name}": _each(figure, results.trials[case, first], trials)
            for (case, name), trials in results.trials.items()
            if name != first and (case, first) in results.trials
        }
        if rows:
            yield from table(title, rows, ".2f")


def _each(figure: str, ours: Sequence[Trial], theirs: Sequence[Trial]) -> list[float]:
    return [getattr(one, figure) / getattr(other, figure) for one, other in zip(ours, theirs, strict=True)]
