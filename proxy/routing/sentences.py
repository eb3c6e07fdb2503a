"""Pure translation: the sentences of a text, and their n-grams.

Of a long text, most words belong to the material, and the instruction is a sentence before, after or within it. So each
sentence is scored by itself, and the classifier finds out which of them counts.
"""

from __future__ import annotations

from itertools import islice, repeat
from operator import itemgetter
from zlib import crc32

from msgspec import Struct

MOST = 12  # sentences: the first six and the last six
SYSTEM_MOST = 6  # of a system prompt: the first three and the last three
WORDS = 40  # of a sentence; a longer one is several
_FEWEST = 3  # words of a sentence; a shorter one is a part of the next
_MAX_LINES = 120
_EDGE = 6
_START, _LONG_START, _WIDE_START = 4, 6, 8  # bytes of a word; a letter of Russian or Arabic takes two
_start, _long_start = itemgetter(slice(_START)), itemgetter(slice(_LONG_START))
# Start values of the checksum: one name space for each kind of n-gram.
ANY, FIRST, LAST, PREFIX, LONG_PREFIX = 1, 2, 3, 4, 8
OF_SYSTEM = "system"  # the place of each sentence of the system prompt
PLACES = ("only", "first", "second", "middle", "last but one", "last", OF_SYSTEM)


class Sentence(Struct, frozen=True):
    """Words, and the checksums of the n-grams in them. `starts`: beginnings of words. `edges`: words and pairs at the
    very start or end of the text. `place`: one of PLACES.
    """

    words: list[bytes]
    place: str
    singles: list[int]
    pairs: list[int]
    starts: list[int]
    edges: list[int]

    def __len__(self) -> int:
        return len(self.singles) + len(self.pairs) + len(self.starts) + len(self.edges)


def sentences_of(prepared: bytes) -> list[Sentence]:
    """`prepared`: the words of a text, as `words.prepared` has them. One sentence at least."""
    found, is_ascii = _cut(prepared, MOST), prepared.isascii()
    last = len(found) - 1
    return [_sentence(words, _place(at, last), is_ascii) for at, words in enumerate(found)]


def system_sentences_of(prepared: bytes) -> list[Sentence]:
    """The same of a system prompt; none if there are no words."""
    is_ascii = prepared.isascii()
    return [_sentence(words, OF_SYSTEM, is_ascii) for words in _cut(prepared, SYSTEM_MOST) if words]


def _place(at: int, last: int) -> str:
    if at in (0, last):
        return "only" if last == 0 else "first" if at == 0 else "last"
    return "second" if at == 1 else "last but one" if at == last - 1 else "middle"


def _cut(prepared: bytes, most: int) -> list[list[bytes]]:
    lines = prepared.split(b"\n")
    if len(lines) > _MAX_LINES:
        lines = lines[: _MAX_LINES // 2] + lines[-_MAX_LINES // 2 :]
    found: list[list[bytes]] = []
    held: list[bytes] = []
    for line in lines:
        held += line.split()
        if len(held) >= _FEWEST:
            found += [held] if len(held) <= WORDS else [held[at : at + WORDS] for at in range(0, len(held), WORDS)]
            held = []
    if held and found:
        found[-1] = found[-1] + held
    elif held or not found:
        found.append(held)
    return found if len(found) <= most else found[: most // 2] + found[-most // 2 :]


def _sentence(words: list[bytes], place: str, is_ascii: bool) -> Sentence:
    singles = list(map(crc32, words, repeat(ANY)))
    pairs = list(map(crc32, islice(words, 1, None), singles))
    starts = starts_of(words) if is_ascii else _wide_starts_of(words)
    starts += map(crc32, map(_long_start, [word for word in words if len(word) > _LONG_START]), repeat(LONG_PREFIX))
    edges = _edge(words[:_EDGE], FIRST) if place in ("first", "only") else []
    if place in ("last", "only"):
        edges += _edge(words[-_EDGE:], LAST)
    return Sentence(words, place, singles, pairs, starts, edges)


def _edge(words: list[bytes], space: int) -> list[int]:
    singles = list(map(crc32, words, repeat(space)))
    return singles + list(map(crc32, words[1:], singles))


def starts_of(words: list[bytes]) -> list[int]:
    """The first four bytes of the longer words."""
    return list(map(crc32, map(_start, [word for word in words if len(word) > _START]), repeat(PREFIX)))


def _wide_starts_of(words: list[bytes]) -> list[int]:
    """The same, but eight bytes of a word that does not begin with an ASCII letter."""
    sizes = [_START if word[0] < 128 else _WIDE_START for word in words]
    return [crc32(word[:size], PREFIX) for word, size in zip(words, sizes, strict=True) if len(word) > size]
