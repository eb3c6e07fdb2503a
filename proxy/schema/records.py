"""Values: the records every layer passes on: who is asked, what was used, calls and attempts as they are metered.

Money is an integer in nano-USD everywhere; a price in USD per 1M tokens is `usd * 1000` nano-USD per token.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct, field

from proxy.schema.constraints import Positive

NANO_PER_USD = 1_000_000_000
MAX_TOKENS = 2**31 - 1  # what a bound of cost is made of stays within 64 bits


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


class Timeouts(Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds per phase of one attempt. `first_token` and `idle` bound a stream, `total` a whole answer: a long stream
    is not cut. The defaults suit models that think for minutes.
    """

    connect: Positive = 5.0
    first_token: Positive = 180.0
    idle: Positive = 60.0
    total: Positive = 900.0


# --- usage ------------------------------------------------------------------------------------------------------------


class Tokens(Struct, frozen=True):
    """Usage in normal form, disjoint but for `reasoning`, a part of `output`, and `cache_write_1h`, of `cache_write`.
    Billed beside it: `searches`, and what `others`, further models of the provider by their ids, used for the answer.
    """

    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    cache_write_1h: int = 0
    searches: int = 0
    others: tuple[tuple[str, Tokens], ...] = ()

    @property
    def prompt(self) -> int:
        return self.input + self.cache_read + self.cache_write

    @property
    def total(self) -> int:
        return self.prompt + self.output


# --- metering ---------------------------------------------------------------------------------------------------------


class Cost(Struct, frozen=True):
    """Nano-USD by part; `total`, their sum, is what bills. Built by `prices.cost`. The last two are fees."""

    total: int = 0
    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    requests: int = 0
    searches: int = 0


class AttemptOpen(Struct, frozen=True):
    """The intent to send one request upstream; committed before that request leaves.

    `id` goes upstream as `X-Client-Request-Id`. `hold_nano` is the upper bound of its cost (None: no price known).
    `parent` is the id of the attempt that this one was made for (None: the call itself); `seat` numbers those that run
    side by side.
    """

    id: str
    call_id: str
    seq: int
    provider: str
    model: str
    opened_ns: int
    hold_nano: int | None = None
    price_version: str | None = None
    parent: str | None = None
    seat: int = 0


class Granted(Struct, frozen=True):
    """The ledger's permission to send one attempt. `cap_nano`: the most that it may cost; None: no cap."""

    cap_nano: int | None = None


class AttemptEnd(Struct, frozen=True):
    """How one attempt ended. `usage_source`: provider, estimated, unknown or none; `cost_nano` None: no price."""

    id: str
    call_id: str
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
    key; `bound_nano`: the most that its plan may cost (0: not known, then the holds of its attempts are all).
    """

    id: str
    opened_ns: int
    key_id: str | None
    requested_model: str
    stream: bool
    task_type: str | None = None
    config_version: str = ""
    bound_nano: int = 0


class CallEnd(Struct, frozen=True):
    """One client request as it ended. Its tokens and cost are the sums over its attempts, which end one by one."""

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


class UsageQuery(Struct, frozen=True):
    """What `GET /v1/usage` asks: Unix nanoseconds, `key_id` None for every key, `group_by` of model, provider, day,
    task_type.
    """

    since_ns: int | None = None
    until_ns: int | None = None
    key_id: str | None = None
    group_by: tuple[str, ...] = ()


class Caller(Struct, frozen=True):
    """Who asks: `key_id` names the key (None on a keyless loopback server), `admin` may read every caller's rows."""

    key_id: str | None = None
    admin: bool = False


class StoredCaller(Caller, frozen=True):
    """The caller of a key in the database; `models` is the key's own allow-list, None for every model."""

    models: tuple[str, ...] | None = None
    expires_ns: int | None = None


JsonObject = dict[str, Any]
