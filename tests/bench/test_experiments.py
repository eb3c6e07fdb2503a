"""The simulation of experiments: few false verdicts, power, and the page that shows them."""

from __future__ import annotations

import random
import statistics
from pathlib import Path

import pytest

from bench.experiments import NONE, RULES, SOME, Case, fixed_size, regret, run, simulated, table
from proxy.prompts.statistics import Sample
from proxy.prompts.verdict import decide

PAGE = Path(__file__).parents[2] / "docs" / "experiments.md"


def test_no_difference_gives_few_verdicts_and_a_peeking_test_many() -> None:
    """100 experiments of up to 300 outcomes each; the whole simulation has 2,000 of 2,000."""
    ended = simulated(NONE[0], 100, 300)
    assert statistics.mean(each.winner is not None for each in ended) <= RULES.alpha
    assert statistics.mean(each.naive for each in ended) > 2 * RULES.alpha


def test_ten_points_are_found() -> None:
    """Nearly always the better one, with not many more outcomes than a test of the right fixed size."""
    case = SOME[1]
    ended = simulated(case, 60, 600)
    assert statistics.mean(each.winner == 1 for each in ended) > 0.9
    assert statistics.mean(each.outcomes for each in ended) < 1.5 * fixed_size(case)


def test_thompson_spares_failures() -> None:
    """Against an even split, whose regret is known."""
    _, even, auto = regret((0.5, 0.8), 3)
    assert even == pytest.approx(600)
    assert auto < even / 2


def test_the_cheap_bound_passes_no_verdict_by() -> None:
    """Every verdict that the product gives, the simulation sees at the same outcome."""
    case = Case("bound", (0.3, 0.6))
    for seed in range(10):
        ended = run(case, random.Random(seed), 300)
        dice, sums, counts, found = random.Random(seed), [0.0, 0.0], [0, 0], None
        while found is None and sum(counts) < 600:
            place = sum(counts) % 2
            sums[place] += dice.random() < case.rates[place]
            counts[place] += 1
            samples = {str(each): Sample(counts[each], sums[each], sums[each]) for each in (0, 1)}
            found = decide(samples, RULES).winner
        assert (str(ended.winner), ended.outcomes) == (found, sum(counts))


@pytest.mark.slow
@pytest.mark.parametrize("case", [NONE[1], SOME[2]], ids=lambda case: case.name)
def test_the_page_shows_what_the_simulation_gives(case: Case) -> None:
    """All 2,000 experiments of two cases; `python -m bench.experiments --check` does all of them, in minutes."""
    figures = table([(case, simulated(case))], [])
    (row,) = [line for line in figures if line.startswith(f"| {case.name} |")]
    assert row in PAGE.read_text().splitlines()
