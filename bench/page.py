"""Performs I/O: a run in docs/performance.json, and the part of docs/performance.md and the plot made of it."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from bench import bars, cases
from bench.cases import CASES, Case
from bench.goals import GOALS, Goal, Run
from bench.trials import Trial

DOCS = Path(__file__).parents[1] / "docs"
FILE, PAGE, PLOT = "performance.json", "performance.md", "performance.svg"
_MARKERS = re.compile(r"(<!-- figures by scripts/bench -->\n).*?(<!-- end of the figures -->)", re.DOTALL)
_PLOTTED = (cases.WHOLE, cases.FEW, cases.EACH, cases.TRANSLATED)
_FIGURES: tuple[tuple[str, str, Callable[[Trial], float | None]], ...] = (
    ("CPU per request, µs", "{:,.0f}", lambda trial: trial.cpu_us or None),
    ("requests/s", "{:,.0f}", lambda trial: trial.per_second),
    ("p50, ms", "{:.1f}", lambda trial: trial.p50_ms),
    ("p99, ms", "{:.1f}", lambda trial: trial.p99_ms),
)


def write(run: Run, docs: Path = DOCS) -> None:
    """Keeps the run, and renews the page and the plot."""
    text = json.dumps(msgspec.to_builtins(_rounded(run)), indent=1, ensure_ascii=False)
    (docs / FILE).write_text(f"{text}\n")
    run = read(docs)
    page = docs / PAGE
    page.write_text(_MARKERS.sub(lambda found: f"{found[1]}{figures(run)}{found[2]}", page.read_text()))
    (docs / PLOT).write_text(plot(run))


def read(docs: Path = DOCS) -> Run:
    """The run that is kept."""
    return msgspec.json.decode((docs / FILE).read_bytes(), type=Run)


def figures(run: Run) -> str:
    """The part of the page between its markers."""
    return "\n".join([*_about(run), "", *_goals(run), "", *_cases(run), "", *_rest(run), ""])


def plot(run: Run) -> str:
    """CPU per request of each gateway."""
    groups = {
        case.name: {
            name: cpu_us
            for name, trials in run.results.trials.get(case.name, {}).items()
            if (cpu_us := statistics.median(trial.cpu_us for trial in trials)) > 0
        }
        for case in _PLOTTED
    }
    return bars.drawing({name: found for name, found in groups.items() if found}, "CPU of the gateway per request, µs")


def goals(run: Run) -> Iterator[tuple[Goal, str, str, str]]:
    """Each with its median, its range and its verdict."""
    for goal in GOALS:
        found = list(goal.figures(run))
        form = goal.form.format
        median = form(statistics.median(found)) if found else "-"
        yield (
            goal,
            median,
            f"{form(min(found))} to {form(max(found))}" if found else "-",
            goal.verdict(found, run.is_quiet),
        )


def _about(run: Run) -> Iterator[str]:
    rounds = max((len(trials) for found in run.results.trials.values() for trials in found.values()), default=0)
    fixed = run.results.fixed_work_ms
    took = f"{min(fixed):.1f} to {max(fixed):.1f} ms" if fixed else "no time"
    yield f"{run.day}, {run.machine}. Load before the run: {run.load_before}."
    yield f"Rounds: {rounds}. The fixed piece of Python took {took}."
    if not run.is_quiet:
        yield f"With whole answers this product kept its core {run.busy_percent:.0f} % busy; other programs ran too."
        yield "So rates and times by the clock on the wall say little (`machine busy`). Ratios of CPU per request hold."


def _goals(run: Run) -> Iterator[str]:
    yield "| goal | aim | enough for now | median | all rounds | |"
    yield "|---|--:|--:|--:|--:|---|"
    for goal, median, spread, verdict in goals(run):
        sign, form = "≥" if goal.at_least else "≤", goal.form.format
        enough = "report" if goal.passes == float("inf") else f"{sign} {form(goal.passes)}"
        yield f"| {goal.what} | {sign} {form(goal.goal)} | {enough} | {median} | {spread} | {verdict} |"


def _cases(run: Run) -> Iterator[str]:
    yield f"| case | gateway | {' | '.join(title for title, _, _ in _FIGURES)} |"
    yield f"|---|---|{'--:|' * len(_FIGURES)}"
    for case in CASES:
        for name, trials in run.results.trials.get(case.name, {}).items():
            yield f"| {case.name} | {name} | {' | '.join(_cells(case, trials))} |"


def _cells(case: Case, trials: list[Trial]) -> Iterator[str]:
    """Of paced streams there is no rate of requests."""
    for title, form, figure in _FIGURES:
        values = [value for trial in trials if (value := figure(trial)) is not None]
        yield "-" if not values or (case.paced and title == "requests/s") else form.format(statistics.median(values))


def _rest(run: Run) -> Iterator[str]:
    yield "| memory and start | median | min | max |"
    yield "|---|--:|--:|--:|"
    for name, values in run.states.items():
        form = "{:.2f}" if name.endswith(" s") else "{:.0f}"
        yield f"| {name} | {' | '.join(form.format(of(values)) for of in (statistics.median, min, max))} |"
    for name, mb in run.results.memory_mb.items():
        if mb:
            yield f"| {name}, after the run, MB | {mb:.0f} | | |"
    yield ""
    for case, errors in run.results.errors.items():
        for name, error in errors.items():
            yield f"- {name}, {case}: `{' '.join(error.split())[:200]}`"
    if not run.results.errors:
        yield "- Errors: none. Each answer was complete."
    for name, reason in run.results.not_served.items():
        yield f"- {name}: `served: false`, {' '.join(reason.split())[:200]}"


def _rounded(run: Run) -> Run:
    """Four figures are more than any of them is worth."""

    def short(value: object) -> object:
        match value:
            case float():
                return float(f"{value:.4g}")
            case dict():
                return {key: short(each) for key, each in value.items()}
            case list():
                return [short(each) for each in value]
        return value

    return msgspec.convert(short(msgspec.to_builtins(run)), Run)
