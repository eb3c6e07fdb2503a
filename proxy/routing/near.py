"""Translates: an unknown word -> the most similar names. Bounded, however many names there are."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

MAX_NAMES = 1_000  # indexed; the others are never suggested
MAX_COMPARED = 20
_MAX_LETTERS = 48  # of a word
_COMMON = 100  # names; a pair of letters shared by more of them tells little
_RARE = 3  # pairs that are looked up even if they are common


class NearNames:
    """An index of names by pairs of letters. A look-up compares a word with MAX_COMPARED of them."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names: list[tuple[str, frozenset[str], frozenset[str]]] = []
        self._by_pair: dict[str, list[int]] = {}
        for place, name in zip(range(MAX_NAMES), dict.fromkeys(names), strict=False):
            pairs, last = _pairs(name), _pairs(name.rpartition("/")[2])
            self._names.append((name, pairs, last))
            for pair in pairs | last:
                self._by_pair.setdefault(pair, []).append(place)

    def find(self, word: str, most: int, cutoff: float) -> list[str]:
        """At most `most` names, the most similar first; similar: they share `cutoff` of their pairs of letters."""
        pairs = _pairs(word)
        lists = sorted((self._by_pair[pair] for pair in pairs if pair in self._by_pair), key=len)
        shared: dict[int, int] = {}
        for count, places in enumerate(lists):
            if count < _RARE or len(places) <= _COMMON:
                for place in places[:_COMMON]:
                    shared[place] = shared.get(place, 0) + 1
        compared = sorted(shared, key=lambda place: -shared[place])[:MAX_COMPARED]
        letters = sorted(word[:_MAX_LETTERS].lower())
        scored = sorted(
            (-1.0 if letters == sorted(self._names[place][0]) else -self._likeness(pairs, place), place)
            for place in compared
        )  # transposed letters: `taks` is `task`, though it shares more pairs with `tags`
        return [self._names[place][0] for score, place in scored[:most] if -score >= cutoff]

    def _likeness(self, pairs: frozenset[str], place: int) -> float:
        """Similarity to the whole name or to the part after its last slash, whichever is higher."""
        _, whole, last = self._names[place]
        return max(_dice(pairs, whole), _dice(pairs, last))


def _pairs(word: str) -> frozenset[str]:
    word = f" {word[:_MAX_LETTERS].lower()} "
    return frozenset(map("".join, pairwise(word)))


def _dice(one: frozenset[str], other: frozenset[str]) -> float:
    """The Dice coefficient: the share of common pairs."""
    return 2 * len(one & other) / (len(one) + len(other))
