"""Values: queries over stored calls: usage, the request log, attempts to reprice."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from proxy.schema.ensembles import EnsembleRecord


class TokenRates(Struct, frozen=True):
    """Pico-USD per token of each part of usage."""

    input: int
    cache_read: int
    cache_write: int
    output: int


class UsageQuery(Struct, frozen=True):
    """A query of `GET /v1/usage`. Times are Unix nanoseconds; `key_id` None: every key; `group_by`: names of
    `schema.dimensions`; `tz`: the time zone of its days. `by_call`: read single calls even where rollups exist.
    `baseline`: the prices that savings are measured against; None: none.
    """

    since_ns: int | None = None
    until_ns: int | None = None
    key_id: str | None = None
    group_by: tuple[str, ...] = ()
    tz: str = "UTC"
    by_call: bool = False
    baseline: TokenRates | None = None


class StoredAttempt(Struct, frozen=True):
    """An ended attempt, to be priced again. `model`: the one that answered; `parts`: the columns of its usage."""

    call_id: str
    seq: int
    provider: str
    model: str
    opened_ns: int
    cost_nano: int | None
    parts: dict[str, Any]
    id: str = ""


class CallDetails(Struct, frozen=True):
    """What is kept of a call besides its row. `started_ms`: attempt id -> how long after the call it began; `priced`:
    attempts whose cost follows from their tokens; `decided`: by an ensemble.
    """

    started_ms: dict[str, float]
    priced: list[StoredAttempt]
    decided: EnsembleRecord | None


class Repriced(Struct, frozen=True):
    """An attempt with its new cost and the version of the prices that made it."""

    attempt: StoredAttempt
    cost_nano: int | None
    price_version: str


class LogQuery(Struct, frozen=True):
    """A query of `GET /v1/requests`. `filters`: values by the names of `schema.dimensions`, and `outcome`; `after`: the
    time and the id of the last call of the previous page.
    """

    since_ns: int | None = None
    until_ns: int | None = None
    key_id: str | None = None
    filters: dict[str, str] = {}
    status: int | None = None
    min_cost_nano: int | None = None
    min_latency_ms: float | None = None
    limit: int = 100
    after: tuple[int, str] | None = None
