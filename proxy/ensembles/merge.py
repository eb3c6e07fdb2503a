"""Translates: several JSON objects that answer the same question into one, field by field.

    text, number, boolean   the most common value by weight, or the heaviest member's
    object                  its fields, each on its own
    list                    the union, without repetitions
    missing or null         filled from the members that have a value

Values are equal if they say the same (`canonical`). The order of the members has no effect: ties go to the heaviest
member, then by a hash. Linear in the values, which are bounded (`canonical_json`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from proxy.ensembles import canonical_json
from proxy.ensembles.canonical import phrase

MAX_REPORTED, MAX_SHOWN = 100, 200  # fields in a report, and characters of a value
_MAX_DEPTH = 32  # values nested deeper are compared as a whole
_MAJORITY = "majority"


class Part(Struct, frozen=True):
    """One member's object (a value of `canonical_json.read`) and the member's weight."""

    value: Any
    weight: float


class Merged(Struct, frozen=True):
    """`agreement`: field -> the share of the weight of those that have it that chose its value. `dissent`: field -> the
    other values, if members differ. `filled`: fields that some members lacked.
    """

    value: Any
    agreement: dict[str, float]
    dissent: dict[str, list[str]]
    filled: list[str]

    @property
    def confidence(self) -> float:
        """The mean agreement of all fields."""
        return round(sum(self.agreement.values()) / len(self.agreement), 4) if self.agreement else 1.0


def merged(parts: Sequence[Part], prefer: str = _MAJORITY) -> Merged:
    """One object from several. `prefer`: `majority`, or `heaviest`. Raises NotJSON for values nested too deeply."""
    merge = _Merge(prefer)
    value = merge.value(sorted(parts, key=lambda part: (-part.weight, key_of(part.value))), "", 0)
    return Merged(value, merge.agreement, merge.dissent, merge.filled)


def key_of(value: Any) -> str:
    """A key that is equal for values that say the same."""
    return hashlib.sha256(canonical_json.canonical(value, phrase).encode("utf-8", "surrogatepass")).hexdigest()


class _Merge:
    """One merge, and its record. Parts are always ordered: the heaviest first."""

    def __init__(self, prefer: str) -> None:
        self._prefer = prefer
        self.agreement: dict[str, float] = {}
        self.dissent: dict[str, list[str]] = {}
        self.filled: list[str] = []

    def value(self, parts: Sequence[Part], path: str, depth: int) -> Any:
        known = [part for part in parts if part.value is not None]
        if not known:
            return None
        kind = self._kind(known)
        same = [part for part in known if _kind_of(part.value) == kind]
        if len(same) < len(known):
            self._note_others(path, [part.value for part in known if _kind_of(part.value) != kind])
        if kind == "object" and depth < _MAX_DEPTH:
            return self._object(same, path, depth)
        if kind == "list":
            return self._list(same, path)
        return self._choice(same, path)

    def _object(self, parts: Sequence[Part], path: str, depth: int) -> dict[str, Any]:
        names = dict.fromkeys(name for part in parts for name in part.value)
        found = {}
        for name in names:
            inner = f"{path}.{name}" if path else name
            having = [Part(part.value[name], part.weight) for part in parts if name in part.value]
            if any(part.value is not None for part in having):
                lacking = len(parts) - sum(part.value is not None for part in having)
                if lacking and len(self.filled) < MAX_REPORTED:
                    self.filled.append(inner[:MAX_SHOWN])
            found[name] = self.value(having, inner, depth + 1)
        return found

    def _list(self, parts: Sequence[Part], path: str) -> list[Any]:
        """All items, the heaviest member's first. The agreement on an item: the share of members that have it."""
        items: dict[str, Any] = {}
        weights: dict[str, float] = {}
        for part in parts:
            own: dict[str, Any] = {}
            for item in part.value:
                own.setdefault(key_of(item), item)
            for key, item in own.items():
                items.setdefault(key, item)
                weights[key] = weights.get(key, 0.0) + part.weight
        total = sum(part.weight for part in parts)
        shares = [weight / total for weight in weights.values()]
        self._note(path, sum(shares) / len(shares) if shares else 1.0)
        self._note_others(path, [items[key] for key, weight in weights.items() if weight < total])
        return list(items.values())

    def _choice(self, parts: Sequence[Part], path: str) -> Any:
        groups: dict[str, list[Part]] = {}
        for part in parts:
            groups.setdefault(key_of(part.value), []).append(part)
        weights = {key: sum(part.weight for part in group) for key, group in groups.items()}
        ordered = sorted(groups, key=lambda key: (-weights[key], -groups[key][0].weight, key))
        if self._prefer != _MAJORITY:
            ordered.sort(key=lambda key: (-groups[key][0].weight, -weights[key], key))
        chosen = ordered[0]
        self._note(path, weights[chosen] / sum(weights.values()))
        self._note_others(path, [groups[key][0].value for key in ordered[1:]])
        return _spelling(groups[chosen])

    def _kind(self, parts: Sequence[Part]) -> str:
        """The kind with the most weight: an object, a list or a plain value."""
        weights: dict[str, float] = {}
        for part in parts:
            weights[_kind_of(part.value)] = weights.get(_kind_of(part.value), 0.0) + part.weight
        return max(weights, key=lambda kind: (weights[kind], kind))

    def _note(self, path: str, share: float) -> None:
        if len(self.agreement) < MAX_REPORTED:
            self.agreement[path[:MAX_SHOWN]] = round(share, 4)

    def _note_others(self, path: str, values: Sequence[Any]) -> None:
        if values and len(self.dissent) < MAX_REPORTED:
            shown = [canonical_json.text_of(value)[:MAX_SHOWN] for value in values[:MAX_REPORTED]]
            self.dissent.setdefault(path[:MAX_SHOWN], []).extend(shown)


def _spelling(parts: Sequence[Part]) -> Any:
    """The most common spelling among equal values."""
    weights: dict[str, float] = {}
    for part in parts:
        text = canonical_json.text_of(part.value)
        weights[text] = weights.get(text, 0.0) + part.weight
    best = max(weights, key=lambda text: (weights[text], text))
    return next(part.value for part in parts if canonical_json.text_of(part.value) == best)


def _kind_of(value: Any) -> str:
    return "object" if isinstance(value, dict) else "list" if isinstance(value, list) else "value"
