"""Translates: an answer into its canonical form: two answers that say the same thing have the same one.

Conservative: answers that a reader could call different stay apart, because a false agreement costs more than a missed
one. The work is linear in a bounded text; a longer one is compared as it is.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

from proxy.ensembles.canonical_dates import day
from proxy.ensembles.canonical_json import canonical_text
from proxy.ensembles.canonical_numbers import amount
from proxy.schema.json_check import bare

MAX_TEXT = 32 * 1024  # characters of an answer that are analysed
MAX_PHRASE = 4 * 1024  # characters that are normalised
_MAX_FINALS = 8  # that one answer may have
_MAX_FINAL = 300  # characters of a final answer

_RAISED = re.compile("[⁰¹²³⁴-⁹⁺⁻ⁿ]+")
_LOWERED = re.compile("(?<=[0-9])[₀-₉]+|[₀-₉]+(?=[0-9])")
_ENCIRCLED = re.compile("[\u2460-\u24ff\u2776-\u2793\u3251-\u32bf]")
_FRACTION = re.compile("(?<=[0-9])(?=[¼-¾⅐-⅞])")
_DIGIT = re.compile(r"(?![0-9])\d")
_SAME = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"),
        "\u2044": "/",
        **dict.fromkeys("\u200b\u200e\u200f\u2060\ufeff\u00ad", ""),
    }
)
_PAIRS = (("**", "**"), ("*", "*"), ("`", "`"), ('"', '"'), ("'", "'"), ("$", "$"), ("\\(", "\\)"), ("\\boxed{", "}"))
# A bare e, g or i is more likely a sign or a word.
_CHOICE = re.compile(r"(?i:option |choice )?(?:[(\[]?([A-Ja-j])[)\]][.:]?|([A-Da-d])[.:]?|([E-J])[.:]?)")
_YES_NO = frozenset(
    {"yes", "no", "true", "false", "ja", "nein", "oui", "non", "sí", "si", "sim", "não", "да", "нет", "tak", "nie"}
)
_WORD = re.compile(r"[\"'(]{0,2}([^\W\d_]+(?:['-][^\W\d_]+)*)[\"'),.;:!?]{0,3}")
_EXCLAIMED = re.compile(r"[^\W\d_]{3}!$")
_QUANTITY = re.compile(
    r"([-+]?[0-9][0-9.,']*) ?(km|kg|cm|mm|mg|ml|mL|Hz|kHz|MHz|GHz|kB|MB|GB|TB|kW|kWh|ms|min|mph|km/h|°C|°F)"
)
_CODE = re.compile(r"[=;{}<>\\|_`\[\]]|\w\(|\w\.\w|::")
_OWN_CASE = frozenset({"sie", "ihr", "ihre", "ihrem", "ihren", "ihrer", "ihres", "ihnen"})  # German: you, or they

_FINAL = re.compile(
    r"(?:^|[.!?;。]\s{1,4})[ \t>#-]{0,8}(?P<bold>\*\*)?(?:(?:so|thus|therefore|hence|then),? )?"
    r"(?:(?:the|my|die|la|a) )?(?P<final>final )?(?:correct )?"
    r"(?:answer|antwort|réponse|respuesta|risposta|resposta|ответ|答案|答え|回答|답)"
    r"(?:[ ]?(?:\*\*)?[:\uff1a]|[ ](?:is|ist|est|es|è|é)\b(?P<marked>:)?(?P<said>))"
    r"(?:\*\*)?\s{0,4}(?P<rest>[^\n]{0,301})",
    re.IGNORECASE | re.MULTILINE,
)
_HASHED = re.compile(r"(?:^|\n)#### (?P<rest>[^\n]{1,300})$")
_BOXED = re.compile(r"(?:\$\$?|\\\[)? ?\\boxed\{(?P<rest>[^{}]{1,300})\} ?(?:\$\$?|\\\])?\.?")


def canonical(text: str) -> str:
    """The canonical form of an answer. Of a long one with one clear final answer, that counts (`... Answer: 42`)."""
    trimmed = text.strip()
    inner = bare(trimmed).strip()
    if (structured := canonical_text(inner, string=phrase)) is not None:
        return structured
    if len(trimmed) > MAX_TEXT:
        return f"{len(trimmed)} characters {_digest(trimmed)}"
    final = _final(inner)
    return phrase(inner, is_code=inner != trimmed) if final is None else phrase(final)


def phrase(text: str, *, is_code: bool = False) -> str:
    """The canonical form of a text that consists of the answer only."""
    if "\n" in text:
        return _lines(text)
    if len(text) > MAX_PHRASE:
        return text
    line, is_quoted = _peeled(" ".join(_compatible(text).split()))
    if (known := _known(line)) is not None:
        return known
    return line if is_code or is_quoted or _CODE.search(line) else _folded(line)


def _known(line: str) -> str | None:
    """The canonical form of a line that is a date, number, quantity, choice, yes or no; else None."""
    if (found := day(line) or amount(line) or _word(line)) is not None:
        return found
    quantity = _QUANTITY.fullmatch(line)
    number = amount(quantity[1]) if quantity else None
    return f"{number} {quantity[2]}" if quantity and number is not None else None


def _word(line: str) -> str | None:
    """The canonical form of a line that is a choice letter, yes or no; else None."""
    if choice := _CHOICE.fullmatch(line):
        return choice[choice.lastindex or 1].upper()
    word = line.removesuffix("!").lower()
    return word if word in _YES_NO else None


def _compatible(text: str) -> str:
    """One spelling for characters that look alike. Superscript and circled digits stay distinct: 10² is not 102."""
    if text.isascii():
        return text
    text = _RAISED.sub(lambda found: f"^{found[0]}", text)
    text = _LOWERED.sub(lambda found: f"_{found[0]}", text)
    text = _ENCIRCLED.sub(lambda found: f"({found[0]})", text)
    text = unicodedata.normalize("NFKC", _FRACTION.sub(" ", text))
    return _DIGIT.sub(lambda found: str(unicodedata.decimal(found[0])), text.translate(_SAME))


def _peeled(line: str) -> tuple[str, bool]:
    """The line without quotes, emphasis and final full stop, and whether it was marked as code."""
    is_code = False
    for _ in range(6):
        before = line
        for opening, closing in _PAIRS:
            inner = line[len(opening) : -len(closing)]
            if line.startswith(opening) and line.endswith(closing) and inner and opening not in inner:
                if closing in inner:
                    continue
                is_code = is_code or opening == "`"
                line = inner.strip()
        ends = line.endswith((".", "。")) and len(line) > 1 and not line.endswith("..")
        if ends or _EXCLAIMED.search(line[-3:]):
            line = line[:-1].rstrip()
        if line == before:
            break
    return line, is_code


def _folded(line: str) -> str:
    """The line with ordinary words in lower case. Names like iPhone, acronyms of two or three letters, units after a
    number and everything with digits or signs in it keep their case: `5 m` is not `5 M`.
    """
    if line.islower():
        return line
    words = line.split(" ")
    after_number = False
    for place, word in enumerate(words):
        if not (after_number or word.islower()):
            found = _WORD.fullmatch(word)
            if found and _is_ordinary(found[1], is_first=place == 0):
                words[place] = word.lower()
        after_number = word[-1:].isdigit()
    return " ".join(words)


def _is_ordinary(word: str, *, is_first: bool) -> bool:
    if not is_first and word.lower() in _OWN_CASE:
        return False
    if word[1:].islower() or word.islower():
        return True
    return word.isupper() and len(word) > 3


def _lines(text: str) -> str:
    """Several lines, maybe code: only white space at line ends and the number of empty lines may differ."""
    lines = [line.rstrip() for line in unicodedata.normalize("NFC", text).splitlines()]
    return "\n".join(line for place, line in enumerate(lines) if line or lines[place - 1])


def _final(text: str) -> str | None:
    """The text after the marker of a final answer, if it ends the text and the marker is the only one."""
    if found := _BOXED.fullmatch(text.rpartition("\n")[2].strip()) or _HASHED.search(text):
        return found["rest"]
    finals = list(_FINAL.finditer(text))
    if not finals:
        return None
    last = finals[-1]
    rest = _rest(last)
    if last.end() < len(text) or not rest or len(rest) > _MAX_FINAL:
        return None
    if last["said"] is not None and not last["marked"] and last.start() and not _is_short(rest):
        return None  # "... The answer is complicated."
    others = {_rest(each) for each in finals}
    if not last["final"] and (len(others) > _MAX_FINALS or {phrase(each) for each in others} != {phrase(rest)}):
        return None
    return rest


def _is_short(text: str) -> bool:
    line, _ = _peeled(" ".join(_compatible(text).split()))
    return _known(line) is not None


def _rest(found: re.Match[str]) -> str:
    rest = found["rest"].strip()
    return rest.removesuffix("**") if found["bold"] and rest.count("**") == 1 else rest


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
