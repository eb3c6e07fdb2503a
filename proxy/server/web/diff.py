"""Translates: two versions of a text -> the lines that a page shows of their difference. Pure, for a thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from msgspec import Struct

MAX_LINES = 1_000  # that a page shows
_AROUND = 3  # unchanged lines before and after a change
_MAX_COMPARED = 2_000  # beyond that the comparison takes too long, and all of it counts as changed


class Line(Struct, frozen=True):
    """`kind`: added, removed, same or gap. `number`: in the new text, or in the old one for a removed line."""

    kind: str
    number: int
    text: str


def diff(before: str, after: str) -> list[Line]:
    """Their difference, with a few lines around each change; empty if there is none."""
    old, new = before.splitlines(), after.splitlines()
    if old == new:
        return [] if before == after else [Line("gap", 0, "Only line breaks differ.")]
    found: list[Line] = []
    last = None
    for line in _changed(old, new):
        if last is not None and line.kind != "removed" and last.kind == "same" and line.number > last.number + 1:
            found.append(Line("gap", 0, ""))
        found.append(line)
        last = line
        if len(found) >= MAX_LINES:
            return [*found, Line("gap", 0, f"The page shows {MAX_LINES:,} lines; there are more.")]
    return found


def _changed(old: Sequence[str], new: Sequence[str]) -> Iterator[Line]:
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    first = max(0, start - _AROUND)
    yield from (Line("same", first + place + 1, text) for place, text in enumerate(new[first:start]))
    yield from _compared(old[start : len(old) - end], new[start : len(new) - end], start)
    after = len(new) - end
    yield from (Line("same", after + place + 1, text) for place, text in enumerate(new[after : after + _AROUND]))


def _compared(old: Sequence[str], new: Sequence[str], offset: int) -> Iterator[Line]:
    if max(len(old), len(new)) > _MAX_COMPARED:
        yield from (Line("removed", offset + place + 1, text) for place, text in enumerate(old))
        yield from (Line("added", offset + place + 1, text) for place, text in enumerate(new))
        return
    for group in SequenceMatcher(None, old, new).get_grouped_opcodes(_AROUND):
        for kind, old_from, old_to, new_from, new_to in group:
            if kind == "equal":
                for place in range(new_from, new_to):
                    yield Line("same", offset + place + 1, new[place])
                continue
            for place in range(old_from, old_to):
                yield Line("removed", offset + place + 1, old[place])
            for place in range(new_from, new_to):
                yield Line("added", offset + place + 1, new[place])
