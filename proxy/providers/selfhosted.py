"""Translates: OpenAI-shaped servers people run themselves. They know `max_tokens` and `system`, and need no key."""

from __future__ import annotations

from typing import ClassVar

from proxy.providers.openai import OpenAI


class SelfHosted(OpenAI, frozen=True, kw_only=True):
    """What these servers have in common; `base_url` defaults to the port each listens on out of the box."""

    key_env: ClassVar[str | None] = None
    output_limit: ClassVar[str | None] = "max_tokens"
    developer_role: ClassVar[bool] = False
    lists_models: ClassVar[bool] = True


class Ollama(SelfHosted, frozen=True, kw_only=True):
    """Its own address has no `/v1`, and people write it so: the path is added here."""

    base: ClassVar[str | None] = "http://localhost:11434"

    @property
    def chat_path(self) -> str:
        return "/chat/completions" if (self.base_url or "").rstrip("/").endswith("/v1") else "/v1/chat/completions"


class VLLM(SelfHosted, frozen=True, kw_only=True):
    base: ClassVar[str | None] = "http://localhost:8000/v1"


class LMStudio(SelfHosted, frozen=True, kw_only=True):
    base: ClassVar[str | None] = "http://localhost:1234/v1"


class LocalAI(SelfHosted, frozen=True, kw_only=True):
    base: ClassVar[str | None] = "http://localhost:8080/v1"
