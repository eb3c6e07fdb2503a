"""Translates: texts and requests into token counts; an upper bound for holds, an estimate where no usage arrived."""

from __future__ import annotations

from proxy.schema.chat import AnyRequest, ChatRequest, RerankRequest

_MESSAGE_OVERHEAD = 16  # role and separators of the widest chat templates


def estimate(text: str) -> int:
    """A likely token count: four UTF-8 bytes to a token in English, closer to one character in other scripts."""
    if not text:
        return 0
    return max(1, round(len(text) / 4 if text.isascii() else len(text.encode("utf-8", "replace")) / 3.5))


def estimate_prompt(request: AnyRequest) -> int:
    """A likely token count of the prompt's texts."""
    if isinstance(request, RerankRequest):
        each = 4 + estimate(request.query)  # a model reads it with every document
        return sum(each + estimate(document) for document in request.documents)
    return sum(4 + estimate(text) for text in request.texts())


def input_bound(request: AnyRequest, body: bytes) -> int:
    """An upper bound of the prompt's tokens: a token of a byte-level vocabulary covers at least one byte of the
    request. Who ranks reads the query again with each document.

    It does not hold for what a vendor fetches itself (remote images, files, search).
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
