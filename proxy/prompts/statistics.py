"""Translates: sums of outcomes into evidence that holds at every look: no sample size is fixed in advance.

The test is the mixture sequential probability ratio test (Robbins 1970; for differences of means Johari, Pekelis and
Walsh 2015): the likelihood ratio of "the means differ by an amount from N(0, tau^2)" against "they are equal". Under
equality it exceeds 1/alpha with a probability of at most alpha, however often one looks. It assumes normal means, so
variances are kept from vanishing while samples are few. bench/experiments.py measures the remaining error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import erfc, exp, inf, lgamma, log, pi, sqrt

from msgspec import Struct

MISMATCH_LEVEL = 0.001  # for the check of the shares: an alarm nearly always means a fault in the assignment
_CONCENTRATION = 100.0  # of that check's Dirichlet prior, around the intended shares
_MOST_NEEDED = 10_000_000
_POINTS = 121  # points of the integral over one variant's mean
_REACH = 6.0  # standard deviations
_STEP = 2 * _REACH / (_POINTS - 1)
_NORMAL = [(z, exp(-z * z / 2) / sqrt(2 * pi)) for z in (-_REACH + point * _STEP for point in range(_POINTS))]


class Sample(Struct, frozen=True):
    """Outcomes of one variant: their number, sum, and sum of squares."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None

    @property
    def variance(self) -> float:
        """The variance of one outcome. Rounding never makes it negative."""
        return max(0.0, self.squares / self.count - (self.total / self.count) ** 2) if self.count else 0.0

    def bounded(self) -> Sample:
        """The sample plus one outcome 0 and one outcome 1: 30 successes of 30 do not prove failure impossible."""
        return Sample(self.count + 2, self.total + 1.0, self.squares + 1.0)

    def complement(self) -> Sample:
        """The outcomes 1 - x."""
        return Sample(self.count, self.count - self.total, self.count - 2 * self.total + self.squares)


class Difference(Struct, frozen=True):
    """How much higher the mean of one variant is than that of another. `low` and `high`: an interval that contains the
    true difference at every look, with the requested confidence. `p_value`: always-valid.
    """

    value: float
    low: float
    high: float
    p_value: float

    @property
    def is_proven(self) -> bool:
        return self.low > 0 or self.high < 0


def difference(first: Sample, second: Sample, *, scale: float, alpha: float) -> Difference | None:
    """`first` minus `second`. `scale`: the size of the effects to be found fastest; None without samples or spread.

    The samples are used as they are: pass `bounded()` ones for outcomes from 0 to 1.
    """
    if first.count == 0 or second.count == 0:
        return None
    variance = first.variance / first.count + second.variance / second.count
    if variance <= 0 or scale <= 0:
        return None
    value = first.total / first.count - second.total / second.count
    reach = radius(variance, scale, alpha)
    return Difference(value, value - reach, value + reach, min(1.0, exp(-_log_ratio(value, variance, scale))))


def radius(variance: float, scale: float, alpha: float) -> float:
    """Half the width of the always-valid interval for a difference whose estimate has this variance."""
    prior = scale * scale
    both = variance + prior
    return sqrt(2 * variance * both / prior * (log(1 / alpha) + 0.5 * log(both / variance)))


def samples_needed(first: Sample, second: Sample, *, effect: float, alpha: float) -> int:
    """How many more outcomes each of the two needs to prove a difference of `effect`, at this spread."""
    variance = first.variance + second.variance
    if radius(variance / _MOST_NEEDED, effect, alpha) > effect:
        return _MOST_NEEDED
    low, high = 1, _MOST_NEEDED
    while low < high:  # the interval shrinks with the number
        middle = (low + high) // 2
        if radius(variance / middle, effect, alpha) <= effect:
            high = middle
        else:
            low = middle + 1
    return max(0, low - min(first.count, second.count))


def mismatch_p_value(counts: Sequence[int], shares: Sequence[float]) -> float:
    """Always-valid p-value of "the variants were assigned in these shares", which add up to 1.

    The Bayes factor of a Dirichlet-multinomial against the multinomial of the shares (Lindon and Malek 2022): exact.
    """
    total = sum(counts)
    evidence = lgamma(_CONCENTRATION) - lgamma(_CONCENTRATION + total)
    for count, share in zip(counts, shares, strict=True):
        evidence += lgamma(_CONCENTRATION * share + count) - lgamma(_CONCENTRATION * share) - count * log(share)
    return 1.0 if evidence <= 0 else exp(-evidence)


def chances_to_be_best(samples: Mapping[str, Sample]) -> dict[str, float]:
    """The posterior probability that each variant's mean is the highest; normal posteriors."""
    posteriors = {name: _posterior(sample) for name, sample in samples.items()}
    chances = {name: _chance(name, posteriors) for name in posteriors}
    total = sum(chances.values())
    return {name: chance / total for name, chance in chances.items()}


def _posterior(sample: Sample) -> tuple[float, float]:
    guarded = sample.bounded()
    return guarded.total / guarded.count, sqrt(guarded.variance / guarded.count)


def _chance(name: str, posteriors: Mapping[str, tuple[float, float]]) -> float:
    """The integral over the mean of one variant that all others are below it."""
    mean, deviation = posteriors[name]
    others = [each for other, each in posteriors.items() if other != name]
    chance = 0.0
    for z, density in _NORMAL:
        for other_mean, other_deviation in others:
            density *= normal_cdf((mean + z * deviation - other_mean) / other_deviation)
        chance += density * _STEP
    return chance


def normal_cdf(z: float) -> float:
    return 0.5 * erfc(-z / sqrt(2))


def _log_ratio(value: float, variance: float, scale: float) -> float:
    prior = scale * scale
    both = variance + prior
    if variance <= 0:
        return inf
    return 0.5 * log(variance / both) + prior * value * value / (2 * variance * both)
