"""Translates: hosted vendors that speak OpenAI's chat API with small differences."""

from __future__ import annotations

from typing import ClassVar

from proxy.providers.openai import OpenAI


class Groq(OpenAI, frozen=True, kw_only=True):
    base: ClassVar[str | None] = "https://api.groq.com/openai/v1"
    key_env: ClassVar[str | None] = "GROQ_API_KEY"
    developer_role: ClassVar[bool] = False


class Mistral(OpenAI, frozen=True, kw_only=True):
    """Answers 422 to any field it does not know, stream_options and max_completion_tokens among them."""

    base: ClassVar[str | None] = "https://api.mistral.ai/v1"
    key_env: ClassVar[str | None] = "MISTRAL_API_KEY"
    output_limit: ClassVar[str | None] = "max_tokens"
    developer_role: ClassVar[bool] = False
    stream_usage: ClassVar[bool] = False


class Together(OpenAI, frozen=True, kw_only=True):
    base: ClassVar[str | None] = "https://api.together.ai/v1"
    key_env: ClassVar[str | None] = "TOGETHER_API_KEY"
    output_limit: ClassVar[str | None] = "max_tokens"
    developer_role: ClassVar[bool] = False
    lists_models: ClassVar[bool] = True  # more than fifty, others every month
