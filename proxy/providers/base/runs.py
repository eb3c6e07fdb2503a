"""Translates: events in a row that differ only in their text, as nearly all events of a stream do.

Hardly a step is Python's own for each event: a stream has hundreds of them, and all that is done for each adds up.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from operator import itemgetter
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from proxy.schema.sse import Events

_MAX_EVENTS = 256  # that are read at once: what is not used of them is read again
_texts = msgspec.json.Decoder(list[Annotated[str, Meta(min_length=1)]]).decode


Steps = tuple[Callable[[Any], Any], ...]  # from an event's data to its text; ValueError if it does more than add text


class TextRuns:
    """Reads the texts of one stream. `mark`: what precedes the text in an event."""

    def __init__(self, mark: bytes) -> None:
        self._mark = mark
        self._head = self._tail = b""  # around the text of one event; most of those that follow repeat them

    def read(self, events: Events, at: int, steps: Steps) -> list[str]:
        """The texts of the events from number `at` on, as far as each only adds text and has the name of the first."""
        names = events.names[at : at + _MAX_EVENTS]
        alike = len(names)
        if names.count(names[0]) < alike:
            alike = next(number for number, name in enumerate(names) if name != names[0])
        found = events.data[at : at + alike]
        if not self._head or not found[0].startswith(self._head):
            self._learn(found[0], steps)
        return self._alike(found[:]) or _one_by_one(found, steps)

    def _learn(self, data: bytes, steps: Steps) -> None:
        """Finds the text in an event, and makes sure by reading the event with another text."""
        head, mark, rest = data.partition(self._mark)
        _, quote, tail = rest.partition(b'"')
        head, tail = head + mark, quote + tail
        is_text = bool(mark and quote) and _one_by_one([head + b"?" + tail], steps) == ["?"]
        self._head, self._tail = (head, tail) if is_text else (b"", b"")

    def _alike(self, found: list[bytes]) -> list[str]:
        """The texts if the events differ in nothing else, read as one list; otherwise none. Other events at the end do
        not count: that of a stream often comes in one piece with the last texts.
        """
        head, tail = self._head, self._tail
        if not head:
            return []
        while found and not (found[-1].endswith(tail) and found[-1].startswith(head)):
            found.pop()
        texts = list(map(itemgetter(slice(len(head), -len(tail))), found))
        # Joining and comparing takes a fraction of the time of looking at each of them, or of searching in all.
        if b"".join([head, (tail + head).join(texts), tail]) != b"".join(found):
            return []
        try:
            read = _texts(b'["' + b'","'.join(texts) + b'"]')
        except ValueError:
            return []
        return read if len(read) == len(found) else []  # not so if a text holds a quotation mark, which ends it


def _one_by_one(found: list[bytes], steps: Steps) -> list[str]:
    run: Any = found
    for step in steps:
        run = map(step, run)
    texts: list[str] = []
    # msgspec's errors and those of UTF-8 are ValueErrors. `extend` keeps the texts before the event that is refused.
    with suppress(ValueError, RecursionError):
        texts.extend(run)
    return texts
