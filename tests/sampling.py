"""Which cases of a large parametrised test run in the quick part: the same ones every time, on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def sample(names: Iterable[str], rate: int) -> set[str]:
    """One name in `rate`, rounded up, of each family: the text before the first `/`, or all names without one.

    The hash of a name decides, so a new case moves at most one other in or out.
    """
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(name.partition("/")[0] if "/" in name else "", []).append(name)
    chosen: set[str] = set()
    for family in families.values():
        chosen.update(sorted(family, key=_place)[: -(-len(family) // rate)])
    return chosen


def _place(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
