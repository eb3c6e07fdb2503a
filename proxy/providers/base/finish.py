"""Translates: the finish of a complete answer whose provider gave no usable finish_reason, or an unknown one."""

from __future__ import annotations

from typing import Any, TypeGuard

from proxy.providers.base.errors import scrub
from proxy.schema.chat import ADAPTED_FINISH, ChatRequest
from proxy.schema.usage import UsageReport

_NO_FINISH = ("", "null", "none")


def names_finish(value: object) -> TypeGuard[str]:
    """False for null, the text "null", and anything that is not text."""
    return isinstance(value, str) and value.lower() not in _NO_FINISH


def derived_finish(called: str | None, is_cut: bool, word: object = None) -> tuple[str, dict[str, Any]]:
    """The finish_reason of a complete answer that has none, or only an unknown `word`, with a mark that it is ours.
    `called`: the one that the answer's calls imply.
    """
    return called or ("length" if is_cut else "stop"), native_finish(word) | {ADAPTED_FINISH: True}


def native_finish(word: object) -> dict[str, Any]:
    """The provider's own word, to be sent beside the finish_reason."""
    return {"native_finish_reason": scrub(word)[:64] if names_finish(word) else None}


def at_limit(request: ChatRequest | None, usage: UsageReport | None, choices: int = 1) -> bool:
    """True if the provider counted as many tokens as the client's limit allows."""
    limit = request.max_tokens if request is not None else None
    return limit is not None and usage is not None and usage.shown["completion_tokens"] >= limit * choices
