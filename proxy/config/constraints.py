"""Translates: what a value must be beyond its type. What is not in `RULES` may be any value of its type.

A rule takes one scalar and answers what is wrong with it, or None. In a list or a mapping it holds for every element.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from msgspec import Struct

from proxy.config.problems import near
from proxy.config.server import ServerConfig
from proxy.config.settings import PricingFile, RoutingFile
from proxy.metering.budgets import BudgetConfig, BudgetLimits
from proxy.metering.pricing import ModelPrice, PastPrice, Tier
from proxy.pipeline.admission import KeyConfig
from proxy.pipeline.limits import RateLimit
from proxy.providers.base.contract import Provider
from proxy.routing.settings import ModelEntry
from proxy.schema.records import Timeouts
from proxy.storage.settings import StorageConfig


class Rule(Struct, frozen=True):
    """`schema` says the same to editors, in words of JSON Schema; it never refuses what `wrong` lets pass."""

    wrong: Callable[[object], str | None]
    schema: dict[str, Any]

    def __call__(self, value: object) -> str | None:
        return self.wrong(value)


_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def one_of(*allowed: object) -> Rule:
    names = [_written(value) for value in allowed]

    def wrong(value: object) -> str | None:
        if value in allowed:
            return None
        hint = near(value, names) if isinstance(value, str) else ""
        return f"must be {', '.join(names[:-1])} or {names[-1]}{hint}" if len(names) > 1 else f"must be {names[0]}"

    return Rule(wrong, {"enum": [*allowed]})


def above(least: float) -> Rule:
    def wrong(value: object) -> str | None:
        return None if isinstance(value, int | float) and value > least else f"must be greater than {least}"

    return Rule(wrong, {"exclusiveMinimum": least})


def at_least(least: float) -> Rule:
    def wrong(value: object) -> str | None:
        return None if isinstance(value, int | float) and value >= least else f"must be at least {least}"

    return Rule(wrong, {"minimum": least})


def between(low: float, high: float) -> Rule:
    def wrong(value: object) -> str | None:
        return None if isinstance(value, int | float) and low <= value <= high else f"must be from {low} to {high}"

    return Rule(wrong, {"minimum": low, "maximum": high})


def _wrong_day(value: object) -> str | None:
    try:
        exists = _DAY.fullmatch(str(value)) and date.fromisoformat(str(value))
    except ValueError:
        exists = None
    return None if exists else "must be a day that exists, like 2026-11-22"


def _wrong_time_zone(value: object) -> str | None:
    if value == "UTC":  # also where the machine has no time zone data
        return None
    try:
        ZoneInfo(str(value))
    except (
        ValueError,
        OSError,
        KeyError,
    ):  # not found is a KeyError; a folder's name or a file that is none, the others
        return f"no such time zone; use a name like Europe/Berlin or UTC{near(str(value), available_timezones())}"
    return None


def _wrong_variable(value: object) -> str | None:
    if _VARIABLE.fullmatch(str(value)):
        return None
    return "must be the name of an environment variable, like GROQ_API_KEY, not its value"


def _wrong_database(value: object) -> str | None:
    if str(value).startswith("sqlite:///") and str(value) != "sqlite:///":
        return None
    return "must be sqlite:///FILE; other databases are not supported by this version"


def _blank(value: object) -> str | None:
    return None if str(value).strip() else "must not be empty"


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


a_day = Rule(_wrong_day, {"format": "date", "pattern": f"^{_DAY.pattern}$"})
a_time_zone = Rule(_wrong_time_zone, {"examples": ["UTC", "Europe/Berlin"]})
a_variable = Rule(_wrong_variable, {"pattern": f"^{_VARIABLE.pattern}$"})
a_database = Rule(_wrong_database, {"pattern": r"^sqlite:///[\s\S]"})
not_blank = Rule(_blank, {"pattern": r"\S"})

_WHEN_SPENT = one_of("downgrade", "reject")
_CAPABILITIES = one_of("images", "tools", "json_schema", "audio", "video", "files", "web_search", "reasoning")

RULES: dict[type, dict[str, Rule]] = {
    RoutingFile: {"version": one_of(1)},
    PricingFile: {
        "version": one_of(1),
        "currency": one_of("USD"),
        "per": one_of("1M tokens"),
        "updated": a_day,
        "lookup": one_of("genai-prices"),
    },
    ServerConfig: {
        "host": not_blank,
        "port": between(0, 65535),
        "workers": at_least(1),
        "require_key": one_of("auto", True, False),
        "max_body_mb": above(0),
        "max_in_flight": at_least(1),
        "grace_s": at_least(0),
        "log_format": one_of("auto", "console", "json"),
        "metrics": one_of("public", "admin", "off"),
    },
    StorageConfig: {
        "url": a_database,
        "durability": one_of("process", "power"),
        "when_down": one_of("refuse", "unmetered"),
        "keep_days": at_least(1),
        "reasoning_state": one_of("store", "memory", "off"),
        "idempotency_ttl_s": above(0),
    },
    Provider: {
        "api_key_env": a_variable,
        "organization_env": a_variable,
        "base_url": not_blank,
        "models": not_blank,
        "ca_file": not_blank,
        "model_path": not_blank,
        "max_concurrent": at_least(1),
        "transport": one_of("aiohttp", "httpx"),
        "price": one_of("free"),
        "retries": between(0, 10),
        "start": one_of("on_first_use", "at_start"),
        "context": at_least(256),
    },
    Timeouts: dict.fromkeys(("connect", "first_token", "idle", "total"), above(0)),
    ModelEntry: {"weighted": above(0)},
    BudgetLimits: {
        **dict.fromkeys(("minute_usd", "hour_usd", "daily_usd", "weekly_usd", "monthly_usd", "total_usd"), at_least(0)),
        "hard_usd": at_least(0),
        "when_spent": _WHEN_SPENT,
    },
    BudgetConfig: {
        "timezone": a_time_zone,
        "alert_at": between(0, 1),
        "alert_webhook_env": a_variable,
        "unknown_price": one_of("refuse", "allow"),
    },
    RateLimit: dict.fromkeys(("requests_per_minute", "tokens_per_minute", "concurrent"), at_least(1)),
    KeyConfig: {"models": not_blank, "max_output_tokens": at_least(1), "expires": a_day},
    ModelPrice: {
        **dict.fromkeys(("input", "output", "cached_input", "cache_write", "cache_write_1h"), at_least(0)),
        **dict.fromkeys(("per_request", "per_search"), at_least(0)),
        **dict.fromkeys(("max_searches", "context", "max_output"), at_least(1)),
        "supports": _CAPABILITIES,
        "quality": between(0, 1),
        "speed": above(0),
        "retires": a_day,
        "retired": a_day,
    },
    Tier: {
        "above_input_tokens": at_least(1),
        **dict.fromkeys(("input", "output", "cached_input", "cache_write", "cache_write_1h"), at_least(0)),
    },
    PastPrice: {"until": a_day, **dict.fromkeys(("input", "output", "cached_input"), at_least(0))},
}


def rule_for(owner: type, field: str) -> Rule | None:
    """The rule of one field, its own class's before its parents'."""
    return next((RULES[kind][field] for kind in owner.__mro__ if field in RULES.get(kind, {})), None)
