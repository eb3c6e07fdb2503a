"""Values: shapes for the OpenAPI document: answers about configuration and health, and those in Anthropic's form."""

from __future__ import annotations

from typing import Any, TypedDict

from proxy.server.api.shapes import ErrorFields


class ConfigChange(TypedDict):
    requested: str
    calls: int
    before: str | None
    after: str | None
    rule_before: str | None
    rule_after: str | None
    cost_usd_per_day: float
    capabilities_lost: list[str]
    refused: str | None


class RuleCount(TypedDict):
    name: str
    before: int
    after: int


class NotReplayed(TypedDict):
    requested: str
    calls: int
    why: str


PlanAnswer = TypedDict(
    "PlanAnswer",
    {
        "from": str,
        "to": str,
        "calls": int,
        "changed": int,
        "changes": list[ConfigChange],
        "cost_usd_per_day": dict[str, float],
        "unpriced_calls": int,
        "rules": list[RuleCount],
        "rules_no_longer_matching": list[str],
        "not_replayed": list[NotReplayed],
        "notes": list[str],
    },
)


class Readiness(TypedDict, total=False):
    status: str
    problems: list[str]


class ConfigHealth(TypedDict):
    version: str
    loaded_at: int
    error: list[str] | None


class DatabaseHealth(TypedDict):
    state: str
    pending_changes: int
    open_calls: int
    lost_calls: int
    calls: int | None
    oldest_call: str | None
    file_bytes: int | None
    wal_bytes: int | None
    next_clean_up: str | None


class ProviderHealth(TypedDict, total=False):
    state: str
    why: str


class HealthAnswer(TypedDict):
    status: str
    problems: list[str]
    version: str
    uptime_s: float
    draining: bool
    in_flight: int
    max_in_flight: int
    config: ConfigHealth
    database: DatabaseHealth | None
    providers: dict[str, ProviderHealth]


class ReloadAnswer(TypedDict):
    version: str
    changed: bool
    error: ErrorFields | None
    at_restart: list[str]


class TokenCount(TypedDict):
    input_tokens: int


class MessageUsage(TypedDict, total=False):
    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    cost: float | None


class MessageAnswer(TypedDict):
    id: str
    type: str
    role: str
    model: str
    content: list[dict[str, Any]]
    stop_reason: str | None
    stop_sequence: str | None
    usage: MessageUsage
