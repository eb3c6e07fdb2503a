"""Twelve deployments with the prices, sizes and capabilities they had in November 2026."""

from __future__ import annotations

from typing import Any

from proxy.metering.pricing import ModelPrice, Tier
from proxy.providers.embedded import Embedded
from proxy.providers.openai import OpenAI
from proxy.routing.decision import Candidate
from proxy.routing.deployment import Deployment
from proxy.routing.facts import Facts
from proxy.routing.health import NO_STATE, State
from proxy.routing.order import Pool, arrange
from proxy.routing.settings import RouterConfig

SEES = ["images", "files", "tools", "json_schema", "reasoning"]
ALL = ["images", "audio", "video", "files", "tools", "json_schema", "reasoning"]
OSS = ["tools", "json_schema", "reasoning"]
GPT: dict[str, Any] = {"context": 922_000, "max_output": 128_000, "supports": SEES}
CLAUDE: dict[str, Any] = {"context": 1_000_000, "max_output": 128_000, "supports": SEES}
GEMINI: dict[str, Any] = {"context": 1_048_576, "max_output": 65_536, "supports": ALL}
GROQ: dict[str, Any] = {"context": 131_072, "max_output": 65_536, "supports": OSS}

ROWS: dict[str, ModelPrice | None] = {
    "openai/gpt-6-luna": ModelPrice(
        input=0.1,
        output=0.5,
        cached_input=0.01,
        cache_write=0.125,
        quality=0.70,
        tiers=[Tier(272_000, input=0.2, output=0.75, cached_input=0.02, cache_write=0.25)],
        **GPT,
    ),
    "openai/gpt-6-sol": ModelPrice(
        input=2,
        output=10,
        cached_input=0.2,
        cache_write=2.5,
        quality=0.87,
        tiers=[Tier(272_000, input=4, output=15, cached_input=0.4, cache_write=5)],
        **GPT,
    ),
    "openai/gpt-6-astra": ModelPrice(input=10, output=50, cached_input=1, cache_write=12.5, quality=0.95, **GPT),
    "anthropic/claude-opus-5-5": ModelPrice(
        input=4, output=20, cached_input=0.2, cache_write=5, cache_write_1h=8, quality=0.95, **CLAUDE
    ),
    "anthropic/claude-sonnet-5-5": ModelPrice(
        input=2, output=10, cached_input=0.1, cache_write=2.5, cache_write_1h=4, quality=0.90, **CLAUDE
    ),
    "google/gemini-4-argon": ModelPrice(input=2, output=10, cached_input=0.1, quality=0.90, **GEMINI),
    "google/gemini-3.5-flash-lite": ModelPrice(input=0.3, output=2.5, cached_input=0.03, quality=0.70, **GEMINI),
    "groq/openai/gpt-oss-120b": ModelPrice(input=0.15, output=0.6, cached_input=0.075, quality=0.70, speed=500, **GROQ),
    "groq/openai/gpt-oss-20b": ModelPrice(
        input=0.075, output=0.3, cached_input=0.0375, quality=0.60, speed=1000, **GROQ
    ),
    "together/openai/gpt-oss-120b": ModelPrice(input=0.15, output=0.6, context=131_072, supports=OSS, quality=0.70),
    "perplexity/perplexity/sonar": ModelPrice(
        input=0.25,
        output=2.5,
        cached_input=0.0625,
        per_search=0.0025,
        max_searches=10,
        context=128_000,
        supports=[*SEES, "web_search"],
        quality=0.70,
    ),
    "vllm/own-model": None,
}


def deployment(name: str) -> Deployment:
    provider, _, model = name.partition("/")
    if provider == "local":
        price = ModelPrice(input=0, output=0, supports=["json_schema"], quality=0.1, speed=50)
        return Deployment(provider, Embedded(), model, price)
    return Deployment(provider, OpenAI(), model, ROWS[name])


DEPLOYMENTS = {name: deployment(name) for name in ROWS}


def pool(strategy: str, *names: str, prefer: str | None = None, fallback: tuple[str, ...] = ()) -> Pool:
    """These names, or all twelve."""
    chosen = tuple(DEPLOYMENTS[name] for name in names or ROWS)
    return Pool(chosen, strategy, prefer, tuple(DEPLOYMENTS[name] for name in fallback))


def order(chosen: Pool, facts: Facts, state: State = NO_STATE, seed: float = 0.5, **settings: Any) -> list[str]:
    """The names in the order of the route."""
    return names_of(arrange(chosen, facts, state, seed, RouterConfig(**settings))[0])


def names_of(candidates: list[Candidate]) -> list[str]:
    return [candidate.deployment.name for candidate in candidates]
