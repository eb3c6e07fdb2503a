"""Translates: JSON that clients' parsers accept and a strict one refuses: escapes of lone surrogates, NaN, Infinity,
numbers beyond a float, line ends inside strings, bytes that are not UTF-8.
"""

from __future__ import annotations

import json
import re
from typing import Any


def lenient(data: bytes) -> Any:
    """The value; texts may contain lone surrogates. Raises ValueError for text that is not JSON by any reading."""
    return json.loads(data.decode("utf-8", "replace"), strict=False)


def without_halves(value: Any) -> Any:
    """The value with U+FFFD for each lone surrogate in its texts, which could not be encoded again."""
    if isinstance(value, str):
        return value if value.isascii() else joined_halves(value)
    if isinstance(value, dict):
        return {without_halves(name): without_halves(each) for name, each in value.items()}
    return [without_halves(each) for each in value] if isinstance(value, list) else value


def joined_halves(text: str) -> str:
    """The text with adjacent halves joined to one character, and U+FFFD for lone ones."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


# In JSON: the escape of a first half at the end of a text, and the start of a text that begins with a second half.
_FIRST = re.compile(rb'(?<!\\)(?:\\\\)*(\\u[dD][89abAB][0-9a-fA-F]{2})(?=")')
_SECOND = re.compile(rb'(?<!\\)"(?=\\u[dD][c-fC-F][0-9a-fA-F]{2})')


_MAX_PIECE = 65536  # bytes of an event: streams that cut characters send small ones


def ends_in_half(data: bytes) -> bool:
    """True if a text in this JSON ends in the first half of a character."""
    if len(data) > _MAX_PIECE or not (b"\\ud" in data or b"\\uD" in data):
        return False
    return _FIRST.search(data) is not None


def with_halves_moved(data: bytes, following: bytes) -> tuple[bytes, bytes]:
    """Two events of one stream, each first half moved to its second one; unchanged where they do not pair up."""
    firsts = _FIRST.findall(data)
    if len(following) > _MAX_PIECE or len(firsts) != len(_SECOND.findall(following)):
        return data, following
    halves = iter(firsts)
    data = _FIRST.sub(lambda found: found[0][: -len(found[1])], data)
    return data, _SECOND.sub(lambda quote: quote[0] + next(halves), following)


class Halves:
    """Joins the halves of a character that two pieces of a text share."""

    def __init__(self) -> None:
        self._held: dict[object, str] = {}  # by text: the first half, at the end of its last piece

    def __bool__(self) -> bool:
        return bool(self._held)

    def feed(self, key: object, piece: str) -> str:
        """The piece, after the half of the one before; a half at its end is held back."""
        text = self._held.pop(key, "") + piece
        if text and "\ud800" <= text[-1] <= "\udbff":
            self._held[key] = text[-1]
            text = text[:-1]
        return text if text.isascii() else joined_halves(text)

    def rest(self, key: object) -> str:
        """The half held back, once no piece follows."""
        return "\ufffd" if self._held.pop(key, "") else ""
