"""Translates: older programs' settings into the keys of routing_rules.yaml.

`provider`, `organization`, `parameters.timeout`, `max_output_tokens` of a provider; `models`, `generator_model` and
`validator_model` of an ensemble; `routing_rules` of the router. A newer name beside its older one is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.config.problems import near
from proxy.ensembles.registry import STRATEGIES

_ORGANIZATION = "OpenAI-Organization"
_ENSEMBLE_KEYS = {"models": "members", "generator_model": "generator", "validator_model": "validator"}
# Shorthand -> the rule that it means, with the names of the shipped file.
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "reasoning_high_priority": ("reasoning with high priority", {"task": "reasoning", "priority": "high"}),
    "reasoning_budget": ("reasoning on a budget", {"task": "reasoning", "budget_mode": True}),
    "extraction_fast": (
        "fast extraction",
        {"task": "extraction", "latency_critical": True, "input_tokens_under": 10000},
    ),
    "extraction_accurate": ("accurate extraction", {"task": "extraction", "accuracy_critical": True}),
    "long_context": ("long context", {"task": "long_context", "input_tokens_over": 100000}),
    "vision": ("pictures", {"task": "vision", "has_images": True}),
}


def provider_of(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """One entry of `providers`, without `api_key`. Raises ValueError."""
    where = f"providers.{name}"
    entry = {key: value for key, value in given.items() if key != "api_key"}
    if "provider" in entry:
        kind = entry.pop("provider")
        if kind == "custom" and not (entry.get("base_url") or entry.get("base_url_env")):
            raise ValueError(f"{where}.base_url: is missing; provider: custom is a server at an address of its own")
        _set(entry, "type", "openai" if kind == "custom" else kind, f"{where}.provider")
    if (organization := entry.pop("organization", None)) is not None:
        headers = dict(_mapping(entry.get("headers"), f"{where}.headers"))
        _set(headers, _ORGANIZATION, organization, f"{where}.organization")
        entry["headers"] = headers
    parameters = dict(_mapping(entry.get("parameters"), f"{where}.parameters"))
    if (timeout := parameters.pop("timeout", None)) is not None:
        limits = dict(_mapping(entry.get("timeout_s"), f"{where}.timeout_s"))
        _set(limits, "total", timeout, f"{where}.parameters.timeout")
        entry["timeout_s"] = limits
    for place, holder in ((where, entry), (f"{where}.parameters", parameters)):
        if (most := holder.pop("max_output_tokens", None)) is not None:
            _set(parameters, "max_tokens", most, f"{place}.max_output_tokens")
    if parameters:
        entry["parameters"] = parameters
    else:
        entry.pop("parameters", None)
    return entry


def ensembles_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The section `ensembles`. One ensemble alone, with its `strategy`, is the ensemble of that name. Raises
    ValueError.
    """
    if isinstance(given.get("strategy"), str):
        alone = {key: value for key, value in given.items() if key != "enabled"}
        given = {**({"enabled": given["enabled"]} if "enabled" in given else {}), given["strategy"]: alone}
    return {name: _ensemble(name, entry) if name != "enabled" else entry for name, entry in given.items()}


def _ensemble(name: str, given: Any) -> dict[str, Any]:
    where = f"ensemble.{name}"
    entry = dict(_mapping(given, where))
    for older, newer in _ENSEMBLE_KEYS.items():
        if older in entry:
            _set(entry, newer, entry.pop(older), f"{where}.{older}")
    if "strategy" not in entry and name in STRATEGIES:
        entry["strategy"] = name
    return entry


def rules_of(shorthand: Any, rules: list[Any]) -> list[Any]:
    """`rules`, with those that the shorthand names: in the place of a rule of the same name, or before all others.
    Raises ValueError.
    """
    found, new = list(rules), []
    for key, use in _mapping(shorthand, "router.routing_rules").items():
        if key not in RULES:
            hint = near(key, RULES) or f"; known: {', '.join(RULES)}"
            raise ValueError(f"router.routing_rules: {key!r} is no rule{hint}")
        name, when = RULES[key]
        rule = {"name": name, "when": when, "use": use}
        places = [place for place, each in enumerate(found) if isinstance(each, Mapping) and each.get("name") == name]
        if places:
            found[places[0]] = {**found[places[0]], "use": use}
        else:
            new.append(rule)
    return [*new, *found]


def _set(entry: dict[str, Any], key: str, value: Any, where: str) -> None:
    if key in entry and entry[key] != value:
        raise ValueError(f"{where}: is an older name of {key}, which is set as well; keep one of them")
    entry[key] = value


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: expected keys and values, got {type(value).__name__}")
    return value
