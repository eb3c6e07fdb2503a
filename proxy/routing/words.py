"""Pure translation: a text becomes its words, and the lines and sentences that they stand in."""

from __future__ import annotations

import re
import struct

_DOTTED = "\u0130"  # capital dotted i, the only letter that is two characters in lower case

# Each character of these scripts is a word, because there are no spaces.
DENSE_SCRIPTS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3040-\ud7af\uf900-\ufaff"
_find_many_dense = re.compile(f"(?:[^{DENSE_SCRIPTS}]*+[{DENSE_SCRIPTS}]){{21}}").match
_find_sparse = re.compile(rf"[^\W{DENSE_SCRIPTS}]").search  # a letter or digit of another script
_split_dense = re.compile(f"([{DENSE_SCRIPTS}])").split
# The upper bytes in UTF-16 of these scripts, and the others: most texts need no check of each character.
_DENSE_BLOCKS = bytes([0x0E, 0x10, 0x17, *range(0x30, 0xD8), 0xF9, 0xFA])
_OTHER_BLOCKS = bytes(set(range(256)).difference(_DENSE_BLOCKS))
_NOT_DENSE = re.compile(f"[^{DENSE_SCRIPTS}]+")
# Neither a letter nor a digit of any script, nor the white space at which bytes are split.
_SEPARATORS = re.compile(rf"[^\w{DENSE_SCRIPTS} \t\n\r\f\v]+")
_SENTENCE_ENDS = re.compile("[.!?\u3002\uff01\uff1f\u0964\u061f]")
_SIGNS = b"\"#$%&'()*+,-/:;<=>@[\\]^_`{|}~"
_BYTES = bytes.maketrans(b"0123456789" + _SIGNS + b".!?", b"0" * 10 + b" " * len(_SIGNS) + b"\n" * 3)


def is_dense(text: str) -> bool:
    """True if more than 20 of the first 200 characters are in scripts without spaces."""
    return _find_many_dense(text, 0, 200) is not None


def words_of(sample: str) -> list[bytes]:
    """Words in lower case as UTF-8; digits become 0, punctuation separates, dense scripts give a word a character."""
    return prepared(sample).split()


def prepared(sample: str) -> bytes:
    """The words with white space between them, and a line end wherever a line or a sentence ends."""
    lower = sample.replace(_DOTTED, "i").lower()
    if not lower.isascii():
        lower = _SENTENCE_ENDS.sub("\n", lower)
        if _find_sparse(lower) is None:
            return b"\n".join([b" ".join(_characters(line)) for line in lower.split("\n")])
        is_spaced = not blocks_of(lower).translate(None, _OTHER_BLOCKS)
        lower = _SEPARATORS.sub(" ", lower)
        if not is_spaced:
            lower = " ".join(_split_dense(lower))
    return lower.encode("utf-8", "replace").translate(_BYTES)


def _characters(line: str) -> tuple[bytes, ...]:
    data = _NOT_DENSE.sub("", line).encode()
    return struct.unpack("3s" * (len(data) // 3), data)


def blocks_of(text: str) -> bytes:
    """The upper byte of each UTF-16 unit: roughly, the script. All of them if there is an unpaired surrogate."""
    try:
        return text.encode("utf-16-le")[1::2]
    except UnicodeEncodeError:
        return bytes(range(256))
