"""Values: the records every layer passes on; configuration as it runs, prices, calls and attempts as they are metered.

Money is an integer in nano-USD everywhere; a price in USD per 1M tokens is `usd * 1000` nano-USD per token.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct, field

NANO_PER_USD = 1_000_000_000


class Outcome(StrEnum):
    """How a call or an attempt ended (design: one enum everywhere)."""

    OPEN = "open"
    OK = "ok"
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_TRUNCATED = "upstream_truncated"
    TIMEOUT_CONNECT = "timeout_connect"
    TIMEOUT_FIRST_TOKEN = "timeout_first_token"
    TIMEOUT_IDLE = "timeout_idle"
    TIMEOUT_TOTAL = "timeout_total"
    CLIENT_CLOSED = "client_closed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


class Secret:
    """A key that cannot be printed, logged or encoded by accident; `reveal()` is for the one place that sends it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(****)"

    __str__ = __repr__


class Endpoint(Struct, frozen=True):
    """Where a provider's requests go: base URL without a trailing slash, and the key that belongs to that origin
    only.
    """

    base_url: str
    key: Secret | None = None
    headers: dict[str, str] = {}


class LocalModelSpec(Struct, frozen=True):
    """A model to serve on this machine: a GGUF file (None: the one that comes with the product), its context in
    tokens.
    """

    model_path: str | None = None
    context: int = 2048
    start: str = "on_first_use"


# --- usage and prices -------------------------------------------------------------------------------------------------


class Tokens(Struct, frozen=True):
    """Usage in normal form: the parts are disjoint but for `reasoning`, a part of `output`, and `cache_write_1h`, what
    of `cache_write` is kept for an hour. `input` excludes both cache parts. `searches` are no tokens, but billed.
    """

    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    cache_write_1h: int = 0
    searches: int = 0

    @property
    def prompt(self) -> int:
        return self.input + self.cache_read + self.cache_write

    @property
    def total(self) -> int:
        return self.prompt + self.output


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


# --- configuration as it runs -----------------------------------------------------------------------------------------


class Timeouts(Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds per phase. `first_token` and `idle` bound a stream, `total` a whole answer: a long stream is not cut."""

    connect: float = 5.0
    first_token: float = 60.0
    idle: float = 60.0
    total: float = 600.0


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


# --- metering ---------------------------------------------------------------------------------------------------------


class Cost(Struct, frozen=True):
    """Nano-USD by part; `total` is what bills. Built by `prices.cost`."""

    total: int = 0
    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0


class AttemptOpen(Struct, frozen=True):
    """The intent to send one request upstream; committed before that request leaves.

    `id` goes upstream as `X-Client-Request-Id`. `hold_nano` is the upper bound of its cost (None: no price known).
    """

    id: str
    call_id: str
    seq: int
    provider: str
    model: str
    opened_ns: int
    hold_nano: int | None = None
    price_version: str | None = None


class AttemptEnd(Struct, frozen=True):
    """How one attempt ended. `usage_source`: provider, estimated or none; `cost_nano` None: the price is unknown."""

    id: str
    outcome: Outcome
    status: int | None = None
    error_code: str | None = None
    tokens: Tokens = Tokens()
    usage_source: str = "none"
    cost_nano: int | None = 0
    duration_ms: float | None = None
    first_token_ms: float | None = None
    upstream_request_id: str | None = None


class CallOpen(Struct, frozen=True):
    """One client request as it starts. `opened_ns`: Unix time in nanoseconds; `key_id`: the caller's key, never the
    key.
    """

    id: str
    opened_ns: int
    key_id: str | None
    requested_model: str
    stream: bool
    task_type: str | None = None
    config_version: str = ""


class CallEnd(Struct, frozen=True):
    """One client request as it ended; its tokens and cost are the sums over its attempts.

    `attempt` is the end of the attempt that was still running (None: already ended by `Ledger.intend`, or none ran).
    """

    call_id: str
    outcome: Outcome
    status: int
    error_code: str | None = None
    provider: str | None = None
    model: str | None = None
    latency_ms: float = 0.0
    first_token_ms: float | None = None
    fallback: bool = False
    dropped: list[str] = field(default_factory=list)
    attempt: AttemptEnd | None = None


class UsageQuery(Struct, frozen=True):
    """What `GET /v1/usage` asks: Unix nanoseconds, `key_id` None for every key, `group_by` of model, provider, day."""

    since_ns: int | None = None
    until_ns: int | None = None
    key_id: str | None = None
    group_by: tuple[str, ...] = ()


class Caller(Struct, frozen=True):
    """Who asks: `key_id` names the key (None on a keyless loopback server), `admin` may read every caller's rows."""

    key_id: str | None = None
    admin: bool = False


JsonObject = dict[str, Any]
