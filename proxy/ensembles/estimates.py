"""Translates: counts and ratings into estimates with their uncertainty. Pure, for the report of an ensemble.

All limits are one-sided at 95 %: the true value lies beyond a given limit in one of twenty reports.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import sqrt

from msgspec import Struct

Z = 1.645
_WRONG_ANSWERS = 4.0  # plausible wrong answers to a question: determines how rarely two members make the same error
_ROUNDS = 30


class Answered(Struct, frozen=True):
    """A rated call. `answers`: the number of each member's answer, by name; None: it failed. `answer`: that of the
    ensemble, whose `rating` is from 0 to 1.
    """

    answers: tuple[tuple[str, int | None], ...]
    answer: int
    rating: float


class Lift(Struct, frozen=True):
    """How much more often the ensemble was right than one member alone, as a share of the rated calls.

    `estimate` lies between `low` and `high`. `at_least` and `at_most` assume only that at most one of two different
    answers is right: if the ensemble was wrong and the member differed, the member may have been right in all of these
    calls, or in none.
    """

    rated_calls: int
    estimate: float
    low: float
    high: float
    at_least: float
    at_most: float

    @property
    def variance(self) -> float:
        """The variance of the gain in one call."""
        return ((self.high - self.low) / 2 / Z) ** 2 * self.rated_calls


def share_limits(hits: float, count: int, z: float = Z) -> tuple[float, float]:
    """Wilson's limits of a share; 0 and 1 for no data."""
    if not count:
        return 0.0, 1.0
    share, spread = hits / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * sqrt(share * (1 - share) / count + spread / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def calls_needed(share: float, limit: float, most: int = 1_000_000) -> int | None:
    """How many calls it takes to show that this share is below the limit; None: no number would."""
    if share >= limit:
        return None
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        if share_limits(share * middle, middle)[1] < limit:
            high = middle
        else:
            low = middle + 1
    return low if low < most else None


def median(values: Sequence[float]) -> float | None:
    """The middle value, or the mean of the two in the middle."""
    ordered = sorted(values)
    if not ordered:
        return None
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def accuracies(calls: Counter[Answered]) -> dict[str, float]:
    """An estimate of how often each member was right.

    The members' answers have no ratings of their own. If the ensemble was right, so were the members that agree with
    it. If it was wrong, another answer is right in proportion to the accuracy of the members that gave it, or none is.
    Each follows from the other, so both are computed in turn until they agree (Dawid and Skene, 1979).
    """
    names = {name for call in calls for name, _ in call.answers}
    found = dict.fromkeys(names, 0.5)
    for _ in range(_ROUNDS):
        right, whole = dict.fromkeys(names, 1.0), dict.fromkeys(names, 2.0)  # start with one right and one wrong answer
        for call, count in calls.items():
            chances = _chances(call, found)
            for name, answer in call.answers:
                right[name] += 0.0 if answer is None else chances[answer] * count
                whole[name] += count
        found = {name: right[name] / whole[name] for name in names}
    return found


def lift_over(member: str, calls: Counter[Answered], accuracy: Mapping[str, float]) -> Lift | None:
    """The lift over one member on the calls in which it had a seat; None: there are none."""
    gains, least, most = [], 0.0, 0.0
    for call, count in calls.items():
        for answer in [answer for name, answer in call.answers if name == member]:
            is_right = 0.0 if answer is None else _chances(call, accuracy)[answer]
            gains.append((call.rating - is_right, count))
            if answer != call.answer:
                most += call.rating * count
                least += (call.rating if answer is None else 2 * call.rating - 1) * count
    whole = sum(count for _, count in gains)
    if not whole:
        return None
    estimate = sum(gain * count for gain, count in gains) / whole
    squares = sum((gain - estimate) ** 2 * count for gain, count in gains)
    error = sqrt((squares + 1) / whole / (whole + 1))  # as if one more call had differed: few calls prove little
    return Lift(whole, estimate, estimate - Z * error, estimate + Z * error, least / whole, most / whole)


def _chances(call: Answered, accuracy: Mapping[str, float]) -> dict[int, float]:
    """The probability of each answer being right."""
    odds: dict[int, float] = {}
    for name, answer in call.answers:
        if answer is not None and answer != call.answer:
            odds[answer] = odds.get(answer, 1.0) * accuracy[name] * _WRONG_ANSWERS / (1 - accuracy[name])
    whole = max(1.0, _WRONG_ANSWERS - len(odds)) + sum(odds.values())  # first: an answer that no member gave is right
    chances = {answer: (1 - call.rating) * each / whole for answer, each in odds.items()}
    return {**chances, call.answer: call.rating}
