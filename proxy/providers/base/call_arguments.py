"""Translates: the arguments of one streamed tool call, fragment by fragment, into pieces that can be passed on."""

from __future__ import annotations

import re

from proxy.providers.base.lenient import Halves
from proxy.schema.long_text import joined

_MARKS = re.compile(r'\\.?|["{}\[\]]', re.DOTALL)
_PLACEHOLDERS = ("null", "{}")
_SHORT = 64  # characters; a longer fragment is not a placeholder


class Arguments:
    """Holds back text that may mean "no arguments": `null`, or the `{}` that some servers send before the real ones.

    `is_free`: the input of a custom tool, which is any text.
    """

    __slots__ = (
        "_depth",
        "_halves",
        "_is_free",
        "_length",
        "_pieces",
        "_quoted",
        "_scanned",
        "_sent",
        "_split",
        "_word",
    )

    def __init__(self, is_free: bool = False) -> None:
        self._is_free = is_free
        self._pieces: list[str] = []
        self._length = self._sent = 0  # characters; pieces that were passed on
        self._word = ""  # the text without white space, until it cannot be a placeholder
        self._scanned = self._depth = 0
        self._quoted = self._split = False  # inside a string; after a backslash that ended a piece
        self._halves = Halves()

    def add(self, fragment: str) -> None:
        if self._halves or not fragment.isascii():
            fragment = self._halves.feed("", fragment)
        if self._is_open or not self._word:
            said = _start(fragment)
            if said and self.is_placeholder:
                self._pieces, self._word = [], ""
                self._length = self._sent = self._scanned = self._depth = 0
            self._word += said
        self._pieces.append(fragment)
        self._length += len(fragment)

    def take(self) -> str:
        """The text that can be passed on now."""
        return "" if self._is_open else self._unsent()

    def rest(self) -> str:
        """The text held back, once no more follows: a call without arguments has `{}`."""
        if not self._is_free and self._word in ("", "null"):
            self._pieces, self._word, self._sent = ["{}"], "{}", 0
        return self._unsent() + self._halves.rest("")

    @property
    def has_begun(self) -> bool:
        return bool(self._word)

    @property
    def is_placeholder(self) -> bool:
        return not self._is_free and self._word in _PLACEHOLDERS

    @property
    def is_whole(self) -> bool:
        """True once the object is complete. Each piece is read once, and only if this is called."""
        if self._is_free or not self._word:
            return False
        for piece in self._pieces[self._scanned :]:
            self._scan(piece)
        self._scanned = len(self._pieces)
        return self._word == "null" or (self._word[0] in "{[" and self._depth == 0)

    def equals(self, text: str) -> bool:
        return len(text) == self._length and joined(self._pieces) == text

    @property
    def _is_open(self) -> bool:
        return not self._is_free and (self._word == "{}" or "null".startswith(self._word))

    def _unsent(self) -> str:
        pieces = self._pieces[self._sent :]
        self._sent += len(pieces)
        return joined(pieces)

    def _scan(self, piece: str) -> None:
        start = 1 if self._split and piece else 0
        self._split = self._split and not piece
        for found in _MARKS.finditer(piece, start):
            mark = found[0]
            if mark == "\\":  # the character that it escapes is in the next piece
                self._split = True
            elif mark == '"':
                self._quoted = not self._quoted
            elif len(mark) == 1 and not self._quoted:
                self._depth += 1 if mark in "{[" else -1


def _start(fragment: str) -> str:
    """The part of a fragment that is enough to recognise a placeholder."""
    return fragment.strip() if len(fragment) <= _SHORT or fragment.isspace() else fragment.lstrip()[:_SHORT]
