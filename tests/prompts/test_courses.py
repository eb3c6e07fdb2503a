"""How a difference became clear: the intervals until each moment, and at the end those of the results."""

from __future__ import annotations

import random

import pytest

from proxy.prompts.results import courses_of, results_of
from proxy.schema.experiments import (
    Experiment,
    ExperimentState,
    Steps,
    StoredExperiment,
    Sums,
    VariantSpec,
    VariantSums,
)

EXPERIMENT = Experiment("e", tuple(VariantSpec(name) for name in "abc"), minimum_samples=5)


def test_the_last_interval_is_that_of_the_results() -> None:
    """Of each variant but the leader; every one before it has at most as many outcomes."""
    dice = random.Random(7)
    steps: list[tuple[str, int, Sums]] = []
    whole = dict.fromkeys("abc", (0, 0.0, 0.0))
    for step in range(6):
        for name, chance in (("a", 0.3), ("b", 0.8), ("c", 0.5)):
            won = sum(dice.random() < chance for _ in range(20))
            steps.append((name, step, (20, won, won)))
            count, total, squares = whole[name]
            whole[name] = (count + 20, total + won, squares + won)
    sums = {name: VariantSums(each[0], each[0], 0, {"success": each}) for name, each in whole.items()}
    results = results_of(StoredExperiment(EXPERIMENT, ExperimentState("running", started_ns=1)), sums)
    assert results["leader"] == "b"
    courses = courses_of(EXPERIMENT, Steps(1, 10, 6, steps), "b")
    assert [course["variant"] for course in courses] == ["a", "c"]
    for course in courses:
        shown = next(each for each in results["variants"] if each["name"] == course["variant"])
        assert course["points"][-1] == pytest.approx(shown["difference"])
        widths = [point["high"] - point["low"] for point in course["points"] if point is not None]
        assert widths == sorted(widths, reverse=True) and len(widths) == 6


@pytest.mark.parametrize("leader", [None, "a"])
def test_nothing_is_compared_before_both_have_outcomes(leader: str | None) -> None:
    """Nor without a leader."""
    steps = Steps(1, 10, 3, [("a", 0, (1, 1.0, 1.0)), ("b", 2, (1, 0.0, 0.0))])
    found = {course["variant"]: course["points"] for course in courses_of(EXPERIMENT, steps, leader)}
    if leader is None:
        assert found == {}
        return
    assert [point is None for point in found["b"]] == [True, True, False]
    assert found["c"] == [None, None, None]
