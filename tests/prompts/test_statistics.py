"""The statistics against scipy (its figures are in `data/scipy.json`) and against the standard library."""

from __future__ import annotations

import json
import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.prompts.statistics import (
    Sample,
    chances_to_be_best,
    difference,
    mismatch_p_value,
    normal_cdf,
    radius,
    samples_needed,
)
from tests.prompts.scipy_figures import FILE, NORMALS, RATES, SCALES, SHARES, THREE

FIGURES = json.loads(FILE.read_text())
NORMAL = statistics.NormalDist()


def of(values: list[float]) -> Sample:
    return Sample(len(values), sum(values), sum(value * value for value in values))


VALUES = st.lists(st.floats(0, 1), min_size=2, max_size=50)


@given(VALUES)
def test_means_and_variances_are_those_of_the_values(values: list[float]) -> None:
    """Sums are enough."""
    sample = of(values)
    assert sample.mean == pytest.approx(statistics.fmean(values))
    assert sample.variance == pytest.approx(statistics.pvariance(values), abs=1e-9)


@pytest.mark.parametrize(("z", "expected"), list(zip(NORMALS, FIGURES["normal"], strict=True)))
def test_the_normal_distribution(z: float, expected: float) -> None:
    """Also far out, where 1 - x would lose everything."""
    assert normal_cdf(z) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("at", range(len(SCALES)))
@pytest.mark.parametrize("case", range(len(RATES)))
def test_the_p_value_is_that_of_the_mixture(case: int, at: int) -> None:
    """The likelihood ratio against an effect from N(0, scale^2), integrated by scipy instead of by its formula."""
    (s1, n1), (s2, n2) = RATES[case]
    found = difference(Sample(n1, s1, s1), Sample(n2, s2, s2), scale=SCALES[at], alpha=0.05)
    assert found is not None
    assert found.p_value == pytest.approx(min(1, 1 / FIGURES["mixture"][case][at]), rel=1e-6)


@given(st.floats(1e-6, 0.1), st.floats(0.01, 0.5), st.floats(1e-4, 0.5))
def test_the_interval_ends_where_the_test_rejects(variance: float, scale: float, alpha: float) -> None:
    """One test, seen from two sides: a difference outside of the interval has a p-value below alpha."""
    reach = radius(variance, scale, alpha)
    values = Sample(1, 0.0, variance)  # its mean is 0 and its variance as given
    inside = difference(Sample(1, reach * 0.999, variance + (reach * 0.999) ** 2), values, scale=scale, alpha=alpha)
    found = radius(2 * variance, scale, alpha)
    assert inside is not None
    assert inside.high - inside.low == pytest.approx(2 * found, rel=1e-6)
    assert inside.is_proven == (inside.p_value < alpha)
    assert reach > NORMAL.inv_cdf(1 - alpha / 2) * math.sqrt(variance)  # looking often costs width


@pytest.mark.parametrize(("case", "expected"), list(zip(SHARES, FIGURES["split"], strict=True)))
def test_the_check_of_shares_is_a_dirichlet_multinomial(case: tuple[list[int], list[float]], expected: float) -> None:
    """Against its own multinomial."""
    assert mismatch_p_value(*case) == pytest.approx(min(1, math.exp(-expected)), rel=1e-6)


def test_the_check_of_shares_agrees_with_chi_square_where_the_case_is_clear() -> None:
    """60 to 40 of a thousand calls is no accident; 51 to 49 is."""
    assert FIGURES["chi_square"]["600"] < 1e-9
    assert mismatch_p_value([600, 400], [0.5, 0.5]) < 1e-5
    assert FIGURES["chi_square"]["510"] > 0.5
    assert mismatch_p_value([510, 490], [0.5, 0.5]) == 1.0
    assert mismatch_p_value([0, 0], [0.5, 0.5]) == 1.0


def test_the_chance_to_be_best_is_that_of_draws_from_beta_posteriors() -> None:
    """Within a percentage point: the product takes posteriors as normal."""
    found = chances_to_be_best({name: Sample(n, s, s) for name, (s, n) in THREE.items()})
    assert list(found.values()) == pytest.approx(FIGURES["best"], abs=0.01)
    assert sum(found.values()) == pytest.approx(1)


def test_of_two_the_chance_is_a_normal_probability() -> None:
    """The integral against its closed form; without outcomes nobody is better."""
    one, other = Sample(400, 220.0, 220.0), Sample(300, 150.0, 150.0)
    first, second = one.bounded(), other.bounded()
    error = math.sqrt(first.variance / first.count + second.variance / second.count)
    closed = NORMAL.cdf((first.total / first.count - second.total / second.count) / error)
    assert chances_to_be_best({"a": one, "b": other})["a"] == pytest.approx(closed, abs=1e-6)
    assert chances_to_be_best({"a": Sample(), "b": Sample()}) == pytest.approx({"a": 0.5, "b": 0.5})


def test_samples_needed_are_the_first_at_which_the_effect_is_proven() -> None:
    """One fewer is too few; what is there already counts."""
    half = Sample(1_000_000, 500_000, 500_000)
    per_variant = samples_needed(Sample(4, 2, 2), Sample(4, 2, 2), effect=0.1, alpha=0.05) + 4
    for count, is_enough in ((per_variant, True), (per_variant - 1, False)):
        assert (radius(2 * half.variance / count, 0.1, 0.05) <= 0.1) is is_enough
    assert samples_needed(half, half, effect=0.1, alpha=0.05) == 0
    fixed = 2 * 0.25 * ((NORMAL.inv_cdf(0.975) + NORMAL.inv_cdf(0.8)) / 0.1) ** 2
    assert fixed < per_variant < 3 * fixed


def test_few_equal_outcomes_prove_nothing() -> None:
    """Five successes of five and five failures of five have no spread, so that any test would be certain."""
    one, other = Sample(5, 5, 5), Sample(5, 0, 0)
    assert difference(one, other, scale=0.1, alpha=0.05) is None
    guarded = difference(one.bounded(), other.bounded(), scale=0.1, alpha=0.05)
    assert guarded is not None
    assert not guarded.is_proven


def test_an_interval_holds_at_every_look() -> None:
    """400 pairs of 1,000 outcomes: in at most 5 % is the truth ever outside. An interval for one look fails 20 %."""
    dice = random.Random(3)
    ever, ever_naive = 0, 0
    for _ in range(400):
        sums, outside, naive = [0, 0], False, False
        for count in range(1, 1_001):
            sums = [each + (dice.random() < rate) for each, rate in zip(sums, (0.3, 0.4), strict=True)]
            if count < 30 or count % 10:
                continue
            first, second = (Sample(count, each, each).bounded() for each in sums)
            found = difference(first, second, scale=0.1, alpha=0.05)
            assert found is not None
            outside = outside or not found.low <= -0.1 <= found.high
            error = math.sqrt(first.variance / count + second.variance / count)
            naive = naive or abs(found.value + 0.1) > 1.96 * error
        ever, ever_naive = ever + outside, ever_naive + naive
    assert ever / 400 <= 0.05
    assert ever_naive / 400 > 0.15
