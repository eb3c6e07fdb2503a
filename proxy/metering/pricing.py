"""Values: pricing.yaml as loaded: prices of models, their sizes and retirement dates."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from proxy.schema.constraints import Count, Day, Factor, Fee, Positive, Price, Share, TokenCount, one_of

Capability = Annotated[
    str, one_of("images", "tools", "json_schema", "audio", "video", "files", "web_search", "reasoning")
]


class Tier(Struct, frozen=True, forbid_unknown_fields=True):
    """Prices above an input size, in USD per 1M tokens."""

    above_input_tokens: TokenCount
    input: Price | None = None
    output: Price | None = None
    cached_input: Price | None = None
    cache_write: Price | None = None
    cache_write_1h: Price | None = None
    audio_input: Price | None = None
    cached_audio_input: Price | None = None
    audio_output: Price | None = None
    image_input: Price | None = None
    image_output: Price | None = None


class ServicePrice(Struct, frozen=True, forbid_unknown_fields=True):
    """Prices of one service tier in place of the row's own, in USD per 1M tokens. `tiers`: above an input size; without
    any, a prompt above the row's first tier has no price.
    """

    input: Price | None = None
    output: Price | None = None
    cached_input: Price | None = None
    cache_write: Price | None = None
    cache_write_1h: Price | None = None
    audio_input: Price | None = None
    cached_audio_input: Price | None = None
    audio_output: Price | None = None
    image_input: Price | None = None
    image_output: Price | None = None
    tiers: list[Tier] = []


class PastPrice(Struct, frozen=True, forbid_unknown_fields=True):
    """An earlier price; `until` is its last day, YYYY-MM-DD."""

    until: Day
    input: Price | None = None
    output: Price | None = None
    cached_input: Price | None = None


class ModelPrice(Struct, frozen=True, forbid_unknown_fields=True):
    """One row of pricing.yaml: USD per 1M tokens (None: unknown, never zero), sizes in tokens, dates YYYY-MM-DD."""

    input: Price | None = None
    output: Price | None = None
    cached_input: Price | None = None
    cache_write: Price | None = None
    cache_write_1h: Price | None = None
    audio_input: Price | None = None
    cached_audio_input: Price | None = None
    audio_output: Price | None = None
    image_input: Price | None = None
    image_output: Price | None = None
    tiers: list[Tier] = []
    service_tiers: dict[str, Factor | ServicePrice] = {}
    answers_as: list[str] = []
    history: list[PastPrice] = []
    per_request: Fee | None = None
    per_search: Fee | None = None
    max_searches: Count | None = None
    max_extra_usd: Fee | None = None
    context: TokenCount | None = None
    max_output: TokenCount | None = None
    supports: list[Capability] | None = None
    quality: Share | None = None
    speed: Positive | None = None
    retires: Day | None = None
    retired: Day | None = None
    successor: str | None = None


class Pricing(Struct, frozen=True):
    """pricing.yaml as loaded. `version` is a short hash of the prices, stored in every metered row."""

    models: dict[str, ModelPrice] = {}
    lookup: str | None = "genai-prices"
    version: str = "none"
    updated: str | None = None
