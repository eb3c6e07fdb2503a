"""The best by `quality` first."""

from __future__ import annotations

from proxy.routing.facts import Facts
from tests.routing.fleet import order, pool


def test_quality_decides_and_the_cheaper_of_two_equals_comes_first() -> None:
    """The two flagships have the same quality; opus costs less. An unknown quality comes last."""
    assert order(pool("quality_optimized"), Facts(input_tokens_estimate=2000)) == [
        "anthropic/claude-opus-5-5",
        "openai/gpt-6-astra",
        "anthropic/claude-sonnet-5-5",
        "google/gemini-4-argon",
        "openai/gpt-6-sol",
        "openai/gpt-6-luna",
        "groq/openai/gpt-oss-120b",
        "together/openai/gpt-oss-120b",
        "google/gemini-3.5-flash-lite",
        "perplexity/perplexity/sonar",
        "groq/openai/gpt-oss-20b",
        "vllm/own-model",
    ]
