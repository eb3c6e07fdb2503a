"""Translates: the unit of a call (a user, a session, a conversation) into its variant: the same one in every process.

A variant depends only on the experiment, the unit and the shares: workers agree without messages or locks. Only `Turns`
keeps a count, of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b

from proxy.prompts.statistics import Sample, chances_to_be_best

_BYTES = 8


def shares_of(weights: Mapping[str, float]) -> dict[str, float]:
    """The weights, normalised to a sum of 1."""
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def thompson_shares(samples: Mapping[str, Sample], floor: float) -> dict[str, float]:
    """Thompson sampling: the share of each variant is its chance of being best in a draw from the posteriors, but at
    least `floor`. `floor` times the number of variants is at most 1.
    """
    rest = 1 - floor * len(samples)
    return {name: floor + rest * chance for name, chance in chances_to_be_best(samples).items()}


def unit_hash(experiment: str, unit: str) -> str:
    """Hex digits for the row of a call: anonymous, and different in each experiment."""
    # Clients' texts may hold lone surrogates; any bytes will do.
    key = f"{len(experiment)}:{experiment}{unit}".encode(errors="surrogatepass")
    return blake2b(key, digest_size=_BYTES).hexdigest()


def position(unit: str) -> float:
    """The position of this unit hash in [0, 1), independent of its position in other experiments."""
    return float(int(unit, 16) / 2 ** (8 * _BYTES))


def pick(shares: Mapping[str, float], at: float) -> str:
    """The variant at this position in [0, 1), where each variant has an interval as long as its share, in order."""
    reached = 0.0
    for name, share in shares.items():
        reached += share
        if at < reached:
            return name
    return next(name for name in reversed(list(shares)) if shares[name] > 0)  # rounding


class Turns:
    """`round_robin` in one process: after any number of calls each variant has had its share, within one call.

    Each of several workers has its own rotation; a restart begins a new one.
    """

    def __init__(self) -> None:
        self._dealt: dict[str, dict[str, int]] = {}

    def next(self, experiment: str, shares: Mapping[str, float]) -> str:
        dealt = self._dealt.get(experiment)
        if dealt is None or dealt.keys() != shares.keys():
            dealt = self._dealt[experiment] = dict.fromkeys(shares, 0)
        number = sum(dealt.values()) + 1
        chosen = max(shares, key=lambda name: shares[name] * number - dealt[name])
        dealt[chosen] += 1
        return chosen


class Assigner:
    """Assigns variants in four ways. `random` returns numbers in [0, 1)."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._turns = Turns()

    def variant(self, way: str, experiment: str, unit: str | None, shares: Mapping[str, float]) -> str:
        """`unit`: a hash. `sticky` and `auto` keep its variant as long as the shares stay; without a unit they draw."""
        if way == "round_robin":
            return self._turns.next(experiment, shares)
        if way == "random" or unit is None:
            return pick(shares, self._random())
        return pick(shares, position(unit))
