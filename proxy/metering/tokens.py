"""Translates: texts and requests into token counts; an upper bound for holds, an estimate where no usage arrived.

Where the extra `tokens` (toktok-rs) is installed, prompts are counted as OpenAI's models do. Without it, and for
answers and very long prompts, estimates go by length. docs/metering.md tells how far off that is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from proxy.schema.endpoints import AnyRequest
from proxy.schema.json import encode

try:
    from toktok import batch_count
except ImportError:  # the extra `tokens` is not installed
    batch_count = None

Count = Callable[[Sequence[str]], int]
_TEMPLATE = 4  # tokens around one prompt in a common chat template
_ADDED = 512  # what a dialect adds: instructions in place of a `response_format`, longer names of tools
_SAMPLE = 256 * 1024  # characters that stand for a longer text
_MESSAGE_OVERHEAD = 16  # role and separators of the widest chat templates
_LETTERS_PER_TOKEN = 4
# How many English letters take as many tokens as one character of other scripts: by 90 languages in the vocabularies
# `o200k_base` and `qwen3.5`, November 2026. A letter with an accent splits a word, so it counts for more than one of
# an alphabet of its own; emoji are several tokens.
_ACCENTED, _DENSE, _ASTRAL, _OTHER = 3.5, 3.0, 6.0, 1.4
_find_accented = re.compile("[\u0080-\u024f]+").findall
_find_dense = re.compile("[\u1100-\u11ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]+").findall


def count_exactly(texts: Sequence[str]) -> int:
    """The tokens of the texts in OpenAI's vocabulary. The first call reads that, which takes half a second."""
    return sum(batch_count(texts, "o200k_base", 1))


EXACT: Count | None = None if batch_count is None else count_exactly


def estimate(text: str) -> int:
    """A likely token count of a text."""
    return estimate_of(letters(text))


def letters(text: str) -> float:
    """The number of English letters that take about as many tokens as the text: of a long one by its beginning."""
    if text.isascii():
        return len(text)
    sample = text[:_SAMPLE]
    plain = len(sample.encode("ascii", "ignore"))
    accented = sum(map(len, _find_accented(sample)))
    dense = sum(map(len, _find_dense(sample)))
    astral = len(sample.encode("utf-16-le", "replace")) // 2 - len(sample)
    others = len(sample) - plain - accented - dense - astral
    found = plain + _ACCENTED * accented + _DENSE * dense + _ASTRAL * astral + _OTHER * others
    return found * len(text) / len(sample)


def estimate_of(english: float) -> int:
    """A likely token count of as many English letters."""
    return max(1, round(english / _LETTERS_PER_TOKEN)) if english else 0


def estimate_prompt(request: AnyRequest, exact: Count | None = EXACT) -> int:
    """A likely token count of the texts that the vendor reads. `exact` counts them, unless they are too long."""
    texts = request.texts()  # there may be tens of thousands of them, so they are counted together
    each = _TEMPLATE + _tokens([request.repeated], exact)
    return request.prompts * each + max(_tokens(texts, exact), len(texts) - texts.count(""))


def _tokens(texts: Sequence[str], exact: Count | None) -> int:
    characters = sum(map(len, texts))
    if exact is not None and characters <= _SAMPLE:
        try:
            return exact(texts)
        except UnicodeError:  # half of a surrogate pair
            pass
    plain = sum([len(text) for text in texts if text.isascii()])
    others = [text for text in texts if not text.isascii()]
    return estimate_of(plain + (letters("".join(others)) if characters <= _SAMPLE else sum(map(letters, others))))


def input_bound(request: AnyRequest) -> int:
    """An upper bound of the prompt's tokens: a token of a byte-level vocabulary covers at least one byte of the
    request. A repeated text (the query of a reranker) counts once for each prompt.

    It does not cover what a vendor fetches itself (remote images, files, search results).
    """
    again = max(0, request.prompts - 1) * len(request.repeated.encode("utf-8", "replace"))
    return (request.size or len(encode(request.fields))) + _ADDED + again + _MESSAGE_OVERHEAD * (request.prompts + 1)
