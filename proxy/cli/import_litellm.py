"""Translates: a LiteLLM configuration into routing_rules.yaml, rows of pricing.yaml, and a finding for each key that
does not carry over unchanged.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from proxy.cli.import_deployments import Deployment, Secrets, read_deployment
from proxy.cli.import_names import Layout, lay_out, provider_entry
from proxy.cli.import_settings import Settings, read_settings
from proxy.cli.import_source import CHANGED, LOST, Finding, Section, variable_of
from proxy.config.problems import shown
from proxy.config.tree import Mapping, Node, Scalar, Sequence
from proxy.config.yaml_text import yaml_lines
from proxy.providers import PROVIDERS

_ORDER = ("server", "storage", "models", "aliases", "router", "budget", "rate_limits")
_ADDRESSES = ("base_url", "base_url_env")
_ELSEWHERE = {
    "guardrails": "guardrails do not run here; a guardrail's own proxy can be a provider's base_url",
    "mcp_servers": "tools are called by clients, not by this proxy",
    "vector_store_registry": "searches in documents are not done here",
    "callback_settings": "calls are in the log, in the database and in /metrics only",
    "prompts": "prompt templates are not taken over",
    "finetune_settings": "fine-tuning has no endpoint here",
    "files_settings": "files have no endpoint here",
    "search_tools": "searches are those of the models (web_search)",
    "health_check_details": "/readyz and /metrics tell",
}


class Imported(Struct):
    """The sections of routing_rules.yaml, rows of pricing.yaml, the variables to set, and the findings."""

    routing: dict[str, Any]
    rows: dict[str, dict[str, Any]]
    variables: list[str]
    findings: list[Finding]

    def text(self, source: str) -> str:
        """routing_rules.yaml."""
        head = f"# Made from {shown(source)} by `proxy import litellm`. Every key: docs/configuration.md.\n"
        return head + yaml_lines(self.routing)


def import_litellm(trees: list[Mapping]) -> Imported:
    """`trees`: the file, and those that it includes, in order."""
    findings: list[Finding] = []
    root = Section(joined(trees), (), findings)
    secrets = Secrets(taken={name for tree in trees for name in _variables(tree)})
    settings = read_settings(root)
    deployments: list[Deployment] = []
    for entry in root.sections("model_list"):
        if (made := read_deployment(entry, settings.defaults, secrets)) is not None:
            deployments.append(made)
    root.read("include")
    for name, why in _ELSEWHERE.items():
        if name in root:
            root.say(LOST, name, why)
    root.rest()
    layout = lay_out(deployments, settings)
    routing = _routing(layout, settings, deployments)
    rows = _rows(deployments, layout)
    findings.sort(key=lambda each: (each.file, each.line, each.column, each.path))
    return Imported(routing, rows, _needed(routing), findings)


def joined(trees: list[Mapping]) -> Mapping:
    """The file merged with its includes: lists are joined, other keys replace each other, as in LiteLLM."""
    first, *others = trees
    entries = dict(first.entries)
    for other in others:
        for key, entry in other.entries.items():
            mine = entries.get(key)
            if mine is not None and isinstance(mine.node, Sequence) and isinstance(entry.node, Sequence):
                items = [*mine.node.items, *entry.node.items]
                entries[key] = type(mine)(mine.mark, Sequence(mine.node.mark, items))
            else:
                entries[key] = entry
    return Mapping(first.mark, entries)


def _variables(node: Node) -> list[str]:
    """The environment variables that a file refers to."""
    if isinstance(node, Mapping):
        return [name for entry in node.entries.values() for name in _variables(entry.node)]
    if isinstance(node, Sequence):
        return [name for item in node.items for name in _variables(item)]
    name = variable_of(node.value) if isinstance(node, Scalar) else None
    return [] if name is None else [name]


def _routing(layout: Layout, settings: Settings, deployments: list[Deployment]) -> dict[str, Any]:
    own: dict[str, list[Deployment]] = {name: [] for name in layout.providers.values()}
    groups = [each for group in layout.groups.values() for each in group]
    for each in [*groups, *(each for each in deployments if each.is_wildcard)]:
        if each.link in layout.providers:
            own[layout.providers[each.link]].append(each)
    providers = {name: provider_entry(name, link, own[name]) for link, name in layout.providers.items()}
    routing: dict[str, Any] = {"version": 1, "providers": dict(sorted(providers.items()))}
    sections = dict(settings.sections)
    _add_router(sections, layout, settings)
    _add_budgets(sections, layout, settings, deployments)
    sections |= {"models": layout.models, "aliases": layout.aliases}
    return routing | {name: sections[name] for name in _ORDER if sections.get(name)}


def _add_router(sections: dict[str, dict[str, Any]], layout: Layout, settings: Settings) -> None:
    """Enough attempts for the retries and the longest list of fallbacks; `auto` answers with the first model."""
    router = sections.setdefault("router", {})
    longest = max((len(entry.get("fallback", ())) for entry in layout.models.values()), default=0)
    if settings.retries is not None or longest > 1:
        router["max_retries"] = min(10, (2 if settings.retries is None else settings.retries) + longest)
    if layout.models:
        router["default_model"] = next(iter(layout.models))
    elif not router:
        del sections["router"]


def _add_budgets(
    sections: dict[str, dict[str, Any]], layout: Layout, settings: Settings, deployments: list[Deployment]
) -> None:
    budget = sections.setdefault("budget", {})
    per_model = {each.group: each.budget for each in deployments if each.budget and each.group in layout.models}
    per_provider: dict[str, dict[str, float]] = {}
    for name, limits in settings.provider_budgets.items():
        for link, provider in layout.providers.items():
            if link.prefix == name and limits:
                per_provider[provider] = limits
        if settings.budget_section and sum(link.prefix == name for link in layout.providers) > 1:
            settings.budget_section.say(CHANGED, name, "each provider made of it has this limit of its own")
    budget |= {"per_model": per_model} if per_model else {}
    budget |= {"per_provider": per_provider} if per_provider else {}
    if budget:
        budget["unknown_price"] = "allow"  # LiteLLM counts calls without a known price as free
    else:
        del sections["budget"]


def _rows(deployments: list[Deployment], layout: Layout) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for each in deployments:
        if not each.row or each.link not in layout.providers:
            continue
        full = layout.full(each)
        if "*" in each.model and each.model != "*":
            continue
        if rows.setdefault(full, each.row) != each.row:
            each.source.about(CHANGED, f"{shown(full)} has one price; that of its first deployment counts")
    return rows


def _needed(routing: dict[str, Any]) -> list[str]:
    """The environment variables that the file names, without alternatives."""
    found: dict[str, None] = {}
    for name, entry in routing["providers"].items():
        own = PROVIDERS[entry.get("type", name)].key_env if not any(key in entry for key in _ADDRESSES) else ()
        keys = entry.get("api_key_env", own)
        rotating = keys.get("rotate", []) if isinstance(keys, dict) else []
        found |= dict.fromkeys([keys] if isinstance(keys, str) else rotating or [*keys][:1])
        found |= dict.fromkeys(entry.get("headers_env", {}).values())
        found |= dict.fromkeys(entry[key] for key in ("base_url_env", "organization_env") if key in entry)
    return [*found]
