"""Translates: a configuration into the fields of the form of settings, and what was typed into changes. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct, structs, to_builtins

from proxy.config import Config
from proxy.config.patch import REMOVED
from proxy.config.problems import Path, Problem
from proxy.config.yaml_text import flow
from proxy.ensembles.base import Ensemble, Member
from proxy.metering.budgets import BudgetConfig
from proxy.pipeline.key_settings import RateLimitsConfig
from proxy.pipeline.limits import RateLimit
from proxy.routing.settings import STRATEGIES
from proxy.server.web.words import plain

_WHOLE = re.compile(r"[-+]?[0-9]{1,15}")
_MAX_SHOWN = 200
_MAX_TYPED = 10_000  # characters of one field: more than that, and writing it into the file takes long
_LIMITS = {"requests_per_minute": "Requests a minute", "tokens_per_minute": "Tokens a minute", "concurrent": "At once"}


class Field(Struct, frozen=True):
    """One value of routing_rules.yaml. `kind`: number, text, lines, percents, check or select.

    `is_optional`: an empty field means null. `error`: what is wrong with what was typed.
    """

    path: Path
    label: str
    kind: str
    value: str
    hint: str = ""
    choices: tuple[str, ...] = ()
    is_optional: bool = False
    error: str = ""

    @property
    def name(self) -> str:
        return ".".join(self.path)


class Typed(Struct, frozen=True):
    """A form that was sent: its fields as typed, with their errors, and the changes that they ask for."""

    fields: dict[str, Field]
    changes: dict[Path, Any]

    @property
    def is_right(self) -> bool:
        return not any(field.error for field in self.fields.values())


def fields_of(config: Config) -> dict[str, Field]:
    """Every field of the form, by name, with its value in this configuration."""
    found = [
        *_routing(config),
        *_budget(config.budget or BudgetConfig()),
        *_limits(config.rate_limits or RateLimitsConfig()),
        *_providers(config),
        Field(("ensembles", "enabled"), "Rules may choose ensembles", "check", _on(config.ensembles_enabled)),
    ]
    for name, ensemble in config.ensembles.items():
        found += _ensemble(name, ensemble, config.strategies)
    return {field.name: field for field in found}


def typed(fields: Mapping[str, Field], given: Mapping[str, str]) -> Typed:
    """What was typed into the fields. Only what differs from their values is a change."""
    found, changes = {}, {}
    for name, field in fields.items():
        text = given.get(name, "" if field.kind == "check" else field.value)
        text = "\n".join(line.strip() for line in text.replace("\r\n", "\n").strip().split("\n"))
        if text != field.value:
            try:
                if len(text) > _MAX_TYPED:
                    raise ValueError(f"A field takes up to {_MAX_TYPED:,} characters. Edit the file instead.")
                changes[field.path] = _value(field, text)
                field = structs.replace(field, value=text)
            except ValueError as error:
                field = structs.replace(field, value=text, error=str(error))
        found[name] = field
    return Typed(found, changes)


def marked(fields: Mapping[str, Field], problems: Iterable[Problem]) -> tuple[dict[str, Field], list[Problem]]:
    """The fields with the problems that concern them, and the other problems."""
    found, others = dict(fields), []
    for problem in problems:
        path = problem.path
        while path and path not in found:
            path = path.rpartition(".")[0]
        if path:
            found[path] = structs.replace(found[path], error=problem.message)
        else:
            others.append(problem)
    return found, others


def rules_shown(config: Config) -> list[dict[str, str]]:
    """The rules in their order, as the file would write them on one line."""
    return [
        {
            "name": plain(rule.name),
            "when": plain(flow(to_builtins(rule.when)), _MAX_SHOWN),
            "use": plain(flow(_without_null(to_builtins(rule.use))), _MAX_SHOWN),
        }
        for rule in config.rules
    ]


def ensembles_shown(config: Config) -> list[dict[str, Any]]:
    """Each ensemble with its fields' names, and what a call to it costs beside one model."""
    shown = []
    for name, ensemble in config.ensembles.items():
        seats, followers = len(ensemble.panelists()) or ensemble.size, len(set(ensemble.followers()))
        asks = f"Asks {seats} model{'s' if seats > 1 else ''} for each call"
        asks += f" and up to {followers} more afterwards" if followers else ""
        price = f"expect up to {seats + followers} times the price of one"
        limit = ensemble.max_cost_usd
        cost = "No limit of its cost: set one." if limit is None else f"Never more than {_number(limit)} USD a call."
        names = [field.name for field in _ensemble(name, ensemble, config.strategies)]
        is_free_form = "members" in ensemble.__struct_fields__ and not _is_plain(ensemble.members)
        shown.append(
            {
                "name": name,
                "fields": names,
                "warning": f"{asks}: {price}. {cost}",
                "has_limit": limit is not None,
                "members": plain(flow(to_builtins(ensemble.members)), _MAX_SHOWN) if is_free_form else "",
            }
        )
    return shown


def _routing(config: Config) -> list[Field]:
    router = config.router

    def one(key: str, label: str, kind: str, value: str, hint: str = "", **more: Any) -> Field:
        return Field(("router", key), label, kind, value, hint, **more)

    return [
        one("enabled", "Routing is on", "check", _on(router.enabled), "Off: auto is the default model."),
        one("strategy", "Strategy", "select", router.strategy, choices=STRATEGIES),
        one("default_model", "Default model", "text", router.default_model or "", is_optional=True),
        one("fallback", "Fallback order", "lines", "\n".join(router.fallback), "One model a line; tried last."),
        one("auto_retry", "Retry by itself", "check", _on(router.auto_retry)),
        one("max_retries", "Most retries", "number", _number(router.max_retries), "Fallbacks included."),
        one("retry_delay_s", "Retry delay, s", "number", _number(router.retry_delay_s), "Ceiling of the first wait."),
        one("deadline_s", "Deadline of a call, s", "number", _number(router.deadline_s)),
    ]


def _budget(budget: BudgetConfig) -> list[Field]:
    alerts = ", ".join(_number(round(share * 100, 6)) for share in budget.alert_at)
    spent, to = budget.when_spent or "", budget.downgrade_to or ""
    daily = _number(budget.daily_usd)
    return [
        Field(("budget", "daily_usd"), "Daily budget, USD", "number", daily, is_optional=True),
        Field(("budget", "alert_at"), "Alert at, % of the limit", "percents", alerts, "Such as 80, 95."),
        Field(
            ("budget", "when_spent"),
            "When it is spent",
            "select",
            spent,
            choices=("", "downgrade", "reject"),
            is_optional=True,
        ),
        Field(("budget", "downgrade_to"), "Downgrade to", "text", to, is_optional=True),
    ]


def _limits(limits: RateLimitsConfig) -> list[Field]:
    def of(section: str, limit: RateLimit) -> list[Field]:
        return [
            Field(
                ("rate_limits", section, key),
                label,
                "number",
                _number(getattr(limit, key)),
                is_optional=True,
            )
            for key, label in _LIMITS.items()
        ]

    return [*of("default", limits.default), *of("keyless", limits.keyless)]


def _providers(config: Config) -> list[Field]:
    found = []
    for name, provider in config.providers.items():
        path = ("providers", name)
        model = provider.models.get("default", "")
        found += [
            Field((*path, "enabled"), f"Use {name}", "check", _on(provider.enabled)),
            Field((*path, "models", "default"), f"Default model of {name}", "text", model),
        ]
    return found


def _ensemble(name: str, ensemble: Ensemble, strategies: Mapping[str, type[Ensemble]]) -> list[Field]:
    path = ("ensembles", name)
    strategy = next(key for key, kind in strategies.items() if isinstance(ensemble, kind))
    found = [Field((*path, "strategy"), "Strategy", "select", strategy, choices=tuple(strategies))]
    if _is_plain(ensemble.members):
        members = "\n".join(map(str, ensemble.members))
        found.append(Field((*path, "members"), "Members", "lines", members, "One a line. None: the router picks."))
    for key in ("generator", "validator", "judge", "escalate_to"):
        if key in ensemble.__struct_fields__:
            value = getattr(ensemble, key) or ""
            if isinstance(value, str):
                label = key.replace("_", " ").capitalize()
                found.append(Field((*path, key), label, "text", value, is_optional=True))
    limit = _number(ensemble.max_cost_usd)
    found.append(Field((*path, "max_cost_usd"), "Most a call may cost, USD", "number", limit, is_optional=True))
    return found


def _is_plain(members: Sequence[str | Member]) -> bool:
    return all(isinstance(member, str) for member in members)


def _value(field: Field, text: str) -> Any:
    """The value in the file of what was typed. Raises ValueError with what to type."""
    if field.kind == "check":
        return bool(text)
    if field.kind == "lines":
        return [line for line in text.split("\n") if line]
    if not text:
        if field.is_optional:
            return None
        if field.kind == "text":
            return REMOVED
        raise ValueError("Fill in this field.")
    if field.kind == "number":
        return read_number(text)
    if field.kind == "percents":
        return [_share(part) for part in text.replace("%", "").split(",") if part.strip()]
    return text


def read_number(text: str) -> int | float:
    """A number as people type it. Raises ValueError with what to type."""
    if _WHOLE.fullmatch(text):
        return int(text)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError("Expected a number, such as 20 or 0.5.")
    return value


def _share(text: str) -> float:
    try:
        return round(read_number(text.strip()) / 100, 8)
    except ValueError:
        raise ValueError("Expected percentages with commas between them, such as 80, 95.") from None


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if value == int(value) else repr(value)


def _on(value: bool) -> str:
    return "on" if value else ""


def _without_null(value: Any) -> Any:
    return {key: each for key, each in value.items() if each is not None} if isinstance(value, dict) else value
