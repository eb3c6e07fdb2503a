"""Values: what the two configuration files say, as it runs: rows of pricing.yaml, sections of routing_rules.yaml."""

from __future__ import annotations

from msgspec import Struct, field


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


class ServerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Section `server`: flag > environment (PROXY_*) > file > default. `max_in_flight` holds for each worker."""

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    require_key: bool | str = "auto"
    allowed_hosts: list[str] = []
    cors_origins: list[str] = []
    max_body_mb: float = 32
    max_in_flight: int = 1000
    grace_s: float = 30
    log_format: str = "auto"
    metrics: str = "public"


class StorageConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Section `storage`. `durability: process` survives kill -9, `power` a power loss."""

    url: str = "sqlite:///proxy.db"
    durability: str = "process"
    when_down: str = "refuse"
    keep_days: int = 90
    reasoning_state: str = "store"
    idempotency_ttl_s: float = 86400


class RouterConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Section `router`, first cut: the model behind `auto`, and what is tried when it fails."""

    default_model: str | None = None
    fallback: list[str] = []


class ModelEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """One name under `models:`. `weighted` maps names to shares; `use` and `weighted` exclude each other."""

    use: str | None = None
    fallback: list[str] = []
    context_fallback: list[str] = []
    content_fallback: list[str] = []
    weighted: dict[str, float] | None = None


class BudgetLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """USD per period; None: no limit. `when_spent`, `downgrade_to` and `hard_usd` say what follows (None: as the
    whole).
    """

    minute_usd: float | None = None
    hour_usd: float | None = None
    daily_usd: float | None = None
    weekly_usd: float | None = None
    monthly_usd: float | None = None
    total_usd: float | None = None
    when_spent: str | None = None
    downgrade_to: str | None = None
    hard_usd: float | None = None


class BudgetConfig(BudgetLimits, frozen=True, forbid_unknown_fields=True):
    """Section `budget`: limits for everything, and beside them for single keys, providers, models and tags."""

    timezone: str = "UTC"
    alert_at: list[float] = field(default_factory=lambda: [0.8, 0.95])
    alert_webhook_env: str | None = None
    unknown_price: str = "refuse"
    per_key: dict[str, BudgetLimits] = {}
    per_provider: dict[str, BudgetLimits] = {}
    per_model: dict[str, BudgetLimits] = {}
    per_tag: dict[str, BudgetLimits] = {}


class RateLimit(Struct, frozen=True, forbid_unknown_fields=True):
    """What one key may ask for; None: no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None


class RateLimitsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Section `rate_limits`: for every key, and for single keys by name."""

    default: RateLimit = RateLimit()
    per_key: dict[str, RateLimit] = {}


class KeyConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One name under `keys:`. `models` None: every model; entries may be globs. `expires`: first day it is refused."""

    models: list[str] | None = None
    max_output_tokens: int | None = None
    expires: str | None = None
    store_text: bool = False
