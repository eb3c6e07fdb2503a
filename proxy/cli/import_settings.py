"""Translates: the settings of LiteLLM's configuration that are not models: retries, fallbacks, cache, budgets, keys."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from proxy.cli.import_deployments import Defaults
from proxy.cli.import_parameters import parameters_of
from proxy.cli.import_prices import budget_of
from proxy.cli.import_source import ACTION, CHANGED, LOST, NOTE, Section, variable_of
from proxy.config.problems import shown

_CHAINS = {
    "fallbacks": "fallback",
    "context_window_fallbacks": "context_fallback",
    "content_policy_fallbacks": "content_fallback",
}
_ANY = "*"
_LONGEST_CACHE_S = 30 * 86_400
_BUILT_IN = {
    "drop_params": "every provider gets what it takes, and the answer says what was dropped",
    "modify_params": "requests are adapted, and the answer says how",
    "set_verbose": "each call is one log line",
    "json_logs": "set PROXY_LOG_FORMAT=json",
    "enable_pre_call_checks": "requests go only to models whose context they fit",
    "enable_pre_call_check": "requests go only to models whose context they fit",
    "store_model_in_db": "models live in routing_rules.yaml",
    "background_health_checks": "each call measures its deployment; nothing is polled",
    "health_check_interval": "each call measures its deployment; nothing is polled",
    "disable_spend_logs": "every call is metered",
    "max_fallbacks": "router.max_retries bounds all attempts",
    "debug_level": "each call is one log line",
    "proxy_batch_write_at": "every call is written before its last byte leaves",
    "turn_off_message_logging": "prompts are stored for the keys with store_text only",
    "suppress_debug_info": "each call is one log line",
    "telemetry": "nothing is sent anywhere",
    "forward_client_headers_to_llm_api": "what vendors need is forwarded",
    "database_connection_pool_limit": "the database is a file",
    "database_connection_timeout": "the database is a file",
    "redis_host": "one server needs no Redis",
    "redis_port": "one server needs no Redis",
    "redis_password": "one server needs no Redis",
    "redis_url": "one server needs no Redis",
    "redis_db": "one server needs no Redis",
    "cache_kwargs": "one server needs no Redis",
    "ui_username": "there is no user interface to log in to",
    "ui_password": "there is no user interface to log in to",
}
_CALLBACKS = ("success_callback", "failure_callback", "callbacks", "service_callbacks", "service_callback")


class Chain(Struct):
    """One list of fallbacks, and its place. `name` `*`: for every model."""

    kind: str
    name: str
    targets: list[str]
    section: Section
    key: str


class Settings(Struct):
    """The parts of routing_rules.yaml besides providers and models."""

    defaults: Defaults = field(default_factory=Defaults)
    chains: list[Chain] = []
    aliases: dict[str, str] = {}
    sections: dict[str, dict[str, Any]] = {}
    retries: int | None = None
    cache_s: float | None = None
    provider_budgets: dict[str, dict[str, float]] = {}
    budget_section: Section | None = None


def read_settings(root: Section) -> Settings:
    """Everything except `model_list`. If a key appears twice, the one in `router_settings` counts."""
    found = Settings()
    for section in root.sections("credential_list"):
        name, values = section.text("credential_name"), section.section("credential_values")
        section.read("credential_info")
        if name and values:
            found.defaults.credentials[name] = values
    general, library = root.section("general_settings"), root.section("litellm_settings")
    router = root.section("router_settings")
    if general is not None:
        _general(general, found)
    for shared in (library, router):
        if shared is not None:
            _shared(shared, found)
    if library is not None:
        _library(library, found)
    if router is not None:
        _router(router, found)
    variables = root.read("environment_variables")
    if isinstance(variables, dict) and variables:
        names = ", ".join(shown(str(name)) for name in variables)
        root.say(ACTION, "environment_variables", f"values are not copied; set these in the environment: {names}")
    for read in (general, library, router):
        if read is not None:
            _say_built_in(read)
            read.rest()
    return found


def _say_built_in(section: Section) -> None:
    for name, why in _BUILT_IN.items():
        if name in section:
            section.say(NOTE, name, f"not needed: {why}")


def _general(section: Section, found: Settings) -> None:
    key = section.read("master_key")
    if key is not None:
        variable = variable_of(key)
        value = f"the value of {variable}" if variable else "a new key"
        why = "" if variable else "; a key in plain text is not copied"
        section.say(ACTION, "master_key", f"set PROXY_ADMIN_KEY to {value}, at least 16 characters{why}")
        found.sections.setdefault("server", {})["require_key"] = True
    if section.read("database_url") is not None:
        what = (
            "usage is kept in a file (storage.url); keys, teams and spend stay behind: `proxy keys create` makes keys"
        )
        section.say(LOST, "database_url", what)
    if section.flag("allow_requests_on_db_unavailable"):
        found.sections.setdefault("storage", {})["when_down"] = "unmetered"
    everyone = section.number("global_max_parallel_requests")
    if everyone:
        found.sections.setdefault("rate_limits", {})["global"] = {"concurrent": int(everyone)}
    found.defaults.max_concurrent = section.number("max_parallel_requests") or None
    size = section.number("max_request_size_mb")
    if size:
        found.sections.setdefault("server", {})["max_body_mb"] = size
    period = section.text("maximum_spend_logs_retention_period")
    if period is not None and period.endswith("d") and period[:-1].isdigit():
        found.sections.setdefault("storage", {})["keep_days"] = min(max(1, int(period[:-1])), 36_500)
    elif period is not None:
        section.say(LOST, "maximum_spend_logs_retention_period", "storage.keep_days counts days")
    _budget(section, found)
    if section.read("alerting") is not None:
        section.say(LOST, "alerting", "budget.alert_webhook_env posts budget alerts to a URL")
    if section.text("completion_model") is not None:
        section.say(CHANGED, "completion_model", "a request without a model is refused; ask for a name, or for auto")


def _budget(section: Section, found: Settings) -> None:
    amount, period = section.number("max_budget"), section.text("budget_duration")
    if amount:
        limits = budget_of(section, "budget_duration", amount, period)
        found.sections.setdefault("budget", {}).update(limits)


def _shared(section: Section, found: Settings) -> None:
    """Keys that both `litellm_settings` and `router_settings` may have."""
    defaults = found.defaults
    retries = section.number("num_retries")
    found.retries = found.retries if retries is None else int(retries)
    defaults.retries = found.retries
    for name in ("request_timeout", "timeout"):
        defaults.timeout = section.number(name) or defaults.timeout
    defaults.stream_timeout = section.number("stream_timeout") or defaults.stream_timeout
    fails, rest = section.number("allowed_fails"), section.number("cooldown_time")
    breaker = {"failures": int(fails) if fails and fails >= 1 else None, "open_s": rest or None}
    set_now = {name: value for name, value in breaker.items() if value is not None}
    if set_now.get("open_s", 0) > 300:
        set_now["max_open_s"] = set_now["open_s"]
    if set_now:
        found.sections.setdefault("router", {}).setdefault("breaker", {}).update(set_now)
    for key, kind in _CHAINS.items():
        found.chains += [Chain(kind, name, targets, section, key) for name, targets in _lists(section, key)]
    everyone = section.read("default_fallbacks")
    if everyone:
        names = [str(name) for name in everyone] if isinstance(everyone, list) else [str(everyone)]
        found.chains.append(Chain("fallback", _ANY, names, section, "default_fallbacks"))
    aliases = section.read("model_group_alias", "model_alias_map")
    for name, target in aliases.items() if isinstance(aliases, dict) else ():
        real = target.get("model") if isinstance(target, dict) else target
        if isinstance(target, list) and target:
            real = target[0]
            section.say(CHANGED, "model_group_alias", f"{shown(str(name))} is an alias of its first name only")
        if isinstance(real, str):
            found.aliases[str(name)] = real


def _lists(section: Section, key: str) -> list[tuple[str, list[str]]]:
    """`[{name: [names]}]`, in LiteLLM's order; also without the list around it."""
    value = section.read(key)
    entries = value if isinstance(value, list) else [value]
    found: list[tuple[str, list[str]]] = []
    for entry in entries:
        if not isinstance(entry, dict):
            if entry is not None:
                section.say(LOST, key, "has an entry that is not `name: [names]`")
            continue
        for name, targets in entry.items():
            each = targets if isinstance(targets, list) else [targets]
            names = [item.get("model") if isinstance(item, dict) else item for item in each]
            if any(isinstance(item, dict) for item in each):
                section.say(CHANGED, key, f"a fallback of {shown(str(name))} has parameters, which are left out")
            if targets:
                found.append((str(name), [item for item in names if isinstance(item, str)]))
    return found


def _library(section: Section, found: Settings) -> None:
    _budget(section, found)
    for key in _CALLBACKS:
        value = section.read(key)
        names = [str(name) for name in value] if isinstance(value, list) else [str(value)] if value else []
        others = [shown(name) for name in names if name != "prometheus"]
        if len(others) < len(names):
            section.say(NOTE, key, "prometheus: /metrics is always there (server.metrics)")
        if others:
            section.say(LOST, key, f"{', '.join(others)}: calls are in the log, in the database and in /metrics only")
    cache = section.section("cache_params")
    if not section.flag("cache"):
        if cache is not None:
            section.say(NOTE, "cache_params", "not used: cache is off")
        return
    kind = (cache.text("type") if cache else None) or "local"
    if "semantic" in kind:
        section.say(LOST, "cache", "answers to similar requests are not reused; equal requests: models.NAME.cache_s")
    elif cache is not None and cache.text("mode") == "default_off":
        section.say(LOST, "cache", "a request cannot ask for it; models.NAME.cache_s turns it on for a name")
    else:
        found.cache_s = min((cache.number("ttl") if cache else None) or 60, _LONGEST_CACHE_S)
        where = f"cache_s: {found.cache_s:g} on every model"
        section.say(CHANGED, "cache", f"becomes {where}; each caller has a cache of its own, in this database")
    if cache is not None:
        for name in cache.names():
            cache.read(name)


def _router(section: Section, found: Settings) -> None:
    strategy = section.text("routing_strategy")
    if strategy not in (None, "simple-shuffle"):
        why = "a deployment is drawn by weight; one that fails or is at its limit is passed over"
        section.say(CHANGED, "routing_strategy", f"{shown(strategy or '')}: {why}")
    wait = section.number("retry_after")
    if wait:
        found.sections.setdefault("router", {})["retry_delay_s"] = wait
    at_once = section.number("default_max_parallel_requests")
    found.defaults.max_concurrent = at_once or found.defaults.max_concurrent
    params = section.section("default_litellm_params")
    if params is not None:
        found.defaults.parameters = parameters_of(params, {})
        params.rest()
    budgets = section.section("provider_budget_config")
    found.budget_section = budgets
    for name in budgets.names() if budgets else ():
        each = budgets.section(name) if budgets else None
        amount = (each.number("budget_limit") or each.number("max_budget")) if each else None
        if each is not None and amount:
            period = each.text("time_period") or each.text("budget_duration")
            found.provider_budgets[name] = budget_of(each, "time_period", amount, period)
