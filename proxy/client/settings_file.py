"""Performs I/O: `APISettings` from and to routing_rules.yaml, and as the checked configuration of a proxy."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from proxy.client.errors import SettingsError
from proxy.client.older_names import ensembles_of, provider_of, rules_of
from proxy.config import Config, ConfigError, Source, configure
from proxy.config.certificates import certificate_problems
from proxy.config.edit import edited, plain
from proxy.config.files import PRICING, ROUTING, read_file, shipped, write_file
from proxy.config.prompt_file import written
from proxy.metering.budgets import BudgetConfig
from proxy.routing.settings import RouterConfig
from proxy.schema.prompts import PRODUCTION, PromptHead, PromptVersion

if TYPE_CHECKING:
    from proxy.client.settings import APISettings

_ROUTER, _BUDGET = RouterConfig(), BudgetConfig()
_KEY_VARIABLE = "MULTI_MODEL_API_KEY_"  # for a key in memory: it exists only in the input of the configuration
_OF_ROUTER = ("default_model", "max_retries", "retry_delay_s")
Values = dict[str, Any]


# --- from a file ------------------------------------------------------------------------------------------------------


def read(path: Path) -> Values:
    """The arguments of `APISettings` for this file. Raises SettingsError."""
    try:
        data = read_file(path)
        values = plain(data, str(path))
    except ConfigError as error:
        raise SettingsError(str(error)) from None
    if "prompts" in values:
        raise SettingsError(f"{path}: prompts: no section of this file; give prompt_templates in the program")
    given = arguments_of(values)
    return {**given, "base": data.decode("utf-8"), "file": str(path)}


def arguments_of(values: Values) -> Values:
    """The values of a routing_rules.yaml under the names of `APISettings`."""
    values = deepcopy(values)
    router, budget = _section(values, "router"), _section(values, "budget")
    limits = _section(_section(values, "rate_limits"), "default")
    alerts = budget.get("alert_at") or _BUDGET.alert_at
    arguments = {
        "providers": {name: entry or {} for name, entry in _section(values, "providers").items()},
        "ensemble": _section(values, "ensembles"),
        "default_model": router.get("default_model", _ROUTER.default_model),
        "max_retries": router.get("max_retries", _ROUTER.max_retries),
        "retry_delay_seconds": router.get("retry_delay_s", _ROUTER.retry_delay_s),
        "router": {key: value for key, value in router.items() if key not in _OF_ROUTER},
        "daily_budget_usd": budget.pop("daily_usd", None),
        "alert_threshold": alerts[0],
        "max_requests_per_minute": limits.pop("requests_per_minute", None),
    }
    taken = ("version", "providers", "router", "ensembles")
    return {**arguments, "sections": {key: value for key, value in values.items() if key not in taken}}


def _section(values: Values, name: str) -> Values:
    """A mapping in `values`; empty if there is none."""
    found = values.get(name)
    return found if isinstance(found, dict) else {}


# --- to a file --------------------------------------------------------------------------------------------------------


def text_of(settings: APISettings) -> str:
    """The text of routing_rules.yaml."""
    settings.check()
    return edited(_base(settings), document(settings))


def write(settings: APISettings, path: Path) -> Path:
    """Writes the file if it loads. Raises SettingsError."""
    text = text_of(settings)
    try:
        configure(Source(str(path), text.encode()), _pricing(settings), {})
        write_file(path, text.encode())
    except ConfigError as error:
        raise SettingsError(str(error)) from None
    return path


def document(settings: APISettings) -> Values:
    """The values of routing_rules.yaml, without any `api_key`. Raises ValueError."""
    values = deepcopy(plain(_base(settings).encode(), ROUTING))
    is_shipped = not settings.base
    for name, section in settings.sections.items():
        values[name] = deepcopy(section)
        if section is None:
            del values[name]
    if settings.providers:
        values["providers"] = _providers(settings, _section(values, "providers"), is_shipped=is_shipped)
    if settings.ensemble or not is_shipped:
        entries = ensembles_of(settings.ensemble)
        _put(values, "ensembles", {**_section(values, "ensembles"), **entries} if is_shipped else entries, {})
    _router(settings, values, is_shipped=is_shipped)
    budget = _section(values, "budget")
    _put(budget, "daily_usd", settings.daily_budget_usd, None)
    alerts = budget.get("alert_at") or _BUDGET.alert_at
    above = [share for share in alerts[1:] if share > settings.alert_threshold]
    if settings.alert_threshold != alerts[0]:
        budget["alert_at"] = [settings.alert_threshold, *above]
    _put(values, "budget", budget, {})
    limits = _section(values, "rate_limits")
    default = _section(limits, "default")
    _put(default, "requests_per_minute", settings.max_requests_per_minute, None)
    _put(limits, "default", default, {})
    _put(values, "rate_limits", limits, {})
    return values


def _base(settings: APISettings) -> str:
    if settings.base:
        return settings.base
    path = shipped(ROUTING)
    if path is None:
        raise SettingsError(f"The installed package lacks its {ROUTING}. Install it again.")
    return path.read_text("utf-8")


def _providers(settings: APISettings, known: Values, *, is_shipped: bool) -> Values:
    """The providers of the settings, plus those of the file switched off, because names in it still refer to them."""
    found = {name: {**(entry or {}), "enabled": False} for name, entry in known.items()}
    for name, given in settings.providers.items():
        entry, old = provider_of(name, given), _section(known, name)
        if is_shipped and entry.get("type", name) == old.get("type", name) and "base_url" not in entry:
            entry = {**{key: value for key, value in old.items() if key != "enabled"}, **entry}
        found[name] = entry
    return {name: None if entry == {} and known.get(name, 0) is None else entry for name, entry in found.items()}


def _router(settings: APISettings, values: Values, *, is_shipped: bool) -> None:
    given = deepcopy(settings.router)
    shorthand = given.pop("routing_rules", None)
    for key, field in zip(_OF_ROUTER, ("default_model", "max_retries", "retry_delay_seconds"), strict=True):
        if key in given:
            raise ValueError(f"router: {key} is the argument {field}")
    old = _section(values, "router")
    kept = old if is_shipped else {key: value for key, value in old.items() if key in _OF_ROUTER}
    router = {**kept, **given}
    _put(router, "default_model", _whole_name(settings, values), _ROUTER.default_model)
    _put(router, "max_retries", settings.max_retries, _ROUTER.max_retries)
    _put(router, "retry_delay_s", settings.retry_delay_seconds, _ROUTER.retry_delay_s)
    _put(values, "router", {key: router[key] for key in {**old, **router} if key in router}, {})
    if shorthand is not None:
        rules = values.get("rules")
        values["rules"] = rules_of(shorthand, rules if isinstance(rules, list) else [])


def _whole_name(settings: APISettings, values: Values) -> str | None:
    """`default_model`; a bare id of the price list gets its provider, because that name exists even if it is off."""
    name = settings.default_model
    known = {**_section(values, "models"), **_section(values, "aliases")}
    prices = _pricing(settings)
    is_whole = name is None or "/" in name or ":" in name or name in known
    if name is None or is_whole or prices is None or name == _section(values, "router").get("default_model"):
        return name
    rows = re.findall(rf"^ +([a-z0-9._-]+)/{re.escape(name)}:", prices.data.decode("utf-8", "replace"), re.MULTILINE)
    found = [provider for provider in rows if provider in _section(values, "providers")]
    return f"{found[0]}/{name}" if len(found) == 1 else name


def _put(section: Values, key: str, value: Any, default: Any) -> None:
    """Sets a key unless that changes nothing; None and empty sections are left out."""
    old = section.get(key)
    if (default if old is None else old) == value:
        return
    if value is None:
        del section[key]
    else:
        section[key] = value


# --- as a configuration -----------------------------------------------------------------------------------------------


def configured(settings: APISettings, environ: Mapping[str, str]) -> Config:
    """The configuration of a proxy in this process. Raises SettingsError with every mistake.

    The server's own environment variables are ignored, except PROXY_DB and PROXY_VAULT_KEY.
    """
    settings.check()
    values = document(settings)
    variables = {name: value for name, value in environ.items() if not name.startswith("PROXY_")}
    variables |= {name: environ[name] for name in ("PROXY_VAULT_KEY",) if name in environ}
    for place, (name, given) in enumerate(settings.providers.items()):
        if (key := given.get("api_key")) is not None:
            variables[f"{_KEY_VARIABLE}{place}"] = key
            entry = values["providers"][name] or {}
            values["providers"][name] = {**entry, "api_key_env": f"{_KEY_VARIABLE}{place}"}
    if environ.get("PROXY_DB"):
        storage = _section(values, "storage")
        values["storage"] = {**storage, "url": f"sqlite:///{environ['PROXY_DB']}"}
    try:
        config = configure(Source(ROUTING, msgspec.json.encode(values)), _pricing(settings), variables)
        if unusable := certificate_problems(config):
            raise ConfigError(unusable)
    except ConfigError as error:
        lines = [f"{each.path}: {each.message}" if each.path else each.message for each in error.problems]
        raise SettingsError("The settings cannot be used:\n" + "\n".join(lines)) from None
    return config


def _pricing(settings: APISettings) -> Source | None:
    """The pricing.yaml beside the file that was loaded, else the shipped one."""
    beside = None if settings.file is None else Path(settings.file).with_name(PRICING)
    path = beside if beside is not None and beside.is_file() else shipped(PRICING)
    return None if path is None else Source(os.fspath(path), read_file(path))


def prompt_file(settings: APISettings) -> bytes:
    """The templates as a file of prompts, each with the default label."""
    return written(
        (
            PromptHead(id=name, name=name, labels={PRODUCTION: 1}),
            [PromptVersion(version=1, messages=[{"role": "user", "content": text}], template=text)],
        )
        for name, text in settings.prompt_templates.items()
    ).encode()
