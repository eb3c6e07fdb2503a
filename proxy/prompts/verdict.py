"""Translates: the data on the variants into the verdict: a winner only if the test proves one.

The leader wins once it is better than every other variant. Each of these comparisons has the level alpha / (variants -
1): a wrong winner must be proven better than a variant that is at least as good, in one direction.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from proxy.prompts.statistics import (
    MISMATCH_LEVEL,
    Difference,
    Sample,
    chances_to_be_best,
    difference,
    mismatch_p_value,
    samples_needed,
)


class Rules(Struct, frozen=True):
    """When a verdict is reached. See `Experiment`."""

    alpha: float = 0.05
    minimum_effect: float = 0.1
    minimum_samples: int = 30
    lower_is_better: bool = False


class Decision(Struct, frozen=True):
    """`winner` None: undecided, for this `reason`. `against`: the leader minus each other variant."""

    winner: str | None
    leader: str | None
    reason: str
    against: dict[str, Difference]


class Forecast(Struct, frozen=True):
    """`chances`: of each variant being the best. `needed`: outcomes that each variant still needs to prove a difference
    of the minimum effect.
    """

    chances: dict[str, float]
    needed: int


def decide(samples: Mapping[str, Sample], rules: Rules) -> Decision:
    """The verdict on outcomes from 0 to 1."""
    sign = -1.0 if rules.lower_is_better else 1.0
    means = {name: mean * sign for name, sample in samples.items() if (mean := sample.mean) is not None}
    leader = max(means, key=means.__getitem__) if means else None
    found: dict[str, Difference] = {}
    if leader is not None:
        others = [name for name in samples if name != leader]
        found = {name: each for name in others if (each := against(samples, leader, name, rules)) is not None}
    reason = _open_reason(samples, leader, found, rules)
    return Decision(leader if reason is None else None, leader, reason or "", found)


def against(samples: Mapping[str, Sample], leader: str, name: str, rules: Rules) -> Difference | None:
    """The leader minus another variant, at this comparison's part of the overall level.

    Outcomes are from 0 to 1, so no difference is beyond -1 or 1: what few outcomes leave open ends there.
    """
    first, second = samples[leader].bounded(), samples[name].bounded()
    found = difference(first, second, scale=rules.minimum_effect, alpha=_alpha(samples, rules))
    return None if found is None else replace(found, low=max(-1.0, found.low), high=min(1.0, found.high))


def forecast(samples: Mapping[str, Sample], rules: Rules) -> Forecast:
    """A forecast from the outcomes so far."""
    upward = {name: sample.complement() for name, sample in samples.items()} if rules.lower_is_better else samples
    guarded = [sample.bounded() for sample in samples.values()]
    alpha = _alpha(samples, rules)
    pairs = [
        samples_needed(first, second, effect=rules.minimum_effect, alpha=alpha)
        for place, first in enumerate(guarded)
        for second in guarded[:place]
    ]
    few = rules.minimum_samples - min((sample.count for sample in samples.values()), default=0)
    return Forecast(chances_to_be_best(upward), max(0, few, *pairs))


def _alpha(samples: Mapping[str, Sample], rules: Rules) -> float:
    return rules.alpha / max(1, len(samples) - 1)


def _open_reason(
    samples: Mapping[str, Sample], leader: str | None, against: Mapping[str, Difference], rules: Rules
) -> str | None:
    """Why there is no winner yet; None: there is one."""
    few = [name for name, sample in samples.items() if sample.count < rules.minimum_samples]
    if few:
        return f"fewer than {rules.minimum_samples} outcomes: {', '.join(few)}"
    close = [name for name in samples if name != leader and not _is_better(against.get(name), rules)]
    return f"{leader} leads, but is not proven better than: {', '.join(close)}" if close else None


def _is_better(found: Difference | None, rules: Rules) -> bool:
    return found is not None and (found.high < 0 if rules.lower_is_better else found.low > 0)


def mismatch(counts: Mapping[str, int], shares: Mapping[str, float]) -> tuple[bool, float]:
    """Whether the variants did not get their shares, so that the figures cannot be trusted, and the p-value."""
    names = list(shares)
    p_value = mismatch_p_value([counts.get(name, 0) for name in names], [shares[name] for name in names])
    return p_value < MISMATCH_LEVEL, p_value


def plain_difference(first: Sample, second: Sample, alpha: float) -> Difference | None:
    """For outcomes without an upper limit, like cost and latency; effects of a tenth of the mean are found fastest."""
    if not first.count or not second.count:
        return None
    scale = abs(first.total + second.total) / (first.count + second.count) / 10
    return difference(first, second, scale=scale, alpha=alpha)
