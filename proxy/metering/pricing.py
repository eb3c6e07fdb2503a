"""Values: pricing.yaml as it runs: what models cost, how large they are, when they retire."""

from __future__ import annotations

from msgspec import Struct


class Tier(Struct, frozen=True, forbid_unknown_fields=True):
    """Other prices above an input size; USD per 1M tokens."""

    above_input_tokens: int
    input: float | None = None
    output: float | None = None
    cached_input: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None


class PastPrice(Struct, frozen=True, forbid_unknown_fields=True):
    """A dated earlier price; `until` is its last day, YYYY-MM-DD."""

    until: str
    input: float | None = None
    output: float | None = None
    cached_input: float | None = None


class ModelPrice(Struct, frozen=True, forbid_unknown_fields=True):
    """One row of pricing.yaml: USD per 1M tokens (None: not known, never zero), sizes in tokens, dates YYYY-MM-DD."""

    input: float | None = None
    output: float | None = None
    cached_input: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None
    tiers: list[Tier] = []
    history: list[PastPrice] = []
    per_request: float | None = None
    per_search: float | None = None
    max_searches: int | None = None
    context: int | None = None
    max_output: int | None = None
    supports: list[str] | None = None
    quality: float | None = None
    speed: float | None = None
    retires: str | None = None
    retired: str | None = None
    successor: str | None = None


class Pricing(Struct, frozen=True):
    """pricing.yaml as it runs. `version` is a short hash of the prices; every metered row carries it."""

    models: dict[str, ModelPrice] = {}
    lookup: str | None = "genai-prices"
    version: str = "none"
    updated: str | None = None
