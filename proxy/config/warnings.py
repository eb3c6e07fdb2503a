"""Translates: a valid configuration into warnings about likely mistakes: entries without effect, unknown prices.

Names that cannot work at all are errors, found by `proxy.config.references`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from fnmatch import fnmatchcase

from proxy.config.behind import ends
from proxy.config.panels import panel_warnings
from proxy.config.problems import Path, Problem, Severity, near, shown
from proxy.config.references import (
    MAX_HINTS,
    Reference,
    budget_scopes,
    deployment_of,
    problem_at,
    references,
    successor_problem,
)
from proxy.config.rules import dead_rules
from proxy.config.settings import Config
from proxy.metering.prices import find_price
from proxy.metering.pricing import ModelPrice
from proxy.metering.windows import WINDOWS
from proxy.routing.names import AUTO_NAMES
from proxy.routing.panelists import PREFIX

PriceOf = Callable[[str], ModelPrice | None]


def find_warnings(config: Config, today: date, listed_price: PriceOf) -> list[Problem]:
    """All warnings. `listed_price` prices models without a row in pricing.yaml. It may be slow, so it comes last."""
    found = [*_dead_names(config), *_dead_fallbacks(config), *_dead_keys(config, today), *_dead_limits(config)]
    found += [*_same_keys(config), *_unpriced(config, listed_price)]
    found += panel_warnings(config)
    placed = [problem_at(config, path, message, Severity.WARNING) for path, message in found]
    placed += dead_rules(config)
    return placed + [
        successor_problem(config, name, message, Severity.WARNING)
        for name, message in _successors(config, listed_price)
    ]


Finding = tuple[Path, str]


def _dead_names(config: Config) -> Iterator[Finding]:
    """Names of models whose provider is switched off. A provider that only lacks its key may still get one."""
    for reference in references(config):
        deployment = deployment_of(reference.name, config)
        provider = deployment.partition("/")[0] if deployment else None
        own = reference.path[:2] == ("providers", provider)
        if provider and not own and not config.providers[provider].enabled:
            yield reference.path, f"never called: providers.{provider} is switched off (enabled: false)"


def _dead_fallbacks(config: Config) -> Iterator[Finding]:
    """Fallbacks that were already tried when they are reached, and the embedded model, which is never a fallback."""
    chains: list[tuple[Path, str | None, list[str]]] = [
        (("router", "fallback"), config.router.default_model, config.router.fallback)
    ]
    for name, entry in config.models.items():
        for key in ("fallback", "context_fallback", "content_fallback"):
            chains.append((("models", name, key), entry.use, getattr(entry, key)))
    chains += [(path, None, names) for path, names in _orders(config)]
    aliases = ends(config.aliases)
    for path, first, names in chains:
        tried = {_target(first, aliases, config)} if first else set()
        for place, name in enumerate(names):
            target = _target(name, aliases, config)
            provider = config.providers.get(target.partition("/")[0])
            is_embedded = provider is not None and provider.local_model is not None and target not in config.models
            if is_embedded and (place > 0 or path[0] not in ("rules", "tasks")):  # their first name is not a fallback
                yield (*path, str(place)), "never called: the embedded model is not a fallback for other models"
            elif target in tried:
                yield (*path, str(place)), f'never called: "{shown(name)}" has already been tried'
            tried.add(target)


def _orders(config: Config) -> Iterator[tuple[Path, list[str]]]:
    """The fallback orders that rules and tasks write out."""
    for place, rule in enumerate(config.rules):
        if isinstance(rule.use, list):
            yield ("rules", str(place), "use"), rule.use
    yield from ((("tasks", task), names) for task, names in config.tasks.items())


def _target(name: str, aliases: Mapping[str, str], config: Config) -> str:
    """The target of a name: `provider/model`, or a name under `models:`."""
    name = aliases.get(name, name)
    return deployment_of(name, config) or name


def _dead_keys(config: Config, today: date) -> Iterator[Finding]:
    """Keys that have expired, and patterns that match no name."""
    known = [
        *AUTO_NAMES,
        *(PREFIX + name for name in config.ensembles),
        *config.models,
        *config.aliases,
        *config.pricing.models,
    ]
    for key, limits in config.keys.items():
        if limits.expires and date.fromisoformat(limits.expires) <= today:
            yield ("keys", key, "expires"), f"expired on {limits.expires}"
        for place, pattern in enumerate(limits.models or ()):
            fixed = re.split(r"[*?[]", pattern)[0]
            # Any model of a provider can be called, listed or not.
            open_ended = any(f"{name}/".startswith(fixed) or fixed.startswith(f"{name}/") for name in config.providers)
            if fixed != pattern and not open_ended and not any(fnmatchcase(name, pattern) for name in known):
                yield ("keys", key, "models", str(place)), f'no model matches "{shown(pattern)}"'


def _same_keys(config: Config) -> Iterator[Finding]:
    """Variables of a rotation that hold the same key. It counts once, so that its limits are not counted twice."""
    for name, keys in config.provider_keys.items():
        first: dict[str, str] = {}
        for variable, key in keys.items():
            other = first.setdefault(key.reveal(), variable)
            if other != variable:
                place = str(config.providers[name].key_variables.index(variable))
                yield ("providers", name, "api_key_env", "rotate", place), f"{variable} holds the same key as {other}"


def _dead_limits(config: Config) -> Iterator[Finding]:
    """Downgrade settings of a budget that rejects calls once it is spent."""
    if config.budget is None:
        return
    for path, limits in budget_scopes(config.budget):
        spent = limits.when_spent or config.budget.when_spent
        for key in ("downgrade_to", *(f"hard_{window}_usd" for window in WINDOWS)):
            if spent != "downgrade" and getattr(limits, key) is not None:
                yield (*path, key), "never used: without when_spent: downgrade, the limit itself is hard"


def _successors(config: Config, listed_price: PriceOf) -> Iterator[tuple[str, str]]:
    """Rows whose successor is itself retired, or unknown: a client that follows it would get an error."""
    hints = 0
    for name, row in config.pricing.models.items():
        if row.successor is None or row.successor in config.models or row.successor in config.aliases:
            continue
        after = find_price(config.pricing, row.successor)
        if after is not None and after.retired:
            yield name, f"{row.successor} was itself retired on {after.retired}"
        elif after is None and (not config.pricing.lookup or listed_price(row.successor) is None):
            hint = near(row.successor, config.pricing.models) if hints < MAX_HINTS else ""
            hints += 1
            yield name, f'no row is named "{shown(row.successor)}"{hint}'


def _unpriced(config: Config, listed_price: PriceOf) -> Iterator[Finding]:
    """Names of models of enabled providers whose price is unknown, so that their calls have no cost."""
    for reference in references(config):
        deployment = deployment_of(reference.name, config)
        if deployment is None or not _costs_money(reference, deployment, config):
            continue
        row = find_price(config.pricing, deployment)
        if row is None and config.pricing.lookup:
            row = listed_price(deployment)
        if row is None or row.input is None or row.output is None:
            yield reference.path, f"{shown(deployment)} has no price; add a row to pricing.yaml"
        elif row.cache_write_1h is None and config.providers[deployment.partition("/")[0]].writes_cache:
            what = "has no cache_write_1h in pricing.yaml, which `cache: auto` pays: about twice the input"
            yield reference.path, f"{shown(deployment)} {what}"


def _costs_money(reference: Reference, deployment: str, config: Config) -> bool:
    """False for a provider that is off or free, and for names that only limit others."""
    provider = deployment.partition("/")[0]
    return (
        provider not in config.disabled
        and not config.providers[provider].free
        and reference.path[0] not in ("budget", "keys")
    )
