"""Translates: texts and requests into token counts; an upper bound for holds, an estimate where no usage arrived.

If the extra `tokens` (toktok-rs) is installed, prompts are counted as OpenAI's models do. Without it, and for answers
and very long prompts, estimates go by length. docs/metering.md shows how accurate that is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxy.schema.endpoints import AnyRequest
from proxy.schema.json import encode

try:
    from toktok import batch_count
except ImportError:  # the extra `tokens` is not installed
    batch_count = None

Count = Callable[[Sequence[str]], int]
_TEMPLATE = 4  # tokens around one prompt in a common chat template
_ADDED = 512  # added by a dialect: instructions in place of a `response_format`, longer names of tools
_COUNTED = 256 * 1024  # the most characters that are counted exactly
_MESSAGE_OVERHEAD = 16  # role and separators of the widest chat templates
_LETTERS_PER_TOKEN = 4
_READ = 640  # characters that represent a text: for longer texts pieces of _PIECE, spread evenly
_PIECE = 64
# How many English letters take as many tokens as one character of other scripts: from 90 languages in the vocabularies
# `o200k_base` and `qwen3.5`, November 2026. A letter with an accent splits a word, so it counts for more than one of
# an alphabet of its own; emoji are several tokens.
_ACCENTED, _DENSE, _ASTRAL, _OTHER = 3.5, 3.0, 6.0, 1.4
# The upper bytes in UTF-16 of ASCII and accented Latin letters; and of Chinese, Japanese and Korean ones.
_LATIN_BYTES = bytes(range(3))
_DENSE_BYTES = bytes([0x11, *range(0x2E, 0xA0), *range(0xAC, 0xD8), 0xF9, 0xFA, 0xFF])
_NOT_LATIN = bytes(set(range(256)).difference(_LATIN_BYTES))
_NOT_DENSE = bytes(set(range(256)).difference(_DENSE_BYTES))


def count_exactly(texts: Sequence[str]) -> int:
    """The tokens of the texts in OpenAI's vocabulary. The first call loads that, which takes half a second."""
    return sum(batch_count(texts, "o200k_base", 1))


EXACT: Count | None = None if batch_count is None else count_exactly


def estimate(text: str) -> int:
    """A likely token count of a text."""
    return estimate_of(letters(text))


def letters(text: str) -> float:
    """The number of English letters that take about as many tokens as the text."""
    return float(len(text)) if text.isascii() else _letters([text], len(text))


def _letters(texts: Sequence[str], characters: int) -> float:
    """`letters` of several texts that have `characters` in total: from one of `share`, and at least one."""
    share = 1 + (characters - 1) // _READ
    if share == 1:
        sample = "".join(texts)
    else:
        apart = _PIECE * share
        pieces = [text[: 1 + len(text) // share] if len(text) <= apart else _pieces(text, apart) for text in texts]
        sample = "".join(pieces)
    upper = sample.encode("utf-16-le", "surrogatepass")[1::2]
    plain = len(sample.encode("ascii", "ignore"))
    accented = len(upper.translate(None, _NOT_LATIN)) - plain
    dense = len(upper.translate(None, _NOT_DENSE))
    astral = len(upper) - len(sample)
    others = len(sample) - plain - accented - dense - astral
    found = plain + _ACCENTED * accented + _DENSE * dense + _ASTRAL * astral + _OTHER * others
    return found * characters / len(sample)


def _pieces(text: str, apart: int) -> str:
    return "".join([text[at : at + _PIECE] for at in range(0, len(text), apart)])


def estimate_of(english: float) -> int:
    """A likely token count of this many English letters."""
    return max(1, round(english / _LETTERS_PER_TOKEN)) if english else 0


def estimate_prompt(request: AnyRequest, exact: Count | None = EXACT) -> int:
    """A likely token count of the texts that the vendor reads. `exact` counts them, unless they are too long."""
    texts = request.texts()  # there may be tens of thousands of them, so they are counted together
    each = _TEMPLATE + (_tokens([request.repeated], exact) if request.repeated else 0)
    return request.prompts * each + max(_tokens(texts, exact), len(texts) - texts.count(""))


def _tokens(texts: Sequence[str], exact: Count | None) -> int:
    characters = sum(map(len, texts))
    if exact is not None and characters <= _COUNTED:
        try:
            return exact(texts)
        except UnicodeError:  # an unpaired surrogate
            pass
    others = [text for text in texts if not text.isascii()]
    if not others:
        return estimate_of(characters)
    count = sum(map(len, others))
    return estimate_of(characters - count + _letters(others, count))


def input_bound(request: AnyRequest) -> int:
    """An upper bound of the prompt's tokens: a token of a byte-level vocabulary covers at least one byte of the
    request. A repeated text (the query of a reranker) counts once for each prompt.

    It does not cover what a vendor fetches itself (remote images, files, search results).
    """
    again = max(0, request.prompts - 1) * len(request.repeated.encode("utf-8", "replace"))
    return (request.size or len(encode(request.fields))) + _ADDED + again + _MESSAGE_OVERHEAD * (request.prompts + 1)
