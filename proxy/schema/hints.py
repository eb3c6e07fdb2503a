"""Values: what a client may say about the routing of one request, in its body, headers or metadata."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

PRIORITIES = ("low", "normal", "high")


class Hints(Struct, frozen=True, kw_only=True):
    """The hints of one request. None: not given; then the classifier or the configuration decides.

    `max_cost_usd` and `deadline_ms` bind all attempts of the call together. `fallback` replaces the configured order,
    and `no_fallback` leaves only the first candidate. Without `allow_downgrade` a spent budget refuses the call.
    `ensemble`: keys of an ensemble, as the client wrote them. `progress`: report the progress of a panel.
    `experiment`: the one that chooses a variant for the request.
    """

    task: str | None = None
    priority: str | None = None
    latency_critical: bool | None = None
    accuracy_critical: bool | None = None
    budget_mode: bool | None = None
    preferred_model: str | None = None
    strategy: str | None = None
    fallback: tuple[str, ...] | None = None
    no_fallback: bool = False
    max_cost_usd: float | None = None
    deadline_ms: int | None = None
    strict: bool = False
    trace: bool = False
    tags: tuple[str, ...] = ()
    allow_downgrade: bool = True
    progress: bool = False
    ensemble: dict[str, Any] | None = None
    experiment: str | None = None


NO_HINTS = Hints()
