"""`reasoning_effort` at every vendor: what leaves is a level that the model has, and every change is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.providers import PROVIDERS
from proxy.providers.base.fields import LEVELS
from tests.providers.asking import built

_HIGH = ("low", "medium", "high")
_MAX = (*_HIGH, "xhigh", "max")

# What each model takes, where its vendor reads it; () for those that cannot think (vendors' errors, November 2026).
TAKES: dict[tuple[str, str], tuple[str, ...]] = {
    ("openai", "gpt-6-astra"): _MAX,
    ("openai", "gpt-6-sol"): ("none", *_MAX),
    ("openai", "gpt-5.5"): ("none", *_HIGH, "xhigh"),
    ("openai", "gpt-5.1"): ("none", *_HIGH),
    ("openai", "gpt-5-nano"): ("minimal", *_HIGH),
    ("openai", "gpt-5.4-pro"): ("medium", "high", "xhigh"),
    ("openai", "gpt-5-codex"): _HIGH,
    ("openai", "o3"): _HIGH,
    ("openai", "gpt-4o"): (),
    ("groq", "openai/gpt-oss-120b"): _HIGH,
    ("groq", "qwen/qwen3-32b"): ("none", "default"),
    ("groq", "qwen/qwen3.8-27b"): ("none", "default", *_HIGH),
    ("groq", "llama-3.3-70b-versatile"): (),
    ("mistral", "mistral-large-4"): ("none", "high"),
    ("mistral", "open-mistral-nemo"): (),
    ("ollama", "gpt-oss"): ("none", *_HIGH, "max"),
    ("perplexity", "sonar"): ("none", "minimal", *_HIGH, "xhigh"),
    ("together", "openai/gpt-oss-20b"): _HIGH,
    ("anthropic", "claude-opus-5-5"): _MAX,
    ("anthropic", "claude-sonnet-4-6"): (*_HIGH, "max"),
    ("google", "gemini-3.8-flash"): _HIGH,
    ("google", "gemini-3-pro-preview"): ("low", "high"),
}


def level(body: dict[str, Any]) -> str | None:
    """The level in a request, wherever its vendor reads it."""
    found = [
        body.get("reasoning_effort"),
        (body.get("reasoning") or {}).get("effort"),
        (body.get("output_config") or {}).get("effort"),
        ((body.get("generationConfig") or {}).get("thinkingConfig") or {}).get("thinkingLevel"),
    ]
    return next((str(each).lower() for each in found if each is not None), None)


@pytest.mark.parametrize(("kind", "model"), TAKES)
def test_every_level_becomes_one_that_the_model_has(kind: str, model: str):
    """The nearest; told, unless it is the one that was asked for. Not to think is no loss where a model cannot."""
    takes = TAKES[kind, model]
    for asked in LEVELS:
        result = built(PROVIDERS[kind](), model, reasoning_effort=asked)
        told = [*result.dropped, *result.adapted]
        sent = level(json.loads(result.http.body))
        assert sent in takes or (sent is None and (asked == "none" or not takes)), asked
        assert ("reasoning_effort" in told) is (sent != asked and not (sent is None and asked == "none")), asked
