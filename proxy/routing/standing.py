"""Orchestrates: one deployment judged by its attempts: its pace, failures, breaker and rest. No clock."""

from __future__ import annotations

import math
from collections import deque

from msgspec import Struct

from proxy.routing.health import DeploymentHealth
from proxy.schema.records import AttemptEnd

SAMPLES = 64  # latest times kept for the p95
MIN_SAMPLES = 20  # fewer give no p95
MIN_TOKENS = 8  # a shorter answer gives no throughput
PACE = 0.2  # weight of the latest attempt in the moving averages of pace
LONG_AGO = -math.inf


class Standing:
    """What is known about one deployment. Times are seconds of the board's monotonic clock."""

    __slots__ = (
        *("breaker_since", "error_rate", "failed_at", "first_token_ms", "first_tokens", "is_firm"),
        *(
            "is_open",
            "open_s",
            "open_until",
            "probe",
            "recent",
            "rests_until",
            "tokens_per_s",
            "tool_errors",
            "wholes",
            "why",
        ),
    )

    def __init__(self) -> None:
        self.first_token_ms: float | None = None
        self.first_tokens: deque[float] = deque(maxlen=SAMPLES)
        self.wholes: deque[float] = deque(maxlen=SAMPLES)  # milliseconds of whole answers
        self.tokens_per_s: float | None = None
        self.tool_errors = 0.0
        self.error_rate = 0.0
        self.recent = 0  # attempts since the breaker closed, one bit each, the latest the lowest; 1: it failed
        self.failed_at = LONG_AGO
        self.why = ""
        self.is_open = False  # or half open: once `open_until` has passed
        self.open_until = LONG_AGO
        self.open_s = 0.0
        self.breaker_since = LONG_AGO  # attempts that began before it say nothing about the breaker
        self.probe: Probe | None = None
        self.rests_until = LONG_AGO
        self.is_firm = False  # the vendor itself named the time

    @property
    def is_well(self) -> bool:
        return not self.is_open and self.rests_until == LONG_AGO

    def note_pace(self, end: AttemptEnd, first_token_ms: float | None) -> None:
        duration_ms = end.duration_ms or 0.0
        if first_token_ms is not None:
            self.first_tokens.append(first_token_ms)
            known = self.first_token_ms
            self.first_token_ms = first_token_ms if known is None else known + PACE * (first_token_ms - known)
        else:
            self.wholes.append(duration_ms)
        writing_ms = duration_ms - (first_token_ms or self.first_token_ms or 0.0)
        if end.tokens.output >= MIN_TOKENS and writing_ms > 0:
            speed, before = end.tokens.output * 1000 / writing_ms, self.tokens_per_s
            self.tokens_per_s = speed if before is None else before + PACE * (speed - before)

    def rest(self, until: float, is_firm: bool) -> None:
        if until > self.rests_until or (is_firm and not self.is_firm):
            self.rests_until, self.is_firm = until, is_firm

    def close(self, now: float) -> None:
        self.is_open, self.open_until, self.probe = False, LONG_AGO, None
        self.breaker_since, self.recent, self.error_rate, self.why = now, 0, 0.0, ""

    def snapshot(self, now: float, unix_s: float) -> DeploymentHealth:
        """Its public state. `now` is the board's clock, `unix_s` the same moment."""
        breaker = "closed"
        if self.is_open:
            is_free = now >= self.open_until and self.probe is None  # for a probe
            breaker = "half_open" if is_free else "open"
        until = max(self.rests_until, self.open_until)
        return DeploymentHealth(
            first_token_ms=self.first_token_ms,
            first_token_p95_ms=p95(self.first_tokens),
            tokens_per_s=self.tokens_per_s,
            error_rate=self.error_rate,
            breaker=breaker,
            rests_until=unix_s + until - now if until > now else 0.0,
            named_until=unix_s + self.rests_until - now if self.is_firm and self.rests_until > now else 0.0,
            failed_at=unix_s + self.failed_at - now if self.failed_at > LONG_AGO else 0.0,
            why=self.why if until > now or self.is_open else "",
            tool_errors=self.tool_errors,
        )


class Probe(Struct, frozen=True, eq=False):
    """The one request that a half-open breaker lets through."""

    name: str
    standing: Standing


def p95(times_ms: deque[float]) -> float | None:
    """The nearest rank; None: too few values."""
    if len(times_ms) < MIN_SAMPLES:
        return None
    return sorted(times_ms)[math.ceil(0.95 * len(times_ms)) - 1]
