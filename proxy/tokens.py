"""Translates: texts and requests into token counts; an upper bound for holds, an estimate where no usage arrived."""

from __future__ import annotations

from proxy.schema import AnyRequest

_MESSAGE_OVERHEAD = 16  # role and separators of the widest chat templates


def estimate(text: str) -> int:
    """A likely token count: four UTF-8 bytes to a token in English, closer to one character in other scripts."""
    if not text:
        return 0
    return max(1, round(len(text) / 4 if text.isascii() else len(text.encode("utf-8", "replace")) / 3.5))


def estimate_prompt(request: AnyRequest) -> int:
    """A likely token count of the prompt's texts."""
    return sum(4 + estimate(text) for text in request.texts())


def input_bound(body: bytes, messages: int) -> int:
    """An upper bound of the prompt's tokens: a token of a byte-level vocabulary covers at least one byte of the
    request.

    It does not hold for what a vendor fetches itself (remote images, files, search).
    """
    return len(body) + _MESSAGE_OVERHEAD * (messages + 1)
