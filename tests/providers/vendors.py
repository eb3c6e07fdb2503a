"""Values: for each provider the models that stand for its generations, and what its own SDK says of our requests."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

import anthropic.types.message_create_params as anthropic_types
import groq.types.chat.completion_create_params as groq_types
import openai.types.chat.completion_create_params as openai_types
import openai.types.responses.response_create_params as responses_types
from cohere.v2.client import V2Client
from google.genai import types as google_types
from mistralai.client import models as mistral_types

from tests.providers.sdk_types import wrong

# The newest ones and the oldest that are still served: their rules differ (facts of November 2026).
MODELS: dict[str, tuple[str, ...]] = {
    "openai": ("gpt-6-sol", "gpt-4.1"),
    "anthropic": ("claude-opus-5-5", "claude-haiku-5-5", "claude-sonnet-4-6", "claude-haiku-4-5"),
    "google": ("gemini-3.8-flash", "gemini-2.5-flash"),
    "groq": ("openai/gpt-oss-120b", "qwen/qwen3.8-27b", "llama-3.3-70b-versatile"),
    "mistral": ("mistral-large-4", "mistral-small-latest", "open-mistral-nemo"),
    "cohere": ("command-a-plus-05-2026", "command-r7b-12-2024"),
    "perplexity": ("sonar",),
    "together": ("meta-llama/Llama-4-Maverick",),
    "ollama": ("llama4",),
    "vllm": ("llama4",),
    "lmstudio": ("llama4",),
    "localai": ("llama4",),
    "embedded": ("smollm2-135m",),
}

_SAMPLING = ("temperature", "top_p", "top_k")  # the SDK's types are of API version 2026-10-21, which refuses them


def _anthropic(body: dict[str, Any]) -> list[str]:
    kind = (
        anthropic_types.MessageCreateParamsStreaming
        if body.get("stream")
        else anthropic_types.MessageCreateParamsNonStreaming
    )
    return wrong({name: value for name, value in body.items() if name not in _SAMPLING}, kind)


def _google(body: dict[str, Any]) -> list[str]:
    kinds: dict[str, Any] = {
        "contents": list[google_types.Content],
        "systemInstruction": google_types.Content,
        "generationConfig": google_types.GenerationConfig,
        "safetySettings": list[google_types.SafetySetting],
        "tools": list[google_types.Tool],
        "toolConfig": google_types.ToolConfig,
        "cachedContent": str,
        "labels": dict[str, str],
        "serviceTier": str,
    }
    unknown = [f".{name}: unknown to generateContent" for name in body if name not in kinds]
    return unknown + [
        error for name, each in body.items() if name in kinds for error in wrong(each, kinds[name], f".{name}")
    ]


def _cohere(body: dict[str, Any]) -> list[str]:
    kinds = typing.get_type_hints(V2Client.chat, include_extras=True) | {"stream": bool}
    unknown = [f".{name}: unknown to v2/chat" for name in body if name not in kinds]
    return unknown + [
        error for name, each in body.items() if name in kinds for error in wrong(each, kinds[name], f".{name}")
    ]


def _openai(body: dict[str, Any]) -> list[str]:
    if "input" in body:
        return _responses(body)
    kind = (
        openai_types.CompletionCreateParamsStreaming
        if body.get("stream")
        else openai_types.CompletionCreateParamsNonStreaming
    )
    return wrong(body, kind)


def _responses(body: dict[str, Any]) -> list[str]:
    streamed = body.get("stream")
    kind = (
        responses_types.ResponseCreateParamsStreaming if streamed else responses_types.ResponseCreateParamsNonStreaming
    )
    return wrong(body, kind)


CHECKS: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "google": _google,
    "cohere": _cohere,
    "mistral": lambda body: wrong(body, mistral_types.ChatCompletionRequest),
    "groq": lambda body: wrong(body, groq_types.CompletionCreateParams),
}
