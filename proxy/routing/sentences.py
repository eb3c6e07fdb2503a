"""Pure translation: the sentences of a text, and their n-grams.

Of a long text, most words belong to the material, and the instruction is a sentence before, after or within it. So each
sentence is scored by itself, and the classifier finds out which of them counts.
"""

from __future__ import annotations

from itertools import islice, repeat
from zlib import crc32

from msgspec import Struct

MOST = 12  # sentences: the first six and the last six
WORDS = 40  # of a sentence; a longer one is several
_FEWEST = 3  # words of a sentence; a shorter one is a part of the next
_MAX_LINES = 120
_EDGE = 6
_WIDE_START = 8  # bytes: four letters of Russian or Arabic
# Start values of the checksum: one name space for each kind of n-gram.
ANY, FIRST, LAST, PREFIX = 1, 2, 3, 4
PLACES = ("only", "first", "second", "middle", "last but one", "last")


class Sentence(Struct, frozen=True):
    """Words, and the checksums of the n-grams in them. `others`: word triples, and words at the very start or end of
    the text. `place`: one of PLACES.
    """

    words: list[bytes]
    place: str
    singles: list[int]
    pairs: list[int]
    starts: list[int]
    others: list[int]

    def __len__(self) -> int:
        return len(self.singles) + len(self.pairs) + len(self.starts) + len(self.others)


def sentences_of(prepared: bytes) -> list[Sentence]:
    """`prepared`: the words of a text, as `words.prepared` has them. One sentence at least."""
    found = _cut(prepared)
    last = len(found) - 1
    return [_sentence(words, _place(at, last)) for at, words in enumerate(found)]


def _place(at: int, last: int) -> str:
    if at in (0, last):
        return "only" if last == 0 else "first" if at == 0 else "last"
    return "second" if at == 1 else "last but one" if at == last - 1 else "middle"


def _cut(prepared: bytes) -> list[list[bytes]]:
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
    return found if len(found) <= MOST else found[: MOST // 2] + found[-MOST // 2 :]


def _sentence(words: list[bytes], place: str) -> Sentence:
    singles = list(map(crc32, words, repeat(ANY)))
    pairs = list(map(crc32, islice(words, 1, None), singles))
    others = list(map(crc32, islice(words, 2, None), pairs))
    if place in ("first", "only"):
        others += _edge(words[:_EDGE], FIRST)
    if place in ("last", "only"):
        others += _edge(words[-_EDGE:], LAST)
    return Sentence(words, place, singles, pairs, starts_of(words, _WIDE_START), others)


def _edge(words: list[bytes], space: int) -> list[int]:
    singles = list(map(crc32, words, repeat(space)))
    return singles + list(map(crc32, words[1:], singles))


def starts_of(words: list[bytes], wide: int = 4) -> list[int]:
    """The first four bytes of the longer words, or `wide` bytes of one that does not begin with an ASCII letter."""
    return [
        crc32(word[:size], PREFIX)
        for word in words
        if len(word) > 4 and len(word) > (size := 4 if word[0] < 128 else wide)
    ]
