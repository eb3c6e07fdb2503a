"""Orchestrates: files -> trees -> Structs -> one checked `Config`, or an error with every problem in them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from collections.abc import Mapping as MappingOf
from pathlib import Path as FilePath
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct, inspect

from proxy.config.certificates import certificate_problems
from proxy.config.ensembles import read_ensembles
from proxy.config.environment import is_service_link, own_key_problems, trimmed
from proxy.config.files import read_file
from proxy.config.origins import without_effect
from proxy.config.outbound import proxies_of
from proxy.config.panels import panel_problems
from proxy.config.problems import ConfigError, Mark, Path, Problem, problem
from proxy.config.providers import read_providers
from proxy.config.reader import INVALID, Reader, described
from proxy.config.references import name_problems
from proxy.config.rules import rule_problems
from proxy.config.server import ServerConfig
from proxy.config.settings import LATER, Config, PricingFile, RoutingFile
from proxy.config.sites import read_sites
from proxy.config.tree import Entry, Mapping, Scalar, Sequence, parse, plain_value
from proxy.ensembles.base import Ensemble
from proxy.ensembles.registry import STRATEGIES
from proxy.metering.budgets import BudgetConfig
from proxy.metering.pricing import ModelPrice, Pricing
from proxy.providers import PROVIDERS
from proxy.providers.base.contract import Provider
from proxy.routing.settings import ModelEntry, RouterConfig, Rule, When
from proxy.schema.constraints import NotBlank
from proxy.schema.records import Secret

VAULT_KEY = "PROXY_VAULT_KEY"
MIN_VAULT_KEY = 32  # characters
_READ_APART = ("providers", "models", "aliases", "rules", "tasks", "ensembles", "sites")
_ENTRY = inspect.type_info(str | ModelEntry)
_TASK = inspect.type_info(NotBlank | list[NotBlank])
_UNREAD = Rule(name="", when=When(), use=[])  # a placeholder for a rule with a problem
_REFERRING: dict[str, Callable[..., Any]] = {"router": RouterConfig, "budget": BudgetConfig, "keys": dict}


class Source(Struct, frozen=True):
    """The name and content of one file."""

    name: str
    data: bytes


def load(
    routing_path: FilePath,
    pricing_path: FilePath | None,
    environ: MappingOf[str, str],
    types: MappingOf[str, type[Provider]] = PROVIDERS,
    strategies: MappingOf[str, type[Ensemble]] = STRATEGIES,
) -> Config:
    """Reads and checks both files. Without `pricing_path` no price is known. Raises ConfigError with every problem."""
    problems: list[Problem] = []
    sources: list[Source | None] = []
    for path in (routing_path, pricing_path):
        try:
            sources.append(Source(str(path), read_file(path)) if path else None)
        except ConfigError as error:
            problems.extend(error.problems)
            sources.append(None)
    routing, pricing = sources
    if routing is None:
        raise ConfigError(problems)
    config = configure(routing, pricing, environ, types, problems, strategies)
    if unusable := certificate_problems(config):
        raise ConfigError(unusable)
    return config


def configure(
    routing: Source,
    pricing: Source | None,
    environ: MappingOf[str, str],
    types: MappingOf[str, type[Provider]] = PROVIDERS,
    problems: list[Problem] | None = None,
    strategies: MappingOf[str, type[Ensemble]] = STRATEGIES,
) -> Config:
    """The pure part of `load`, after the files are read. `problems` holds problems already found."""
    problems = [] if problems is None else problems
    unread = bool(problems)
    price_marks: dict[Path, Mark] = {}
    prices = read_pricing(pricing, problems, price_marks) if pricing else Pricing()
    root = parse(routing.data, routing.name, problems)
    if root is None:
        raise ConfigError(problems)
    ignored = _overlay(root, environ)
    problems += own_key_problems(environ)
    reader = Reader(problems, LATER)
    values = reader.fields(root, RoutingFile, (), without=_READ_APART)
    providers = read_providers(root.entries.get("providers"), reader, types, environ)
    ensembles, are_enabled = read_ensembles(root.entries.get("ensembles"), reader, strategies)
    sections = _sections(values, reader) | {"sites": read_sites(root.entries.get("sites"), reader)}
    config = Config(
        **sections,
        **_names(root, reader),
        rules=_rules(root, reader),
        tasks=_tasks(root, reader),
        ensembles=ensembles,
        ensembles_enabled=are_enabled,
        strategies=strategies,
        providers=providers.configured,
        disabled=providers.disabled,
        provider_keys=providers.keys,
        headers=providers.headers,
        secret_headers=providers.secret_headers,
        proxies=proxies_of(providers.configured, sections.get("proxy"), environ, reader),
        vault_key=_vault_key(environ, problems),
        alert_webhook=_alert_webhook(sections.get("budget"), environ, reader),
        pricing=prices or Pricing(),
        notices=[*ignored, *_notices(sections, environ), *providers.notices],
        version=version_of(routing.data, pricing.data if pricing else b""),
        marks=reader.marks,
        price_marks=price_marks,
    )
    if prices is not None and not unread:  # without the price list, bare model ids cannot be judged
        problems += [*name_problems(config), *rule_problems(config), *panel_problems(config)]
    if problems:
        raise ConfigError(problems)
    return config


def _sections(values: dict[str, Any], reader: Reader) -> dict[str, Any]:
    """The readable sections; those that refer to names may be partial."""
    sections = {key: value for key, value in values.items() if key != "version" and value not in (INVALID, None)}
    for key, build in _REFERRING.items():
        if (key,) in reader.partial:
            sections[key] = build(**reader.partial[(key,)])
    return sections


def version_of(routing: bytes, pricing: bytes = b"") -> str:
    """The version of the configuration in two files: 12 hex digits of their hash."""
    return hashlib.sha256(routing + b"\0" + pricing).hexdigest()[:12]


def _vault_key(environ: MappingOf[str, str], problems: list[Problem]) -> Secret | None:
    """The key that encrypts reasoning states, if the environment sets one."""
    text = trimmed(environ.get(VAULT_KEY, ""))
    if not text:
        return None
    if len(text) < MIN_VAULT_KEY:
        why = f"must have at least {MIN_VAULT_KEY} characters; generate one with `openssl rand -base64 32`"
        problems.append(problem(Mark(f"environment variable {VAULT_KEY}"), (), why))
    return Secret(text)


def _alert_webhook(budget: BudgetConfig | None, environ: MappingOf[str, str], reader: Reader) -> Secret | None:
    """The URL in the variable that `budget.alert_webhook_env` names. It may hold a token, so no message shows it."""
    variable = None if budget is None else budget.alert_webhook_env
    text = trimmed(environ.get(variable or "", ""))
    if variable is None or not text:
        return None
    if not _is_web_address(text):
        path = ("budget", "alert_webhook_env")
        why = f"the variable {variable} must hold a URL that starts with https:// or http://"
        reader.note(reader.marks.get(path, Mark("configuration")), path, why)
    return Secret(text)


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        has_place = bool(parts.hostname) and parts.port != 0
        return parts.scheme in ("http", "https") and has_place and not re.search(r"[^!-~]", text)
    except ValueError:
        return False


def _notices(sections: dict[str, Any], environ: MappingOf[str, str]) -> list[str]:
    """Settings that have no effect. Every start reports them, so that users do not rely on them."""
    unmatched = without_effect(sections.get("server", ServerConfig()))
    found = [f"{'.'.join(path)} has no effect: {why}" for path, why in unmatched]
    variable = sections["budget"].alert_webhook_env if "budget" in sections else None
    if variable is not None and not environ.get(variable):
        found.append(f"budget.alert_webhook_env: {variable} is not set, so alerts are only logged")
    return found


def _names(root: Mapping, reader: Reader) -> dict[str, Any]:
    """The sections `models` and `aliases`. An invalid entry is kept as a name that resolves to nothing."""
    models: dict[str, ModelEntry] = {}
    aliases: dict[str, str] = {}
    for name, entry in reader.mapping(root.entries.get("models"), ("models",)).entries.items():
        path = ("models", name)
        read = reader.read(entry.node, _ENTRY, path)
        models[name] = ModelEntry(use=read) if isinstance(read, str) else ModelEntry() if read is INVALID else read
        if isinstance(read, ModelEntry) and read.use is None and not read.weighted:
            reader.note(entry.mark, path, "has neither use nor weighted; set one of them")
    for name, entry in reader.mapping(root.entries.get("aliases"), ("aliases",)).entries.items():
        read = reader.read(entry.node, inspect.StrType(), ("aliases", name))
        if read is INVALID:
            models.setdefault(name, ModelEntry())
        else:
            aliases[name] = read
    return {"models": models, "aliases": aliases}


def _rules(root: Mapping, reader: Reader) -> list[Rule]:
    """The section `rules`. A rule with a problem keeps its place, so that the others are still checked."""
    entry = root.entries.get("rules")
    node = entry.node if entry else None
    if not isinstance(node, Sequence):
        if node is not None:
            reader.read(node, inspect.type_info(list[Rule]), ("rules",))
        return []
    found = [reader.struct(item, Rule, ("rules", str(place))) for place, item in enumerate(node.items)]
    return [_UNREAD if rule is INVALID else rule for rule in found]


def _tasks(root: Mapping, reader: Reader) -> dict[str, list[str]]:
    """The section `tasks`, each with a list of names."""
    found: dict[str, list[str]] = {}
    for task, entry in reader.mapping(root.entries.get("tasks"), ("tasks",)).entries.items():
        read = reader.read(entry.node, _TASK, ("tasks", task))
        if read is not INVALID:
            found[task] = [read] if isinstance(read, str) else read
    return found


def read_pricing(source: Source, problems: list[Problem], marks: dict[Path, Mark]) -> Pricing | None:
    """Reads pricing.yaml on its own; None if it is not YAML. Adds the position of each successor to `marks`."""
    root = parse(source.data, source.name, problems)
    if root is None:
        return None
    reader = Reader(problems, {})
    values = reader.fields(root, PricingFile, ())
    marks |= {path: mark for path, mark in reader.marks.items() if path[-1] == "successor"}
    models = values.get("models", {})
    if models is INVALID:
        # Keep the row names, so that names in the other file can still be checked.
        return Pricing(models=dict.fromkeys(_row_names(root), ModelPrice()))
    for name in models:
        if "/" not in name.strip("/") or "*" in name.removesuffix("/*"):
            mark = reader.marks.get(("models", name), root.mark)
            reader.note(mark, ("models", name), "the name of a row must be provider/model or provider/*")
    plain = {key: value for key, value in values.items() if key in ("lookup", "updated") and value is not INVALID}
    version = hashlib.sha256(msgspec.json.encode(models, order="deterministic")).hexdigest()[:12]
    return Pricing(models=models, version=version, **plain)


def _row_names(root: Mapping) -> list[str]:
    section = root.entries["models"].node
    return list(section.entries) if isinstance(section, Mapping) else []


def _overlay(root: Mapping, environ: MappingOf[str, str]) -> list[str]:
    """Applies PROXY_PORT and similar variables, which take precedence over the section `server`, by the same rules.

    Returns a line for each that is ignored: a service called `proxy` makes Kubernetes set PROXY_PORT in every pod.
    """
    given: dict[str, Entry] = {}
    ignored: list[str] = []
    for field in described(ServerConfig).fields:
        name = f"PROXY_{field.encode_name.upper()}"
        text = trimmed(environ.get(name, ""))
        if not text:
            continue
        if is_service_link(text):
            why = "an address that Kubernetes or Docker sets for a service of this name"
            ignored.append(f"{name} is ignored: it holds {why}, not a value for server.{field.encode_name}")
            continue
        mark = Mark(f"environment variable {name}")
        if isinstance(field.type, inspect.ListType):
            items = [Scalar(mark, item.strip()) for item in text.split(",") if item.strip()]
            given[field.encode_name] = Entry(mark, Sequence(mark, [*items]))
        else:
            value = text if isinstance(field.type, inspect.StrType) else plain_value(text)
            given[field.encode_name] = Entry(mark, Scalar(mark, value))
    if not given:
        return ignored
    section = root.entries.get("server")
    if section is None or (isinstance(section.node, Scalar) and section.node.value is None):
        root.entries["server"] = Entry(root.mark, Mapping(root.mark, given))
    elif isinstance(section.node, Mapping):
        root.entries["server"] = Entry(section.mark, Mapping(section.node.mark, section.node.entries | given))
    return ignored
