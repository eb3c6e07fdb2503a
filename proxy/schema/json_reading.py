"""Translates: a large JSON text into its value, in steps that are all short.

A single call that parses 30 MB holds the GIL for 30 ms or more, and one that only skips them for 10. So the text is cut
at commas into runs of about a megabyte, each of which one call reads. What has no comma to cut at is one large member
of its container: a text, which is read slice by slice, or a container, which is cut in turn.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import Any, cast

import msgspec

from proxy.schema.json_structure import STEP_BYTES, depths, is_escaping, sliced
from proxy.schema.long_text import joined

BROKEN_OFF = "Input data was truncated"  # msgspec's words
MAX_TEXT_BYTES = 32 * 1024 * 1024  # in memory, of a text that takes more than one byte for each character
encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder().decode
_TEXT_HEADER = sys.getsizeof("\xe9") - 2  # bytes of a text that is not ASCII, beside its characters and a zero
_LITERAL_BYTES = 256 * 1024  # of a string that are decoded at once: an escape takes 30 times as long as a plain byte
_TOO_LONG = (
    "A text with characters beyond ASCII may take 32 MB of memory: 8 million characters with emoji, 16 million in "
    "other scripts."
)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_BLANKS = b" \t\r\n"
_BLANK = re.compile(rb"[ \t\r\n]*")
_REST = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)  # of a string, from anywhere in it
_TOKEN = re.compile(rb'"(?:[^"\\]*+(?:\\.[^"\\]*+)*+)"?|[][{},]', re.DOTALL)
_COMMA, _OPENING, _CLOSING = ord(","), b"[{", b"]}"
_LOW_SURROGATE = re.compile(rb"\\u[dD][c-fC-F]")
Read = Callable[[bytes], Any]


class TextTooLong(msgspec.DecodeError):
    """A text over MAX_TEXT_BYTES."""


def read_large(text: bytes, read: Read) -> Any:
    """The value of a JSON text, whose parts `read` decodes. Raises msgspec.DecodeError."""
    return _Reader(text, read).whole()


def replace_member(text: bytes, name: str, value: bytes | None) -> bytes:
    """A large JSON object with another value for one member; the bytes of the others stay as they are.

    None removes the member. Where it has that value already, `text` itself.
    """
    return _Reader(text, decode).replaced(name, value)


class _Reader:
    """One text. The index holds the state of each slice; commas are located only where a cut is needed."""

    def __init__(self, text: bytes, read: Read) -> None:
        self._text = text
        self._read = read
        self._starts = [0]  # of slices, and the end of the last one
        self._quoted = [False]  # whether a slice begins within a string
        self._depths = [0]  # open containers where it begins
        self._lowest: list[int] = []  # the fewest open containers in it
        self._commas: dict[int, dict[int, tuple[int, int]]] = {}  # slice -> open containers -> first and last comma
        depth = 0
        for end, quoted, found in sliced(text):
            profile = depths(found)
            self._lowest.append(depth + min(0, min(profile, default=0)))
            depth += profile[-1] if profile else 0
            self._starts.append(end)
            self._quoted.append(quoted)
            self._depths.append(depth)

    def whole(self) -> Any:
        if self._depths[-1] > 0 or self._quoted[-1]:
            raise msgspec.DecodeError(BROKEN_OFF)
        return self._value(0, len(self._text), 1)

    def replaced(self, name: str, value: bytes | None) -> bytes:
        begin, end = self._bare(0, len(self._text))
        if self._text[begin : begin + 1] != b"{":
            raise _malformed()
        written, is_new, text = bytearray(b"{"), True, memoryview(self._text)
        for at, until, is_one in self._runs(*self._bare(begin + 1, end - 1), 1):
            comma = b"," if len(written) > 1 else b""
            if is_one and self._name(*self._bare(at, until))[0] != name:
                written += comma
                for begin in range(at, until, STEP_BYTES):
                    written += text[begin : min(begin + STEP_BYTES, until)]
                continue
            members = {name: b""} if is_one else _members(b"{%b}" % self._text[at:until])
            if name in members:
                if value is not None and not is_one and decode(members[name]) == decode(value):
                    return self._text
                is_new = False
                members |= {name: msgspec.Raw(value or b"")}
                if value is None:
                    del members[name]
            if members:
                written += comma
                written += memoryview(encode(members))[1:-1]
        if is_new and value is None:
            return self._text
        if is_new and value is not None:
            written += (b"," if len(written) > 1 else b"") + encode(name) + b":" + value
        written += b"}"
        return cast(bytes, written)

    def _value(self, begin: int, end: int, depth: int) -> Any:
        """The value between two places. `depth`: open containers within it, if it is one."""
        begin, end = self._bare(begin, end)
        text = self._text
        if end - begin <= STEP_BYTES:
            return self._read(text[begin:end])
        first, last = text[begin], text[end - 1]
        if first == last == ord('"'):
            return self._string(begin + 1, end - 1)
        if first == ord("[") and last == ord("]"):
            items: list[Any] = []
            for at, until, is_one in self._runs(*self._bare(begin + 1, end - 1), depth):
                if is_one:
                    items.append(self._value(at, until, depth + 1))
                else:
                    items += _some(self._read(b"[%b]" % text[at:until]))
            return items
        if first == ord("{") and last == ord("}"):
            members: dict[str, Any] = {}
            for at, until, is_one in self._runs(*self._bare(begin + 1, end - 1), depth):
                if is_one:
                    name, at = self._name(*self._bare(at, until))
                    members[name] = self._value(at, until, depth + 1)
                else:
                    members |= _some(self._read(b"{%b}" % text[at:until]))
            return members
        raise _malformed()

    def _runs(self, at: int, last: int, depth: int) -> Iterator[tuple[int, int, bool]]:
        """The inside of a container in runs of its members, and whether a run is one large member."""
        if at == last:
            return
        while last - at > STEP_BYTES:
            place = bisect_left(self._starts, at + STEP_BYTES // 2)
            stop = self._first_comma(place, last, depth)
            if stop - at > STEP_BYTES:
                before = self._last_comma(place, at, depth)
                if before >= at:
                    yield at, before, False
                    at = before + 1
                yield at, stop, True
            else:
                yield at, stop, False
            if stop == last:
                return
            at = stop + 1
        yield at, last, False

    def _first_comma(self, place: int, last: int, depth: int) -> int:
        """The first comma of a container from a slice on, else where it ends."""
        while place < len(self._lowest) and self._starts[place] < last:
            if self._lowest[place] <= depth and depth in (found := self._commas_of(place)):
                return min(found[depth][0], last)
            place += 1
        return last

    def _last_comma(self, place: int, at: int, depth: int) -> int:
        """The last comma of a container before a slice; -1: there is none after `at`."""
        for before in range(place - 1, bisect_right(self._starts, at) - 2, -1):
            if self._lowest[before] <= depth and depth in (found := self._commas_of(before)):
                return found[depth][1] if found[depth][1] >= at else -1
        return -1

    def _commas_of(self, place: int) -> dict[int, tuple[int, int]]:
        known = self._commas.get(place)
        if known is not None:
            return known
        found = self._commas[place] = {}
        text, at, end, depth = self._text, self._starts[place], self._starts[place + 1], self._depths[place]
        if self._quoted[place]:
            if text.find(b'"', at, end) < 0:  # a slice of a long string, such as an image
                return found
            at = rest.end() if (rest := _REST.match(text, at, end)) else end
        for token in _TOKEN.finditer(text, at, end):
            byte = text[token.start()]
            if byte == _COMMA:
                found[depth] = (found[depth][0] if depth in found else token.start(), token.start())
            elif byte in _OPENING:
                depth += 1
            elif byte in _CLOSING:
                depth -= 1
        return found

    def _bare(self, begin: int, end: int) -> tuple[int, int]:
        """The range without surrounding white space."""
        begin = self._skipped(begin, end)
        while end > begin and self._text[end - 1] in _BLANKS:
            at = max(begin, end - STEP_BYTES)
            end = at + len(self._text[at:end].rstrip(_BLANKS))
        return begin, end

    def _skipped(self, at: int, end: int) -> int:
        """The first position that is not white space."""
        while at < end and self._text[at] in _BLANKS:
            blank = _BLANK.match(self._text, at, min(at + STEP_BYTES, end))
            at = blank.end() if blank else end
        return at

    def _name(self, begin: int, end: int) -> tuple[str, int]:
        """The key of a large member, and where its value begins."""
        at = begin + 1
        place = bisect_right(self._starts, begin)
        while (rest := _REST.match(self._text, at, min(self._starts[place], end))) is None:
            at = self._starts[place]
            if at >= end:
                raise _malformed()
            place += 1
        colon = self._skipped(rest.end(), end)
        if self._text[begin] != ord('"') or self._text[colon : colon + 1] != b":":
            raise _malformed()
        return self._string(begin + 1, rest.end() - 1), colon + 1

    def _string(self, at: int, end: int) -> str:
        """The text between two quotes."""
        pieces: list[str] = []
        length = width = 0
        while at < end:
            until = self._cut(at, at + _LITERAL_BYTES) if end - at > _LITERAL_BYTES else end
            piece: str = self._read(b'"%b"' % self._text[at:until])
            pieces.append(piece)
            length += len(piece)
            if not piece.isascii():
                width = max(width, (sys.getsizeof(piece) - _TEXT_HEADER) // (len(piece) + 1))
            at = until
            if length * width > MAX_TEXT_BYTES:
                raise TextTooLong(_TOO_LONG)
        return joined(pieces)

    def _cut(self, at: int, until: int) -> int:
        """A place in a string near `until` that is not within an escape, a surrogate pair or a character."""
        text = self._text
        if is_escaping(text[at:until]):
            until -= 1
        else:
            mark = text.rfind(b"\\u", until - 5, until)
            if mark >= 0 and is_escaping(text[at : mark + 1]):
                until = mark
        while text[until] & 0xC0 == 0x80 and until > at + 1:
            until -= 1
        return until - 6 if _LOW_SURROGATE.match(text, until) else until


def _some(found: Any) -> Any:
    """Raises DecodeError for a run without members: there was an extra comma."""
    if not found:
        raise _malformed()
    return found


def _malformed() -> msgspec.DecodeError:
    return msgspec.DecodeError("JSON is malformed")
