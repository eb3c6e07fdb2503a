"""Pure translation: the ends of a text, where an instruction usually stands, and their n-grams.

Of a long text, most words belong to the material. So only the first and the last line or sentence count as ends, and
each of them counts as much as a short text would alone.
"""

from __future__ import annotations

from itertools import repeat
from zlib import crc32

from msgspec import Struct

# Words of an end at most, and those of a line and a sentence at least: a greeting is no instruction.
END_TOKENS = 40
_LINE_TOKENS, _SENTENCE_TOKENS = 6, 12
_SENTENCE_ENDS = (". ", "? ", "! ", "\u3002", "\uff1f", "\uff01", "\u0964", "\u061f")
_EDGE = 6
# Start values of the checksum: one name space for each kind of n-gram.
ANY, FIRST, LAST, PREFIX = 1, 2, 3, 4


class End(Struct, frozen=True):
    """Words, and the checksums of the n-grams in them. `others`: word triples, and words at the very start or end."""

    tokens: list[bytes]
    singles: list[int]
    pairs: list[int]
    starts: list[int]
    others: list[int]

    def __len__(self) -> int:
        return len(self.singles) + len(self.pairs) + len(self.starts) + len(self.others)


def end_of(tokens: list[bytes], spaces: tuple[int, ...]) -> End:
    """`spaces`: FIRST if the text starts with these words, LAST if it ends with them."""
    singles = list(map(crc32, tokens, repeat(ANY)))
    pairs = list(map(crc32, tokens[1:], singles))
    others = list(map(crc32, tokens[2:], pairs))
    for space in spaces:
        some = tokens[:_EDGE] if space == FIRST else tokens[-_EDGE:]
        single = list(map(crc32, some, repeat(space)))
        others += single
        others += map(crc32, some[1:], single)
    return End(tokens, singles, pairs, starts_of(tokens), others)


def starts_of(tokens: list[bytes]) -> list[int]:
    return [crc32(word[:4], PREFIX) for word in tokens if len(word) > 4]


def ends_in(sample: str, words: int) -> tuple[str, str]:
    """The first and the last line or sentence of a sample of so many words; "" if there is none in END_TOKENS or so.

    A word is taken to be as long as the average one, so the words need not be found first.
    """
    width, size = len(sample) / words, len(sample)
    most, line, sentence = int(1.5 * END_TOKENS * width), int(_LINE_TOKENS * width), int(_SENTENCE_TOKENS * width)
    found = [sample.find("\n", line, most), *(sample.find(mark, sentence, most) for mark in _SENTENCE_ENDS)]
    head = min((at for at in found if at >= 0), default=-1)
    found = [sample.rfind("\n", size - most, size - line)]
    found += [sample.rfind(mark, size - most, size - sentence) for mark in _SENTENCE_ENDS]
    tail = max(found)
    return sample[: head + 1], sample[tail + 1 :] if tail >= 0 else ""
