"""Performs I/O: `python -m bench.experiments [--check]` simulates experiments and writes the figures into
docs/experiments.md and docs/experiments.svg; with --check it only says whether they are up to date.

The test and the shares are the product's own. Every simulated experiment is looked at after every outcome, and stops at
its verdict: that is how people use them, and what a test of a fixed size does not survive. All of it is the same on
every run.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from math import ceil, inf, log, sqrt
from pathlib import Path

from msgspec import Struct

from bench.curves import Axis, Curve, drawing
from proxy.prompts.assignment import pick, thompson_shares
from proxy.prompts.statistics import Sample
from proxy.prompts.verdict import Rules, decide

EXPERIMENTS = 2_000
MOST = 2_000  # outcomes of each variant, or of all together divided by the variants
RULES = Rules()
_Z_TWO_SIDED, _Z_POWER = 1.959964, 0.841621  # 5 %, and 80 % power
_LEAST_Z = sqrt(2 * log(1 / RULES.alpha))  # no interval is narrower, in deviations
_UPDATE = 50  # outcomes between two looks at the shares of Thompson sampling
_LOOKS = (50, 100, 200, 300, 400, 500, 750, 1_000, 1_500, 2_000)
_DOCS = Path(__file__).parents[1] / "docs"
_MARKERS = re.compile(r"(<!-- figures by bench\.experiments -->\n).*?(<!-- end of the figures -->)", re.DOTALL)


class Case(Struct, frozen=True):
    """The true rates of the variants, and how variants are assigned. `spread`: of scores; 0: successes."""

    name: str
    rates: tuple[float, ...]
    is_auto: bool = False
    spread: float = 0.0

    @property
    def has_difference(self) -> bool:
        return len(set(self.rates)) > 1


NONE = (
    Case("two of 50 %", (0.5, 0.5)),
    Case("two of 5 %", (0.05, 0.05)),
    Case("two of 95 %", (0.95, 0.95)),
    Case("three of 50 %", (0.5, 0.5, 0.5)),
    Case("two of 50 %, `auto`", (0.5, 0.5), is_auto=True),
    Case("scores of 0.7, deviation 0.15", (0.7, 0.7), spread=0.15),
)
SOME = (
    Case("50 % and 60 %", (0.5, 0.6)),
    Case("10 % and 20 %", (0.1, 0.2)),
    Case("85 % and 95 %", (0.85, 0.95)),
    Case("50 %, 50 % and 60 %", (0.5, 0.5, 0.6)),
    Case("50 % and 60 %, `auto`", (0.5, 0.6), is_auto=True),
    Case("scores of 0.6 and 0.7, deviation 0.15", (0.6, 0.7), spread=0.15),
)
REGRETS = ((0.5, 0.6), (0.85, 0.95), (0.5, 0.55, 0.6))


class Ended(Struct, frozen=True):
    """One experiment: who won, after how many outcomes of all variants, and what they cost against the best variant.

    `naive`: a test of a fixed size, looked at after every outcome, would have named a winner.
    """

    winner: int | None
    outcomes: int
    regret: float
    naive: bool


class _Arm:
    def __init__(self, rate: float, spread: float) -> None:
        self.rate, self.spread = rate, spread
        self.count, self.total, self.squares = 0, 0.0, 0.0

    def draw(self, dice: random.Random) -> None:
        if self.spread:
            value = min(1.0, max(0.0, dice.gauss(self.rate, self.spread)))
        else:
            value = float(dice.random() < self.rate)
        self.count += 1
        self.total += value
        self.squares += value * value

    @property
    def sample(self) -> Sample:
        return Sample(self.count, self.total, self.squares)


def run(case: Case, dice: random.Random, most: int = MOST, *, stops: bool = True) -> Ended:
    """One experiment. `stops` False: it goes on after its verdict, as the comparison of regrets wants it."""
    arms = [_Arm(rate, case.spread) for rate in case.rates]
    names = [str(place) for place in range(len(arms))]
    shares = dict.fromkeys(names, 1 / len(arms))
    best, winner, naive, regret = max(case.rates), None, False, 0.0
    outcomes = 0
    while outcomes < most * len(arms):
        if case.is_auto and outcomes % _UPDATE == 0:
            shares = thompson_shares({name: arm.sample for name, arm in zip(names, arms, strict=True)}, 0.1)
        # Fixed shares: in turn, which is `round_robin`.
        place = int(pick(shares, dice.random())) if case.is_auto else outcomes % len(arms)
        arms[place].draw(dice)
        outcomes += 1
        regret += best - case.rates[place]
        if not stops or min(arm.count for arm in arms) < RULES.minimum_samples:
            continue
        z = _z(arms[0], arms[1])
        naive = naive or (z > _Z_TWO_SIDED and not case.has_difference)
        if (z if len(arms) == 2 else _z_of_the_best(arms)) > _LEAST_Z:  # no verdict passes this bound by
            found = decide({name: arm.sample for name, arm in zip(names, arms, strict=True)}, RULES).winner
            if found is not None:
                winner = int(found)
                break
    return Ended(winner, outcomes, regret, naive)


def _z_of_the_best(arms: Sequence[_Arm]) -> float:
    return _z(*sorted(arms, key=lambda arm: arm.total / arm.count)[-2:])


def _z(first: _Arm, second: _Arm) -> float:
    one, other = first.total / first.count, second.total / second.count
    variance = (first.squares / first.count - one * one) / first.count
    variance += (second.squares / second.count - other * other) / second.count
    return abs(one - other) / sqrt(variance) if variance > 1e-12 else (inf if one != other else 0.0)


def fixed_size(case: Case) -> int:
    """Outcomes of all variants that a test of a fixed size needs for 80 % power, each pair at the same level."""
    first, second = sorted(set(case.rates))
    variances = [case.spread**2 or rate * (1 - rate) for rate in (first, second)]
    level = statistics.NormalDist().inv_cdf(1 - RULES.alpha / 2 / max(1, len(case.rates) - 1))
    return len(case.rates) * ceil(((level + _Z_POWER) / (second - first)) ** 2 * sum(variances))


def simulated(case: Case, count: int = EXPERIMENTS, most: int = MOST) -> list[Ended]:
    dice = random.Random(f"experiments {case.name}")
    return [run(case, dice, most) for _ in range(count)]


# --- the page ---------------------------------------------------------------------------------------------------------


def table(results: Sequence[tuple[Case, Sequence[Ended]]], regrets: Sequence[tuple[str, float, float]]) -> list[str]:
    """Three tables in Markdown: false verdicts, power, regret."""
    lines = ["| no difference | false verdicts | a test of a fixed size, looked at as often |", "|---|---|---|"]
    for case, ended in results:
        if not case.has_difference:
            false = statistics.mean(each.winner is not None for each in ended)
            lines.append(f"| {case.name} | {false:.1%} | {_peeked(ended)} |")
    lines += [
        "",
        "| 10 points | right verdicts | wrong ones | outcomes until then: mean, median | fixed size, 80 % power |",
        "|---|---|---|---|---|",
    ]
    for case, ended in results:
        if case.has_difference:
            best = case.rates.index(max(case.rates))
            right = statistics.mean(each.winner == best for each in ended)
            wrong = statistics.mean(each.winner not in (None, best) for each in ended)
            spent = [each.outcomes for each in ended]
            lines.append(
                f"| {case.name} | {right:.1%} | {wrong:.1%} | {statistics.mean(spent):,.0f}, "
                f"{statistics.median(spent):,.0f} | {fixed_size(case):,} |"
            )
    lines += [
        "",
        f"| {MOST:,} calls a variant | failures that the best variant would have spared: even split | `auto` |",
        "|---|---|---|",
        *(f"| {name} | {even:.1f} | {auto:.1f} |" for name, even, auto in regrets),
    ]
    return lines


def _peeked(ended: Sequence[Ended]) -> str:
    """A run that stopped at a false verdict would have been stopped by the weaker test too."""
    return f"{statistics.mean(each.naive or each.winner is not None for each in ended):.1%}"


def regret(rates: tuple[float, ...], count: int = EXPERIMENTS // 20) -> tuple[str, float, float]:
    """The mean regret of an even split and of Thompson sampling with its floor, over all outcomes."""
    name = " and ".join(f"{rate:.0%}".replace("%", " %") for rate in rates)
    both = []
    for is_auto in (False, True):
        dice = random.Random(f"regret {rates} {is_auto}")
        case = Case(name, rates, is_auto)
        both.append(statistics.mean(run(case, dice, stops=False).regret for _ in range(count)))
    return name, both[0], both[1]


def plot(results: Sequence[tuple[Case, Sequence[Ended]]]) -> str:
    """The share of experiments with a verdict, by the outcomes of each variant."""
    curves = []
    shown = {"50 % and 60 %": "#1f77b4", "85 % and 95 %": "#2ca02c", "two of 50 %": "#d62728"}
    for case, ended in results:
        if case.name in shown:
            each_had = [one.outcomes / len(case.rates) for one in ended if one.winner is not None]
            line = [(float(look), sum(had <= look for had in each_had) / len(ended)) for look in (0, *_LOOKS)]
            curves.append(Curve(case.name, shown[case.name], line, line[1:]))
    return drawing(
        curves, "outcomes of each variant", "experiments with a verdict", (Axis(0, MOST, "{:.0f}"), Axis(0, 1))
    )


def replaced(page: str, figures: Sequence[str]) -> str:
    """The page with other figures between its markers."""
    text = "\n".join(figures)
    found, count = _MARKERS.subn(lambda match: f"{match[1]}{text}\n{match[2]}", page)
    if count != 1:
        raise SystemExit("docs/experiments.md has no place for the figures: its two markers are missing")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.experiments", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the figures are not up to date")
    options = parser.parse_args()
    cases = (*NONE, *SOME)
    with ProcessPoolExecutor() as processes:
        regretted = processes.map(regret, REGRETS)
        results = list(zip(cases, processes.map(simulated, cases), strict=True))
        regrets = list(regretted)
    figures = table(results, regrets)
    print("\n".join(figures))
    worst = max(statistics.mean(each.winner is not None for each in ended) for case, ended in results if case in NONE)
    print(f"\nmost false verdicts: {worst:.1%}")
    page, image = _DOCS / "experiments.md", _DOCS / "experiments.svg"
    wanted = {page: replaced(page.read_text(), figures), image: plot(results)}
    stale = [path.name for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if options.check:
        print(f"not up to date: {', '.join(stale)}" if stale else "docs: up to date")
        return 1 if stale or worst > RULES.alpha else 0
    for path, text in wanted.items():
        path.write_text(text)
    return 1 if worst > RULES.alpha else 0


if __name__ == "__main__":
    sys.exit(main())
