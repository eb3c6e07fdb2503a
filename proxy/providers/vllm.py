"""Translates: the dialect of vLLM."""

from __future__ import annotations

from typing import ClassVar

from proxy.providers.compatible.request import Draft
from proxy.providers.compatible.selfhosted import SelfHosted


class VLLM(SelfHosted, frozen=True, kw_only=True):
    """It reads `reasoning_content` of earlier answers, and many of its models need it in a loop of tool calls."""

    type: ClassVar[str] = "vllm"
    base: ClassVar[str | None] = "http://localhost:8000/v1"
    reasoning_back: ClassVar[str | None] = "reasoning_content"
    completes: ClassVar[bool] = True  # it refuses `suffix` and supports the rest (its documentation of 2026-10)
    no_limit: ClassVar[str | None] = "left out"  # it refuses -1; without a limit it fills its context

    def shape(self, draft: Draft) -> None:
        draft.name_limit("max_tokens")
        draft.name_roles()
        draft.give_back_reasoning("reasoning_content")
        draft.strip_echoes(keep=("reasoning_content", "reasoning"))
