"""Translates: texts and requests into token counts; an upper bound for holds, an estimate where no usage arrived."""

from __future__ import annotations

from proxy.schema.endpoints import AnyRequest
from proxy.schema.json import encode

_TEMPLATE = 4  # tokens around one prompt in a common chat template
_ADDED = 512  # what a dialect adds: instructions in place of a `response_format`, longer names of tools
_SAMPLE = 256 * 1024  # characters that stand for a longer text
_MESSAGE_OVERHEAD = 16  # role and separators of the widest chat templates


def estimate(text: str) -> int:
    """A likely token count of a text."""
    return estimate_of(len(text), utf8_size(text))


def utf8_size(text: str) -> int:
    """The bytes of a text in UTF-8: of a long one a likely number, by its beginning, since encoding it takes long."""
    if text.isascii():
        return len(text)
    beginning = text[:_SAMPLE]
    return len(beginning.encode("utf-8", "replace")) * len(text) // len(beginning)


def estimate_of(characters: int, size: int) -> int:
    """A likely token count of so many characters that take `size` bytes in UTF-8: four bytes per token in English,
    about one character in other scripts.
    """
    return max(1, round(characters / 4 if size == characters else size / 3.5)) if characters else 0


def estimate_prompt(request: AnyRequest) -> int:
    """A likely token count of the texts that the vendor reads."""
    each = _TEMPLATE + estimate(request.repeated)
    texts = request.texts()  # there may be tens of thousands of them, so they are counted together
    plain = sum([len(text) for text in texts if text.isascii()])
    others = [text for text in texts if not text.isascii()]
    characters = sum(map(len, others))
    size = utf8_size("".join(others)) if characters <= _SAMPLE else sum(map(utf8_size, others))
    written = estimate_of(plain, plain) + estimate_of(characters, size)
    return request.prompts * each + max(written, len(texts) - texts.count(""))


def input_bound(request: AnyRequest) -> int:
    """An upper bound of the prompt's tokens: a token of a byte-level vocabulary covers at least one byte of the
    request. A repeated text (the query of a reranker) counts once for each prompt.

    It does not cover what a vendor fetches itself (remote images, files, search results).
    """
    again = max(0, request.prompts - 1) * len(request.repeated.encode("utf-8", "replace"))
    return (request.size or len(encode(request.fields))) + _ADDED + again + _MESSAGE_OVERHEAD * (request.prompts + 1)
