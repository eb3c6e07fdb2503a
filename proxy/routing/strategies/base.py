"""Values: the contract of a strategy, and the sort order that all strategies share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Protocol

from proxy.routing.decision import Candidate
from proxy.routing.facts import Facts
from proxy.routing.health import State
from proxy.routing.sticky import rendezvous

Key = tuple[float, ...]


class Strategy(Protocol):
    """Orders capable, healthy candidates, the best one first. Pure: equal inputs give the same order."""

    def __call__(self, candidates: Sequence[Candidate], facts: Facts, state: State) -> list[Candidate]: ...


def by_key(candidates: Sequence[Candidate], session: str, key: Callable[[Candidate], Key | None]) -> list[Candidate]:
    """The lowest key first; candidates without a key come last, in the given order.

    Equal candidates share the conversations: each session has an order of its own among them, the same on every
    worker. Without a session the given order decides.
    """
    known: list[tuple[Key, int, Candidate]] = []
    unknown: list[Candidate] = []
    for place, candidate in enumerate(candidates):
        found = key(candidate)
        if found is None:
            unknown.append(candidate)
        else:
            known.append((found, place, candidate))
    known.sort()  # positions differ, so candidates are never compared
    if session and len({found for found, _, _ in known}) < len(known):
        return [each for _, equals in groupby(known, itemgetter(0)) for each in _shared(equals, session)] + unknown
    return [candidate for _, _, candidate in known] + unknown


def _shared(equals: Iterable[tuple[Key, int, Candidate]], session: str) -> list[Candidate]:
    candidates = [candidate for _, _, candidate in equals]
    if len(candidates) > 1:
        candidates.sort(key=lambda candidate: rendezvous(session, candidate.deployment.name))
    return candidates
