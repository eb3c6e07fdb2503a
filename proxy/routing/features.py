"""Pure translation: a prompt becomes the numbers that the linear models of the classifier read.

Only a window of the text is read, so the cost does not grow with the prompt: see `window`. The trainer imports this
module too, so that both sides always compute the same features.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from itertools import repeat
from zlib import crc32

from msgspec import Struct

from proxy.routing.conversation import Conversation
from proxy.routing.sentences import ANY, Sentence, sentences_of, starts_of, system_sentences_of
from proxy.routing.words import blocks_of, is_dense, prepared, words_of

WINDOW = 1_200, 400
# Characters outside ASCII cost more.
WIDE_WINDOW = 450, 150
# Each character of these scripts is one token, and there are no spaces, so the window is shorter.
DENSE_WINDOW = 190, 60
# Of the system prompt, the same three cases.
SYSTEM, WIDE_SYSTEM, DENSE_SYSTEM = (300, 100), (90, 30), (60, 20)
# The windows for the difficulty alone: all of a usual word problem.
QUESTION, WIDE_QUESTION, DENSE_QUESTION = (240, 60), (120, 40), (60, 20)

_EDGE_WORDS = 40  # at each end of a question, by which its difficulty is judged
_LANGUAGE_CHARS = 120


class Features(Struct, frozen=True):
    """The sentences of the text and of the system prompt, and the shape of the text. `question`: the features of the
    difficulty, if its window is not shorter.
    """

    sentences: list[Sentence]
    system: list[Sentence]
    shape: list[str]
    question: Question | None


Question = tuple[list[int], list[str], list[float]]


def window(text: str) -> str:
    """The characters that are read: all of a short text, else its first 1,200 and last 400.

    450 and 150 where some of these are outside ASCII, 190 and 60 in scripts without spaces (Chinese, Japanese, Korean,
    Thai).
    """
    return _by_script(text, WINDOW, WIDE_WINDOW, DENSE_WINDOW)


def system_window(system: str) -> str:
    """The characters of a system prompt that are read: 300 and 100 from its ends; in the cases above 90 and 30, or 60
    and 20.
    """
    return _by_script(system, SYSTEM, WIDE_SYSTEM, DENSE_SYSTEM)


def _by_script(text: str, usual: tuple[int, int], wide: tuple[int, int], dense: tuple[int, int]) -> str:
    sample = _ends_of(text, *usual)
    if sample.isascii():
        return sample
    return _ends_of(text, *(dense if is_dense(sample) else wide))


def question_window(text: str) -> tuple[str, int, int]:
    """A shorter window for the difficulty alone, and how many characters it takes from each end: 240 and 60; in the
    cases above 120 and 40, or 60 and 20.
    """
    head, tail = QUESTION
    sample = _ends_of(text, head, tail, " ")
    if not sample.isascii():
        head, tail = DENSE_QUESTION if is_dense(sample) else WIDE_QUESTION
        sample = _ends_of(text, head, tail, " ")
    return sample, head, tail


def _ends_of(text: str, head: int, tail: int, between: str = "\n") -> str:
    return text if len(text) <= head + tail else text[:head] + between + text[-tail:]


def difficulty_features(sample: str) -> Question:
    """N-grams, shape and measures of a question, by which its difficulty is judged."""
    words = words_of(sample)
    return _question_grams(words), *_look_of(sample, sample, words)


def _question_grams(words: list[bytes]) -> list[int]:
    edge = words if len(words) <= 2 * _EDGE_WORDS else words[:_EDGE_WORDS] + words[-_EDGE_WORDS:]
    singles = list(map(crc32, edge, repeat(ANY)))
    return [*singles, *map(crc32, edge[1:], singles), *starts_of(edge)]


def features_of(conversation: Conversation, sample: str, system: str) -> Features:
    """`sample`: the window of the text, `system`: that of the system prompt."""
    text, data = conversation.text, prepared(sample)
    words = data.split()
    shape, measures = _look_of(text, sample, words)
    is_question = len(text) <= sum(QUESTION) and question_window(text)[0] == text
    question = (_question_grams(words), shape, measures) if is_question else None
    parts = system_sentences_of(prepared(system)) if system else []
    return Features(sentences_of(data), parts, shape + _flags_of(conversation), question)


def _flags_of(conversation: Conversation) -> list[str]:
    names = ["a JSON schema"] if conversation.has_json_schema else []
    return [*names, "a system prompt"] if conversation.system else names


_CODE_SIGNS = ("```", "();", "{\n", "</", "=>", "==", "#include", "->", "++", "${")
_QUESTION_MARKS = ("?", "\uff1f", "\u061f")
_LINE_OPTIONS = ("\nB)", "\nB.", "\n(B)")
_OPTIONS = ("(b)", " B)", " b)")
_LISTS = ("\n- ", "\n* ", "\n1.", "\n2)")
_FIRST_OPTION = re.compile(r"\n(?:A[.):]|\(A\)|Options|Choices|[a1]\))")
# Single letters that are neither words nor names of options.
_SYMBOLS = frozenset(bytes([letter]) for letter in b"fghjklmnopqrstuvwxyz")
_NO_SYMBOLS = bytes(byte for byte in range(256) if bytes([byte]).lower() not in _SYMBOLS)
_NUMBERS = re.compile(r"\d+")
_DIGITS = bytes(byte if 48 <= byte <= 57 else 32 for byte in range(256))
_OPERATORS, _BRACES = b"=+*/^<>", b"{}[];"
_RARE = frozenset(b"`#" + _OPERATORS + _BRACES)  # each code sign contains one of these
_SINGLE = b"*/^[]}"  # no code sign consists of these alone
_COMMON = bytes(byte for byte in range(256) if byte not in _RARE)
_MARKS = _RARE.union(b'\n?)":$%')
_UNMARKED = bytes(byte for byte in range(256) if byte not in _MARKS)


def _names(what: str, most: int) -> tuple[str, ...]:
    return tuple(f"{what} {number}" for number in range(most + 1))


_SIZES, _LINES, _COUNTS = _names("size", 14), _names("lines", 6), _names("numbers", 13)
_QUESTIONS, _CODE = _names("questions", 3), _names("code signs", 4)
_OPERATIONS, _BRACKETS = _names("operators", 4), _names("braces", 5)
_LOGS = tuple(math.log2(1 + number) for number in range(2_048))  # no window has as many characters


def _look_of(text: str, sample: str, words: list[bytes]) -> tuple[list[str], list[float]]:
    """Names of the shape, and the measures. Most texts lack most signs, so the signs present are found first."""
    data, is_ascii = sample.encode("utf-8", "replace"), sample.isascii()
    numbers = len(data.translate(_DIGITS).split()) if is_ascii else len(_NUMBERS.findall(sample))
    code = ("def " in sample) + ("SELECT " in sample) + ("import " in sample)
    marks = data.translate(None, _UNMARKED)
    size = len(text)
    before = numbers
    if marks:
        counts, more, before = _marked(sample, marks, is_ascii, numbers)
    else:
        questions = 0 if is_ascii else sum(map(sample.count, _QUESTION_MARKS))
        counts = 0, questions, 0, 0, 0
        more = ["option B."] if " B. " in sample else []
        if not is_ascii:
            more += _details_of(sample, marks, 0, questions, is_ascii)
    lines, questions, operators, braces, signs = counts
    code += signs
    sentences = lines + sample.count(". ") + (sample.count("? ") if questions else 0)
    if not is_ascii:
        sentences += sample.count("\u3002")
    shape = [
        _SIZES[size.bit_length() if size < 16_384 else 14],
        _LINES[min(lines.bit_length(), 6)] if lines else _LINES[0],
        _COUNTS[numbers if numbers < 6 else 6 + min(numbers.bit_length(), 7)],
        _QUESTIONS[questions if questions < 3 else 3],
        _CODE[code if code < 4 else 4],
        _OPERATIONS[operators.bit_length() if operators < 15 else 4],
        _BRACKETS[braces.bit_length() if braces < 31 else 5],
        *more,
    ]
    return shape, [
        _LOGS[size] if size < 2_048 else math.log2(1 + min(size, 8_000)),
        _LOGS[numbers],
        _LOGS[before],
        _LOGS[sentences],
        math.log2(1 + len(words) / (1 + sentences)),
        _LOGS[sum(map(_SYMBOLS.__contains__, words)) if is_ascii or data.translate(None, _NO_SYMBOLS) else 0],
        _LOGS[operators],
    ]


def _marked(
    sample: str, marks: bytes, is_ascii: bool, numbers: int
) -> tuple[tuple[int, int, int, int, int], list[str], int]:
    """For a text with some of _MARKS: the numbers of lines, question marks, operators,
    braces and kinds of code signs, other names of the shape, and how many numbers come before the options.
    """
    lines = marks.count(b"\n")
    questions = sample.count("?") if is_ascii else sum(map(sample.count, _QUESTION_MARKS))
    operators = braces = signs = 0
    if rare := marks.translate(None, _COMMON):
        operators = len(rare) - len(rare.translate(None, _OPERATORS))
        braces = len(rare) - len(rare.translate(None, _BRACES))
        if rare.translate(None, _SINGLE):
            signs = sum(map(sample.__contains__, _CODE_SIGNS))
    if b"$" in marks and "$(" in sample:
        signs += 1
    more = ["option " + sign.strip() for sign in _LINE_OPTIONS if sign in sample] if lines else []
    if b")" in marks:
        more += ["option " + sign.strip() for sign in _OPTIONS if sign in sample]
    if " B. " in sample:
        more.append("option B.")
    if lines:
        more += ["list " + sign.strip() for sign in _LISTS if sign in sample]
    more += _details_of(sample, marks, lines, questions, is_ascii)
    options = _FIRST_OPTION.search(sample, 1) if lines else None
    before = numbers if options is None else len(_NUMBERS.findall(sample, 0, options.start()))
    return (lines, questions, operators, braces, signs), more, before


def _details_of(sample: str, marks: bytes, lines: int, questions: int, is_ascii: bool) -> list[str]:
    found = []
    if questions or b":" in marks:
        stripped = sample.rstrip()
        if stripped.endswith(_QUESTION_MARKS):
            found.append("ends with a question mark")
        if stripped.endswith(":"):
            found.append("ends with a colon")
    if lines and "\n\n" in sample:
        found.append("paragraphs")
    if b'"' in marks or (not is_ascii and "\u201c" in sample):
        found.append("quotation marks")
    if b":" in marks and (": " in sample[:200] or ":\n" in sample[:200]):
        found.append("colon near the start")
    if b"$" in marks or b"%" in marks or (not is_ascii and "\u20ac" in sample):
        found.append("money or percent")
    return found


_LETTERS = re.compile(r"[^\W\d_]+")
_ASCII_LETTERS = bytes(byte if chr(byte).isalpha() and byte < 128 else 32 for byte in bytes(range(256)).lower())


def trigrams(text: str) -> Sequence[str | bytes]:
    """Trigrams of the letters at the start of the text, with one space between words. They are bytes where all are
    ASCII, which is three times as fast.
    """
    start = text[: 2 * _LANGUAGE_CHARS]
    if start.isascii():
        data = b" %b " % b" ".join(start.encode().translate(_ASCII_LETTERS).split())[:_LANGUAGE_CHARS]
        return [each for at in range(3) for each in struct.unpack_from("3s" * ((len(data) - at) // 3), data, at)]
    letters = " ".join(_LETTERS.findall(start.lower()))[:_LANGUAGE_CHARS]
    padded = f" {letters} "
    return list(map("".join, zip(padded, padded[1:], padded[2:], strict=False)))


def _script(ranges: str) -> tuple[re.Pattern[str], frozenset[int]]:
    """A pattern for the script's characters, and the blocks that they are in."""
    ends = zip(blocks_of(ranges[::3]), blocks_of(ranges[2::3]), strict=True)
    return re.compile(f"[{ranges}]"), frozenset(block for one, two in ends for block in range(one, two + 1))


# Scripts that identify the language; trigrams decide between the languages of all other scripts.
_SCRIPTS = {
    "ko": _script("\u1100-\u11ff\uac00-\ud7af"),
    "zh": _script("\u3400-\u9fff"),
    "th": _script("\u0e00-\u0e7f"),
    "he": _script("\u0590-\u05ff"),
    "el": _script("\u0370-\u03ff"),
    "bn": _script("\u0980-\u09ff"),
    "pa": _script("\u0a00-\u0a7f"),
    "gu": _script("\u0a80-\u0aff"),
    "ta": _script("\u0b80-\u0bff"),
    "te": _script("\u0c00-\u0c7f"),
    "kn": _script("\u0c80-\u0cff"),
    "ml": _script("\u0d00-\u0d7f"),
    "ka": _script("\u10a0-\u10ff"),
    "hy": _script("\u0530-\u058f"),
    "km": _script("\u1780-\u17ff"),
    "my": _script("\u1000-\u109f"),
}
_KANA = re.compile("[\u3041-\u30fa\u30fc-\u30ff]")
_LATIN = re.compile("[a-zA-Z]")


def language_of_script(text: str) -> str | None:
    """The language, if the script alone identifies it; else None."""
    sample = text[: 2 * _LANGUAGE_CHARS]
    if sample.isascii():
        return None
    latin = len(_LATIN.findall(sample))
    if latin and 4 * (len(sample) - latin) < latin:
        return None
    blocks = set(blocks_of(sample))
    kana = len(_KANA.findall(sample)) if 0x30 in blocks else 0
    best, most = "ja", kana
    for language, (script, its_blocks) in _SCRIPTS.items():
        if not blocks.isdisjoint(its_blocks) and (count := len(script.findall(sample))) > most:
            best, most = language, count
    if best == "zh" and 8 * kana > most:
        best = "ja"
    return best if 3 * most > latin and most > 1 else None
