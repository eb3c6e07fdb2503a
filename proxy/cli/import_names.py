"""Translates: deployments into providers, and the names that clients call into entries of `models:`.

LiteLLM has a name for each group of deployments; here a provider has a name, and `provider/model` one deployment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import chain, count
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from proxy.cli.import_deployments import Deployment, Link, is_name
from proxy.cli.import_settings import Chain, Settings
from proxy.cli.import_source import CHANGED, LOST, NOTE
from proxy.cli.import_vendors import NATIVE, VENDORS, host_of
from proxy.config.problems import shown
from proxy.config.providers import NAME
from proxy.providers import PROVIDERS

_ANY = "*"
_ADDRESS = re.compile(r"_(API_BASE|BASE_URL|API_URL|URL|BASE|HOST|ENDPOINT)(_V1)?$")


class Layout(Struct):
    """The names: link -> provider, group -> its deployments, and the entries of `models:`."""

    providers: dict[Link, str] = field(default_factory=dict)
    groups: dict[str, list[Deployment]] = field(default_factory=dict)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    def full(self, each: Deployment) -> str:
        return f"{self.providers[each.link]}/{each.model}"


def lay_out(deployments: list[Deployment], settings: Settings) -> Layout:
    """Names everything, and reports what cannot be kept."""
    layout = Layout()
    single = [each for each in deployments if not each.is_wildcard]
    for each in single:
        layout.groups.setdefault(each.group, []).append(each)
    layout.groups = {name: _rotated(group) for name, group in layout.groups.items()}
    kept = [each for group in layout.groups.values() for each in group]
    chained = {settings.aliases.get(each.name, each.name) for each in settings.chains}
    with_chains = chained | (set(layout.groups) if settings.cache_s else set())
    if any(each.name == _ANY for each in settings.chains):
        with_chains |= set(layout.groups)
    _wildcards([each for each in deployments if each.is_wildcard], layout)
    for link in dict.fromkeys(each.link for each in sorted(kept, key=lambda each: _plainness(each.link))):
        if link not in layout.providers:
            _name(link, [each for each in kept if each.link == link], layout, with_chains | set(settings.aliases))
    for name, group in layout.groups.items():
        _add_group(name, group, layout, keep=name in with_chains)
    _add_aliases(settings, layout)
    _add_chains(settings.chains, layout)
    if settings.cache_s:
        for entry in layout.models.values():
            entry["cache_s"] = settings.cache_s
    return layout


def _plainness(link: Link) -> tuple[bool, int]:
    """Sort key: the plainest link of a vendor gets the vendor's plain name."""
    extras = (link.parameters != "{}", link.headers, link.headers_env, link.timeouts, link.rotates)
    return link.base_url is not None, sum(map(bool, extras))


def _rotated(group: list[Deployment]) -> list[Deployment]:
    """Deployments that differ only in their key become one whose keys rotate."""
    alike: dict[tuple[object, ...], list[Deployment]] = {}
    for each in group:
        alike.setdefault((replace(each.link, keys=()), each.model, each.order), []).append(each)
    found: list[Deployment] = []
    for same in alike.values():
        keys = list(dict.fromkeys(each.link.keys for each in same))
        if len(keys) > 1 and all(len(key) == 1 for key in keys):
            link = replace(same[0].link, keys=tuple(key[0] for key in keys), rotates=True)
            same[0].link = link
            found.append(same[0])
            same[0].source.about(NOTE, f"its {len(keys)} keys take turns (rotate)")
        else:
            first: dict[Link, Deployment] = {}
            for each in same:
                first.setdefault(each.link, each)
            found += first.values()
    return found


def _name(link: Link, own: list[Deployment], layout: Layout, kept: set[str]) -> None:
    """The first free name under which no deployment has the name of another group."""
    taken = set(layout.providers.values())
    for candidate in _candidates(link, own[0].group if own else link.prefix):
        if candidate not in taken and not any(_hides(f"{candidate}/{each.model}", each, layout, kept) for each in own):
            layout.providers[link] = candidate
            return


def _hides(full: str, each: Deployment, layout: Layout, kept: set[str]) -> bool:
    """True if a group of this name exists that has other deployments."""
    if full in kept:
        return True
    group = layout.groups.get(full)
    return group is not None and any((other.link, other.model) != (each.link, each.model) for other in group)


def _candidates(link: Link, group: str) -> Iterable[str]:
    if link.base_url is None and link.base_url_env is None:
        plain = link.type
    elif link.base_url is not None and link.base_url == VENDORS.get(link.prefix, VENDORS["openai"]).base_url:
        plain = link.type if link.type in ("ollama", "lmstudio") else link.prefix
    elif link.type in ("ollama", "vllm", "lmstudio"):
        plain = link.type
    elif link.prefix == "azure":
        plain = f"azure-{group}"
    else:
        plain = host_of(link.base_url) if link.base_url else _ADDRESS.sub("", link.base_url_env or link.prefix)
    names = chain((plain, f"{plain}-{group}"), (f"{link.prefix}-{number}" for number in count(2)))
    return (slug for name in names if (slug := _slug(name)) is not None)


def _slug(name: str) -> str | None:
    slug = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")[:64]
    slug = re.sub(r"^(sk|gsk|xai|hf|csk|nvapi|mmp|pplx)-", r"\1_", slug)  # a name may not begin as a key does
    return slug if NAME.fullmatch(slug) and slug not in ("auto", "ensemble") else None


def _wildcards(deployments: list[Deployment], layout: Layout) -> None:
    """`openai/*`: the provider itself, under the name before the star."""
    for each in sorted(deployments, key=lambda each: each.model == _ANY):
        if "*" not in each.model:
            each.source.say(LOST, "model", f"{shown(each.group)}: one model for many names; list them under aliases:")
            layout.groups.setdefault(each.group, [each])  # keeps its provider
            continue
        if each.group == _ANY and each.model == _ANY:
            each.source.say(CHANGED, "model", "every vendor with a key answers as provider/model; so do listed ids")
            for vendor in NATIVE:
                kind = VENDORS[vendor]
                if kind.type not in layout.providers.values():
                    layout.providers[Link(vendor, kind.type, keys=kind.keys)] = kind.type
            continue
        before = each.group.partition("/")[0] if each.group.endswith("/*") else ""
        taken = set(layout.providers.values())
        wanted = before if before and _slug(before) == before and before not in taken else None
        if wanted is None:
            options = _candidates(each.link, each.link.prefix)
            wanted = next(name for name in options if name not in taken)
        layout.providers.setdefault(each.link, wanted)
        name = layout.providers[each.link]
        if each.group != f"{name}/*" or each.model.partition("/")[2] not in ("*", ""):
            listed = "an id that pricing.yaml lists also works bare"
            each.source.say(CHANGED, "model", f"{shown(each.group)}: call it as {name}/MODEL; {listed}")
    for name in [name for name, group in layout.groups.items() if group[0].is_wildcard]:
        del layout.groups[name]


def _add_group(name: str, group: list[Deployment], layout: Layout, *, keep: bool) -> None:
    """The entry of one group: its deployment, or several by weight, in LiteLLM's `order`."""
    first = min(each.order for each in group)
    lead = [each for each in group if each.order == first]
    names = list(dict.fromkeys(layout.full(each) for each in lead))
    later = list(dict.fromkeys(layout.full(each) for each in sorted(group, key=lambda each: each.order)))
    if len(names) == 1:
        entry: dict[str, Any] = {"use": names[0]}
        if rest := [other for other in later if other != names[0]]:
            entry["fallback"] = rest
        if names == [name] and len(later) == 1 and not keep:
            return
    else:
        key = next((key for key in ("weight", "rpm", "tpm") if any(key in each.weights for each in lead)), "weight")
        weights: dict[str, float] = {}
        for each in lead:
            weights[layout.full(each)] = weights.get(layout.full(each), 0) + each.weights.get(key, 1)
        entry = {"weighted": weights, "fallback": later}
    layout.models[name] = entry


def _add_aliases(settings: Settings, layout: Layout) -> None:
    for name, target in settings.aliases.items():
        if name in layout.models or name == target or not is_name(name):
            continue
        if target in layout.models or _is_called(target, layout):
            layout.aliases[name] = target


def _is_called(name: str, layout: Layout) -> bool:
    """True for `provider/model` of an existing provider."""
    provider, slash, model = name.partition("/")
    return bool(slash and model) and provider in layout.providers.values()


def _add_chains(chains: list[Chain], layout: Layout) -> None:
    """Fallbacks: the model's own before those of all models. A chain with a cycle is written out."""
    edges: dict[str, set[str]] = {}
    for each in sorted(chains, key=lambda each: each.name == _ANY):
        owners = [*layout.models] if each.name == _ANY else [layout.aliases.get(each.name, each.name)]
        for owner in owners:
            if owner not in layout.models:
                each.section.say(LOST, each.key, f"{shown(owner)} is no model here, so its fallbacks are left out")
                continue
            for name in each.targets:
                _add_fallback(each, owner, layout.aliases.get(name, name), layout, edges)


def _add_fallback(source: Chain, owner: str, target: str, layout: Layout, edges: dict[str, set[str]]) -> None:
    if target == owner:
        return
    known = target in layout.models
    if not known and not _is_called(target, layout):
        why = f"{shown(target)} is no model here, so it is no fallback of {shown(owner)}"
        source.section.say(LOST, source.key, why)
        return
    entry = layout.models[owner]
    names = [target]
    if known and _leads(target, owner, edges):
        names = [layout.full(each) for each in layout.groups[target]]
    elif known:
        edges.setdefault(owner, set()).add(target)
    listed = entry.setdefault(source.kind, [])
    first = entry.get("use")
    listed += [name for name in names if name not in listed and name != first]
    if not listed:
        del entry[source.kind]


def _leads(start: str, end: str, edges: dict[str, set[str]]) -> bool:
    seen, rest = set(), [start]
    while rest:
        name = rest.pop()
        if name == end:
            return True
        if name not in seen:
            seen.add(name)
            rest += edges.get(name, ())
    return False


def provider_entry(name: str, link: Link, own: list[Deployment]) -> dict[str, Any]:
    """The section of one provider."""
    entry: dict[str, Any] = {}
    if link.type != name:
        entry["type"] = link.type
    for key in ("base_url", "base_url_env", "organization_env"):
        if (value := getattr(link, key)) is not None:
            entry[key] = value
    default = PROVIDERS[link.type].key_env if link.base_url is None and link.base_url_env is None else ()
    if link.rotates:
        entry["api_key_env"] = {"rotate": [*link.keys]}
    elif link.keys and link.keys != default:
        entry["api_key_env"] = link.keys[0] if len(link.keys) == 1 else [*link.keys]
    if link.allow_private:
        entry["allow_private"] = True
    for key in ("headers", "headers_env", "timeouts"):
        if getattr(link, key):
            entry[{"timeouts": "timeout_s"}.get(key, key)] = dict(getattr(link, key))
    for key in ("retries", "max_concurrent"):
        if (value := getattr(link, key)) is not None:
            entry[key] = value
    if parameters := json.loads(link.parameters):
        entry["parameters"] = parameters
    if limits := _limits(name, own):
        entry["limits"] = limits
    return entry


def _limits(name: str, own: list[Deployment]) -> dict[str, int]:
    """Requests and tokens a minute, if all models of the provider agree."""
    if not own or all(each.limits == (None, None) for each in own):
        return {}
    if len({each.limits for each in own}) > 1:
        told = f"limits are those of a provider, and the models of {name} differ; they only weigh deployments"
        for each in own:
            if each.limits != (None, None):
                each.source.say(CHANGED, "rpm" if each.limits[0] else "tpm", told)
        return {}
    keys = ("requests_per_minute", "tokens_per_minute")
    return {key: int(value) for key, value in zip(keys, own[0].limits, strict=True) if value and value >= 1}
