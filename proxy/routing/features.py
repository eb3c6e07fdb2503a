"""Pure translation: a prompt becomes the numbers that the linear models of the classifier read.

Only a window of the text is read, so the cost does not grow with the prompt: see `window`. The trainer imports this
module too, so that both sides always compute the same features.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import repeat
from zlib import crc32

from msgspec import Struct

from proxy.routing.conversation import Conversation

HEAD_CHARS, TAIL_CHARS = 1_200, 400
# Characters outside ASCII cost more.
WIDE_HEAD_CHARS, WIDE_TAIL_CHARS = 600, 200
# Each character of these scripts is one token, and there are no spaces, so the window is shorter.
DENSE_HEAD_CHARS, DENSE_TAIL_CHARS = 250, 80
SYSTEM_CHARS = 300

_EDGE_TOKENS = 40
_ENDS = 6
_BODY_TOKENS = 160
# Start values of the checksum: one name space for each kind of n-gram.
_ANY, _FIRST, _LAST, _PREFIX, _BODY = 1, 2, 3, 4, 5

_DENSE_SCRIPTS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3040-\ud7af\uf900-\ufaff"
_DENSE = re.compile(f"[{_DENSE_SCRIPTS}]")
_WORDS = re.compile(rf"[{_DENSE_SCRIPTS}]|[^\W{_DENSE_SCRIPTS}]+")
_BYTES = bytes.maketrans(b"0123456789!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", b"0" * 10 + b" " * 32)
_LANGUAGE_CHARS = 120


class Features(Struct, frozen=True):
    """Checksums of n-grams in two groups, each with the text behind it where that can be shown, and the shape."""

    tokens: list[bytes]
    singles: list[int]
    pairs: list[int]
    others: list[int]
    body: list[int]
    system: list[int]
    shape: list[str]
    measures: list[float]


def window(text: str) -> str:
    """The characters that are read: all of a short text, else its first 1,200 and last 400.

    600 and 200 where some of these are outside ASCII, 250 and 80 in scripts without spaces (Chinese, Japanese, Korean,
    Thai).
    """
    sample = _ends_of(text, HEAD_CHARS, TAIL_CHARS)
    if sample.isascii():
        return sample
    if len(_DENSE.findall(sample[:200])) > 20:
        return _ends_of(text, DENSE_HEAD_CHARS, DENSE_TAIL_CHARS)
    return _ends_of(text, WIDE_HEAD_CHARS, WIDE_TAIL_CHARS)


def _ends_of(text: str, head: int, tail: int) -> str:
    return text if len(text) <= head + tail else text[:head] + "\n" + text[-tail:]


def tokens_of(sample: str) -> list[bytes]:
    """Words in lower case as UTF-8; digits become 0, punctuation separates, dense scripts give a token a character."""
    lower = sample.lower()
    if not lower.isascii():
        lower = " ".join(_WORDS.findall(lower))
    return lower.encode("utf-8", "replace").translate(_BYTES).split()


def features_of(conversation: Conversation) -> Features:
    text = conversation.text
    sample = window(text)
    words = tokens_of(sample)
    edge = words if len(words) <= 2 * _EDGE_TOKENS else words[:_EDGE_TOKENS] + words[-_EDGE_TOKENS:]
    singles = list(map(crc32, edge, repeat(_ANY)))
    pairs = list(map(crc32, edge[1:], singles))
    others = list(map(crc32, edge[2:], pairs))
    for start, some in ((_FIRST, words[:_ENDS]), (_LAST, words[-_ENDS:])):
        single = list(map(crc32, some, repeat(start)))
        others += single
        others += map(crc32, some[1:], single)
    others += [crc32(word[:4], _PREFIX) for word in edge if len(word) > 4]
    middle = words[_EDGE_TOKENS:-_EDGE_TOKENS][:_BODY_TOKENS]
    body = list(set(map(crc32, middle, repeat(_BODY))))
    shape, measures = _look_of(text, sample, words)
    shape += _flags_of(conversation)
    return Features(edge, singles, pairs, others, body, _of_system(conversation.system), shape, measures)


def _flags_of(conversation: Conversation) -> list[str]:
    names = []
    if conversation.has_json_schema:
        names.append("a JSON schema")
    if conversation.system:
        names.append("a system prompt")
    return names


def _of_system(system: str) -> list[int]:
    if not system:
        return []
    words = tokens_of(system[:SYSTEM_CHARS])[:_EDGE_TOKENS]
    singles = list(map(crc32, words, repeat(_ANY)))
    pairs = list(map(crc32, words[1:], singles))
    return singles + pairs + list(map(crc32, words[2:], pairs))


_CODE_SIGNS = ("```", "();", "{\n", "def ", "</", "=>", "==", "#include", "SELECT ", "import ", "->", "++", "${", "$(")
_QUESTION_MARKS = ("?", "\uff1f", "\u061f")
_OPTIONS = ("\nB)", "\nB.", "\n(B)", "(b)", " B)", " b)", " B. ")
_LISTS = ("\n- ", "\n* ", "\n1.", "\n2)")
_SENTENCE_ENDS = (". ", "? ", "\u3002")
_FIRST_OPTIONS = ("\nA.", "\nA)", "\n(A)", "\nA:", "\nOptions", "\nChoices", "\na)", "\n1)")
# Single letters that are neither words nor names of options.
_SYMBOLS = frozenset(bytes([letter]) for letter in b"fghjklmnopqrstuvwxyz")
_NUMBERS = re.compile(r"\d+")


def _look_of(text: str, sample: str, words: list[bytes]) -> tuple[list[str], list[float]]:
    lines = sample.count("\n")
    numbers = len(_NUMBERS.findall(sample))
    operators = sum(map(sample.count, "=+*/^<>"))
    code = sum(map(sample.__contains__, _CODE_SIGNS))
    options = [sign for sign in _OPTIONS if sign in sample]
    shape = [
        f"size {min(len(text).bit_length(), 14)}",
        f"lines {min(lines.bit_length(), 6)}",
        f"numbers {numbers if numbers < 6 else 6 + min(numbers.bit_length(), 7)}",
        f"questions {min(sum(map(sample.count, _QUESTION_MARKS)), 3)}",
        f"code signs {min(code, 4)}",
        f"operators {min(operators, 15).bit_length()}",
        f"braces {min(sum(map(sample.count, '{}[];')), 31).bit_length()}",
        *("option " + sign.strip() for sign in options),
        *("list " + sign.strip() for sign in _LISTS if sign in sample),
        *_details_of(sample),
    ]
    return shape, _measures_of(text, sample, words, numbers, lines, operators)


def _measures_of(text: str, sample: str, words: list[bytes], numbers: int, lines: int, operators: int) -> list[float]:
    """For the difficulty: size, numbers, numbers before options, sentences, words a sentence, symbols, operators."""
    starts = [at for at in map(sample.find, _FIRST_OPTIONS) if at > 0]
    before = len(_NUMBERS.findall(sample, 0, min(starts))) if starts else numbers
    sentences = lines + sum(map(sample.count, _SENTENCE_ENDS))
    symbols = sum(map(_SYMBOLS.__contains__, words))
    counts = (min(len(text), 8_000), numbers, before, sentences, len(words) / (1 + sentences), symbols, operators)
    return [math.log2(1 + count) for count in counts]


def _details_of(sample: str) -> Iterator[str]:
    stripped = sample.rstrip()
    if stripped.endswith(_QUESTION_MARKS):
        yield "ends with a question mark"
    if stripped.endswith(":"):
        yield "ends with a colon"
    if "\n\n" in sample:
        yield "paragraphs"
    if '"' in sample or "\u201c" in sample:
        yield "quotation marks"
    if ": " in sample[:200] or ":\n" in sample[:200]:
        yield "colon near the start"
    if "$" in sample or "\u20ac" in sample or "%" in sample:
        yield "money or percent"


_LETTERS = re.compile(r"[^\W\d_]+")


def trigrams(text: str) -> list[str]:
    """Of the letters at the start of the text, with one space between words."""
    letters = " ".join(_LETTERS.findall(text[: 2 * _LANGUAGE_CHARS].lower()))[:_LANGUAGE_CHARS]
    padded = f" {letters} "
    return list(map("".join, zip(padded, padded[1:], padded[2:], strict=False)))


# Scripts that tell the language; the trigrams decide between the languages of all other scripts.
_SCRIPTS = {
    "ko": re.compile("[\u1100-\u11ff\uac00-\ud7af]"),
    "zh": re.compile("[\u3400-\u9fff]"),
    "th": re.compile("[\u0e00-\u0e7f]"),
    "he": re.compile("[\u0590-\u05ff]"),
    "el": re.compile("[\u0370-\u03ff]"),
    "bn": re.compile("[\u0980-\u09ff]"),
    "pa": re.compile("[\u0a00-\u0a7f]"),
    "gu": re.compile("[\u0a80-\u0aff]"),
    "ta": re.compile("[\u0b80-\u0bff]"),
    "te": re.compile("[\u0c00-\u0c7f]"),
    "kn": re.compile("[\u0c80-\u0cff]"),
    "ml": re.compile("[\u0d00-\u0d7f]"),
    "ka": re.compile("[\u10a0-\u10ff]"),
    "hy": re.compile("[\u0530-\u058f]"),
    "km": re.compile("[\u1780-\u17ff]"),
    "my": re.compile("[\u1000-\u109f]"),
}
_KANA = re.compile("[\u3041-\u30fa\u30fc-\u30ff]")
_LATIN = re.compile("[a-zA-Z]")


def language_of_script(text: str) -> str | None:
    """The language where the script alone tells it, None where it does not."""
    sample = text[: 2 * _LANGUAGE_CHARS]
    if sample.isascii():
        return None
    latin = len(_LATIN.findall(sample))
    if latin and 4 * (len(sample) - latin) < latin:
        return None
    kana = len(_KANA.findall(sample))
    best, most = "ja", kana
    for language, script in _SCRIPTS.items():
        if (count := len(script.findall(sample))) > most:
            best, most = language, count
    if best == "zh" and 8 * kana > most:
        best = "ja"
    return best if 3 * most > latin and most > 1 else None
