"""The verdict: no winner without a proof, and never without saying who leads and what is missing."""

from __future__ import annotations

import pytest

from proxy.prompts.statistics import Sample
from proxy.prompts.verdict import Rules, decide, forecast, mismatch, plain_difference


def rated(successes: int, count: int) -> Sample:
    return Sample(count, successes, successes)


def test_a_clear_difference_has_a_winner() -> None:
    """60 % against 45 % of 500: the interval says by how much."""
    found = decide({"a": rated(225, 500), "b": rated(300, 500)}, Rules())
    assert (found.winner, found.leader, found.reason) == ("b", "b", "")
    against = found.against["a"]
    assert against.low > 0
    assert against.low < 0.15 < against.high
    assert against.p_value < 0.05


def test_a_small_one_names_only_the_leader() -> None:
    """And says whom it is not proven better than."""
    found = decide({"a": rated(225, 500), "b": rated(235, 500)}, Rules())
    assert (found.winner, found.leader) == (None, "b")
    assert found.reason == "b leads, but is not proven better than: a"


def test_few_outcomes_never_decide() -> None:
    """29 of 29 against 0 of 29 is no verdict; with one more of each it is."""
    assert decide({"a": rated(29, 29), "b": rated(0, 29)}, Rules()).reason == "fewer than 30 outcomes: a, b"
    assert decide({"a": rated(30, 30), "b": rated(0, 30)}, Rules()).winner == "a"
    empty = decide({"a": Sample(), "b": Sample()}, Rules())
    assert (empty.winner, empty.leader, empty.against) == (None, None, {})


@pytest.mark.parametrize(("count", "low"), [(1, -1), (2, -1), (5, -0.277)])
def test_no_interval_is_beyond_the_possible(count: int, low: float) -> None:
    """Outcomes are from 0 to 1, so a difference is from -1 to 1, however few there are."""
    against = decide({"a": rated(0, count), "b": rated(count, count)}, Rules()).against["a"]
    assert against.low == pytest.approx(low, abs=0.001)
    assert against.high == 1 and not against.is_proven


def test_the_leader_must_beat_every_variant() -> None:
    """c is as good as b: a is beaten, but there is no winner."""
    samples = {"a": rated(100, 500), "b": rated(300, 500), "c": rated(298, 500)}
    found = decide(samples, Rules())
    assert found.winner is None
    assert found.reason == "b leads, but is not proven better than: c"
    assert found.against["a"].is_proven


def test_more_variants_need_a_stronger_proof() -> None:
    """The level is divided among the comparisons."""
    two = decide({"a": rated(225, 500), "b": rated(290, 500)}, Rules())
    four = decide({"a": rated(225, 500), "b": rated(290, 500), "c": rated(1, 500), "d": rated(1, 500)}, Rules())
    assert two.against["a"].high < four.against["a"].high
    assert two.against["a"].value == four.against["a"].value


def test_where_less_is_better_the_lowest_wins() -> None:
    """Refusals: the difference is negative, and so is its interval."""
    samples = {"a": rated(200, 500), "b": rated(90, 500)}
    rules = Rules(lower_is_better=True)
    found = decide(samples, rules)
    assert found.winner == "b"
    assert found.against["a"].high < 0
    chances = forecast(samples, rules).chances
    assert chances["b"] > 0.99


def test_scores_with_little_spread_need_few_outcomes() -> None:
    """0.8 against 0.7 with a deviation of 0.1 is proven by a tenth of what successes of these rates need."""

    def scored(mean: float, count: int) -> Sample:
        return Sample(count, mean * count, (mean * mean + 0.01) * count)

    assert decide({"a": scored(0.7, 60), "b": scored(0.8, 60)}, Rules()).winner == "b"
    assert decide({"a": rated(42, 60), "b": rated(48, 60)}, Rules()).winner is None


def test_the_forecast_counts_what_is_missing() -> None:
    """It falls as outcomes come, and ends at zero."""
    needed = [forecast({"a": rated(n // 2, n), "b": rated(n // 2, n)}, Rules()).needed for n in (10, 110, 210, 2000)]
    assert needed[0] - needed[1] == pytest.approx(100, abs=10)
    assert needed[1] - needed[2] == pytest.approx(100, abs=5)
    assert needed[3] == 0


def test_shares_that_are_off_raise_an_alarm() -> None:
    """One in a thousand experiments may raise it by chance."""
    assert mismatch({"a": 600, "b": 400}, {"a": 0.5, "b": 0.5})[0]
    assert mismatch({"a": 520, "b": 480}, {"a": 0.5, "b": 0.5}) == (False, 1.0)
    assert mismatch({"a": 900}, {"a": 0.9, "b": 0.1})[0]


def test_costs_are_compared_as_they_are() -> None:
    """No limit at 1, and none without a spread."""
    cheap, dear = Sample(200, 200.0, 240.0), Sample(200, 300.0, 500.0)
    found = plain_difference(dear, cheap, 0.05)
    assert found is not None
    assert found.value == pytest.approx(0.5)
    assert found.low > 0
    assert plain_difference(Sample(5, 5.0, 5.0), Sample(5, 5.0, 5.0), 0.05) is None
    assert plain_difference(Sample(), dear, 0.05) is None
