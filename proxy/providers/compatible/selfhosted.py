"""Translates: the common dialect of self-hosted OpenAI-shaped servers."""

from __future__ import annotations

from typing import ClassVar

from proxy.providers.base.errors import ErrorRules
from proxy.providers.compatible import Compatible
from proxy.providers.compatible.request import Draft


class SelfHosted(Compatible, frozen=True, kw_only=True):
    """Such servers know `max_tokens` and `system`, and need no key. `base` is the default port of each."""

    lists_models: ClassVar[bool] = True
    no_limit: ClassVar[str | None] = "sent"
    ranks: ClassVar[bool | None] = True
    reasoning_back: ClassVar[str | None] = None
    error_rules: ClassVar[ErrorRules] = ErrorRules(statuses={422: 400})

    @property
    def root(self) -> str:
        """`/v1`, where all of them serve and which users leave out. A custom path is used unchanged."""
        host = (self.base_url or "/").partition("?")[0].partition("://")[2].rstrip("/")
        return "/v1" if host and "/" not in host else ""

    def shape(self, draft: Draft) -> None:
        draft.name_limit("max_tokens")
        draft.name_roles()
        draft.strip_echoes()
        draft.move_media()
        draft.flatten_texts(("tool",))
