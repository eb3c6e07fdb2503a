"""Translates: texts and requests into token counts; an upper bound for holds, an estimate where no usage arrived."""

from __future__ import annotations

from proxy.schema.chat import AnyRequest
from proxy.schema.json import encode

_TEMPLATE = 4  # tokens around one prompt in a common chat template
_ADDED = 512  # what a dialect adds: instructions in place of a `response_format`, longer names of tools
_MESSAGE_OVERHEAD = 16  # role and separators of the widest chat templates


def estimate(text: str) -> int:
    """A likely token count: four UTF-8 bytes to a token in English, closer to one character in other scripts."""
    if not text:
        return 0
    return max(1, round(len(text) / 4 if text.isascii() else len(text.encode("utf-8", "replace")) / 3.5))


def estimate_prompt(request: AnyRequest) -> int:
    """A likely token count of the texts that the vendor reads."""
    each = _TEMPLATE + estimate(request.repeated)
    return request.prompts * each + sum(estimate(text) for text in request.texts())


def input_bound(request: AnyRequest) -> int:
    """An upper bound of the prompt's tokens: a token of a byte-level vocabulary covers at least one byte of the
    request. A repeated text (the query of a reranker) counts once for each prompt.

    It does not hold for what a vendor fetches itself (remote images, files, search).
    """
    again = max(0, request.prompts - 1) * len(request.repeated.encode("utf-8", "replace"))
    return (request.size or len(encode(request.fields))) + _ADDED + again + _MESSAGE_OVERHEAD * (request.prompts + 1)
