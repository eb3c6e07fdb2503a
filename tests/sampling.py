"""Which cases of a large parametrised test run in the quick part: the same ones every time, on every machine."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Mapping, Set


def sample(cases: Mapping[str, Set[Hashable]], rate: int) -> set[str]:
    """One case in `rate`, and more where it takes more to see each trait that several cases share.

    `cases`: the traits of each, by its name: its value for each parameter, the vendor of its recording. The hash of the
    name decides who goes first.
    """
    counts = Counter(trait for traits in cases.values() for trait in traits)
    unseen = {trait for trait, count in counts.items() if count > 1}
    chosen: set[str] = set()
    left = []
    for name in sorted(cases, key=_place):
        if unseen.isdisjoint(cases[name]):
            left.append(name)
        else:
            unseen -= cases[name]
            chosen.add(name)
    wanted = -(-len(cases) // rate)
    return chosen.union(left[: max(0, wanted - len(chosen))])


def _place(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
