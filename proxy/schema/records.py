"""Values: the records that all layers share: endpoints, usage, metered calls and attempts, callers.

Money is an integer in nano-USD everywhere; a price in USD per 1M tokens is `usd * 1000` nano-USD per token.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct, field

from proxy.schema.constraints import Positive
from proxy.schema.ensembles import EnsembleRecord
from proxy.schema.prompts import NOT_USED, UsedPrompt

NANO_PER_USD = 1_000_000_000
MAX_TOKENS = 2**31 - 1  # keeps the terms of a cost bound within 64 bits


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
    """A key that cannot be printed, logged or encoded by accident. Only the code that sends it calls `reveal()`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(****)"

    __str__ = __repr__


class Endpoint(Struct, frozen=True):
    """A provider's base URL, without a trailing slash, and the secrets that belong to that origin only.

    `query` follows the path of each request: `?api-version=...`.
    """

    base_url: str
    key: Secret | None = None
    headers: dict[str, str] = {}
    secret_headers: dict[str, Secret] = {}
    query: str = ""


class LocalModelSpec(Struct, frozen=True):
    """A model served on this machine: a GGUF file (None: the bundled model), and its context in tokens."""

    model_path: str | None = None
    context: int = 2048
    start: str = "on_first_use"


class Timeouts(Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds per phase of one attempt. The defaults suit models that think for minutes.

    `first_token` and `idle` apply to streams, `total` to whole answers: a long stream is never cut.
    """

    connect: Positive = 5.0
    first_token: Positive = 180.0
    idle: Positive = 60.0
    total: Positive = 900.0


# --- usage ------------------------------------------------------------------------------------------------------------


class Tokens(Struct, frozen=True):
    """Normalized usage. `input`, `cache_read`, `cache_write` and `output` are disjoint and add up to `total`.

    The others are parts of these: `reasoning`, `output_audio` and `output_image` of `output`, `cache_write_1h` of
    `cache_write`, `input_audio` and `input_image` of `input`, `cache_read_audio` of `cache_read`. Audio and images
    together never exceed what they are part of. Billed in addition: `searches`, and `others`, the usage of further
    models of the provider by id. `terms` name what changes the price: a service tier, a fast mode, a region.
    """

    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    cache_write_1h: int = 0
    searches: int = 0
    others: tuple[tuple[str, Tokens], ...] = ()
    input_audio: int = 0
    input_image: int = 0
    cache_read_audio: int = 0
    output_audio: int = 0
    output_image: int = 0
    terms: tuple[str, ...] = ()

    @property
    def has_media(self) -> bool:
        """True if audio or images are counted apart from text."""
        heard = self.input_audio or self.cache_read_audio or self.output_audio
        return (heard or self.input_image or self.output_image) > 0

    @property
    def prompt(self) -> int:
        return self.input + self.cache_read + self.cache_write

    @property
    def total(self) -> int:
        return self.prompt + self.output


# --- metering ---------------------------------------------------------------------------------------------------------


class Cost(Struct, frozen=True):
    """Nano-USD by part; `total` is their sum and is what the call is charged. The last two are fees."""

    total: int = 0
    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    requests: int = 0
    searches: int = 0


class Charge(Struct, frozen=True):
    """One window of a budget that a call or an attempt counts against. Money is nano-USD, times are Unix nanoseconds.

    Booked at (`budget`, `start_ns`); what was booked from `since_ns` on counts. `soft_nano` is the limit of calls that
    are not downgraded (None: only `hard_nano` limits). `pays`: it counts what the key pays, not what the provider
    bills. `resets_ns` None: never.
    """

    budget: str
    start_ns: int
    since_ns: int
    hard_nano: int
    soft_nano: int | None = None
    pays: bool = False
    resets_ns: int | None = None
    downgrade_to: str | None = None


class Crossing(Struct, frozen=True):
    """A budget window in which spending has reached a share of the limit. The window is that of a `Charge`."""

    budget: str
    start_ns: int
    since_ns: int
    share: float
    spent_nano: int
    limit_nano: int
    resets_ns: int | None


class AttemptOpen(Struct, frozen=True):
    """The intent to send one request upstream, committed before the request is sent.

    `id` goes upstream as `X-Client-Request-Id`. `hold_nano` is the upper bound of its cost (None: price unknown).
    `parent` is the id of the attempt that caused this one (None: the call itself); `seat` numbers concurrent attempts.
    `charges`: the budgets of its provider and model. `is_downgraded`: it may use budgets up to their hard limits.
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
    charges: tuple[Charge, ...] = ()
    is_downgraded: bool = False


class AttemptNotes(Struct, frozen=True):
    """Columns of an attempt's row that are empty for most attempts.

    `answered_model`: the model that the answer names, if it is not the requested one. `provider_cost_nano`: the cost as
    the vendor reports it. `raw_usage`: the vendor's usage as JSON, if it was not believed. `price_version`: the version
    of the price, if it is not that of the model asked for. `message`: of its error, without texts of the request.
    """

    answered_model: str | None = None
    provider_cost_nano: int | None = None
    raw_usage: str | None = None
    price_version: str | None = None
    message: str | None = None


NO_NOTES = AttemptNotes()


class AttemptEnd(Struct, frozen=True):
    """The end of one attempt. `usage_source`: provider, estimated, unknown or none; `cost_nano` None: not priced."""

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
    notes: AttemptNotes = NO_NOTES


class Decided(Struct, frozen=True):
    """How a call got its route, for its row. All None: a name that needed no decision.

    `step` decided: preferred_model, rule, task, strategy or default. `facts`: JSON, without texts of the client.
    `snapshot` names the configuration and the state on which the route was decided. `candidates`: JSON, with their
    order, costs and reasons. `ensemble`: the one that answers, whose strategy is then in `strategy`.
    """

    step: str | None = None
    rule: str | None = None
    strategy: str | None = None
    facts: str | None = None
    snapshot: str | None = None
    candidates: str | None = None
    ensemble: str | None = None


NOT_DECIDED = Decided()


class Labels(Struct, frozen=True):
    """What a call belongs to according to the client, for usage and budgets; None or empty: not given."""

    tags: tuple[str, ...] = ()
    session: str | None = None
    agent: str | None = None
    parent_agent: str | None = None


NO_LABELS = Labels()


class CallOpen(Struct, frozen=True):
    """The start of one client request. `opened_ns`: Unix nanoseconds. `key_id`: the name of the caller's key.

    `bound_nano`: the upper bound of the plan's cost (0: unknown; then only the attempts' holds count). `charges`: the
    budgets that the whole call counts against. `replay_of`: the call whose answer was replayed for this one, at no cost
    and without attempts. `used`: its stored prompt, and the variant of an experiment.
    """

    id: str
    opened_ns: int
    key_id: str | None
    requested_model: str
    stream: bool
    task_type: str | None = None
    config_version: str = ""
    bound_nano: int = 0
    decided: Decided = NOT_DECIDED
    labels: Labels = NO_LABELS
    charges: tuple[Charge, ...] = ()
    replay_of: str | None = None
    used: UsedPrompt = NOT_USED


class PastCall(Struct, frozen=True):
    """A metered call that a changed configuration is tried on. `facts`: see `Decided`; `model`: what answered,
    `provider/model`.
    """

    opened_ns: int
    key_id: str | None
    requested_model: str
    model: str
    facts: str | None = None
    tokens: Tokens = Tokens()


class CallEnd(Struct, frozen=True):
    """The end of one client request. Its tokens and cost are the sums over its attempts. `is_forgiven`: its key does
    not pay for it. `downgraded_from`: the model that a spent budget replaced. `ensemble`: what an ensemble decided.
    `judged`: of a call in an experiment, whether its answer is JSON, and whether it is a refusal.
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
    is_forgiven: bool = False
    downgraded_from: str | None = None
    ensemble: EnsembleRecord | None = None
    judged: tuple[bool, bool] | None = None


class StickyMove(Struct, frozen=True):
    """A conversation that is warm at another deployment than a new one would get. `session`: a hash; `model`: the
    `provider/model` that has `tokens` of it cached, until `until_ns` in Unix nanoseconds.
    """

    session: str
    model: str
    tokens: int
    until_ns: int


class Caller(Struct, frozen=True):
    """The sender of a request. `key_id` names its key (None without one); `admin` may read every caller's rows."""

    key_id: str | None = None
    admin: bool = False


class StoredCaller(Caller, frozen=True):
    """A caller with a key from the database. `models`: the key's own allow-list; None: every model."""

    models: tuple[str, ...] | None = None
    expires_ns: int | None = None


JsonObject = dict[str, Any]
