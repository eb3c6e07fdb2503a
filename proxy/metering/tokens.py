"""Translates: texts and requests into token counts; an upper bound for holds, an estimate where no usage arrived."""

from __future__ import annotations

from proxy.schema.chat import AnyRequest, ChatRequest, RerankRequest

_MESSAGE_OVERHEAD = 16  # role and separators of the widest chat templates


def estimate(text: str) -> int:
    """A likely token count of a text."""
    return estimate_of(len(text), len(text) if text.isascii() else len(text.encode("utf-8", "replace")))


def estimate_of(characters: int, size: int) -> int:
    """A likely token count of so many characters that take `size` bytes in UTF-8: four bytes per token in English,
    about one character in other scripts.
    """
    return max(1, round(characters / 4 if size == characters else size / 3.5)) if characters else 0


def estimate_prompt(request: AnyRequest) -> int:
    """A likely token count of the prompt's texts."""
    if isinstance(request, RerankRequest):
        each = 4 + estimate(request.query)  # read again with every document
        return sum(each + estimate(document) for document in request.documents)
    return sum(4 + estimate(text) for text in request.texts())


def input_bound(request: AnyRequest, body: bytes) -> int:
    """An upper bound of the prompt's tokens: a token of a byte-level vocabulary covers at least one byte of the
    request. A model that ranks reads the query again with each document.

    It does not cover what a vendor fetches itself (remote images, files, search results).
    """
    again = 0
    if isinstance(request, ChatRequest):
        prompts = len(request.messages)
    elif isinstance(request, RerankRequest):
        prompts = len(request.documents)
        again = (prompts - 1) * len(request.query.encode("utf-8", "replace"))
    else:
        prompts = len(request.inputs)
    return len(body) + again + _MESSAGE_OVERHEAD * (prompts + 1)
