"""Translates: the section `providers` into Structs, API keys, and the reasons why providers are off."""

from __future__ import annotations

import re
from collections.abc import Mapping as MappingOf
from typing import Any

from msgspec import Struct, field

from proxy.config.addresses import wrong_header, wrong_url
from proxy.config.problems import Mark, Path, looks_like_key, near, shown
from proxy.config.reader import INVALID, Reader
from proxy.config.tree import Entry, Mapping, Scalar
from proxy.providers.base.contract import Provider
from proxy.routing.names import ROLES
from proxy.schema.records import Secret

# Placeholder for an invalid section, so that names that refer to it are not reported as well.
_UNREAD = Provider(models=dict.fromkeys(ROLES, "unread"))
_CHECKED = ("headers", "base_url", "allow_private")
_UNUSABLE = "contains characters that are not allowed in a key"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Providers(Struct):
    """The section as read. An invalid provider is in `configured` too, so that its name is known."""

    configured: dict[str, Provider] = field(default_factory=dict)
    disabled: dict[str, str] = field(default_factory=dict)
    keys: dict[str, dict[str, Secret]] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)


def read_providers(
    section: Entry | None, reader: Reader, types: MappingOf[str, type[Provider]], environ: MappingOf[str, str]
) -> Providers:
    """All providers of the section. `types` maps values of `type` to Structs; `environ` holds the API keys."""
    found = Providers()
    for name, entry in reader.mapping(section, ("providers",)).entries.items():
        path = ("providers", name)
        if looks_like_key(name):
            message = "looks like an API key, so it is not shown; a name may not begin like one (sk-, xai-, hf_, ...)"
            reader.note(entry.mark, path, message)
            continue
        if name in ("auto", "ensemble") or not NAME.fullmatch(name):
            reader.note(
                entry.mark, path, "a provider's name is made of a-z, 0-9, `.`, `_` and `-`, and is not auto or ensemble"
            )
            continue
        kind, provider = _read_provider(name, entry, reader, types)
        if provider is INVALID:
            found.configured[name] = _UNREAD
            right = {key: value for key, value in reader.partial.get(path, {}).items() if key in _CHECKED}
            _check(Provider(**right), entry.mark, path, reader)
            continue
        found.configured[name] = provider
        _check(provider, entry.mark, path, reader)
        if not (provider.base_url or provider.default_base_url or provider.local_model):
            reader.note(entry.mark, path, f"base_url is missing; type {kind} has no default")
        keys, why_off = _keys(provider, environ)
        if why_off:
            found.disabled[name] = why_off
        elif keys:
            found.keys[name] = keys
            if provider.rotates:
                found.notices += [f"providers.{name}: {line}" for line in _unused(provider, keys, environ)]
        for header, variable in provider.header_variables.items():
            value = environ.get(variable, "").strip()
            if value and value.isascii() and value.isprintable():
                found.headers.setdefault(name, {})[header] = value
    return found


def _read_provider(name: str, entry: Entry, reader: Reader, types: MappingOf[str, type[Provider]]) -> tuple[str, Any]:
    """The provider's type and its Struct, or INVALID."""
    path: Path = ("providers", name)
    own = dict(reader.mapping(entry, path).entries)
    written = own.pop("type", None)
    if written is None:
        if name not in types:
            hint = near(name, types) or f"; known: {', '.join(types)}"
            return name, reader.note(entry.mark, path, f'no type is called "{name}"; name one with `type:`{hint}')
        return name, reader.struct(Mapping(entry.mark, own), types[name], path)
    kind = written.node.value if isinstance(written.node, Scalar) else None
    where = (*path, "type")
    if not isinstance(kind, str):
        return name, reader.note(written.node.mark, where, "expected text: the provider's type")
    if kind not in types:
        hint = near(kind, types) or f"; known: {', '.join(types)}"
        return kind, reader.note(written.node.mark, where, f'unknown type "{shown(kind)}"{hint}')
    return kind, reader.struct(Mapping(entry.mark, own), types[kind], path)


def _check(provider: Provider, mark: Mark, path: Path, reader: Reader) -> None:
    """Checks headers and address, as far as they could be read."""
    for name, value in provider.headers.items():
        where = (*path, "headers", name)
        wrong = wrong_header(name, value)
        if wrong:
            reader.note(reader.marks.get(where, mark), where, wrong)
    url = None if provider.local_model else provider.base_url or provider.default_base_url
    wrong = wrong_url(url, provider.allow_private) if url else None
    if wrong:
        reader.note(reader.marks.get((*path, "base_url"), mark), (*path, "base_url"), wrong)


def _keys(provider: Provider, environ: MappingOf[str, str]) -> tuple[dict[str, Secret], str | None]:
    """The provider's API keys by variable, or the reason why it is off; neither if it needs no key.

    One key, unless they rotate: the first variable that is set.
    """
    if not provider.enabled:
        return {}, "switched off"
    names = provider.key_variables
    texts = {name: text for name in names if (text := environ.get(name, "").strip())}
    usable = {name: Secret(text) for name, text in texts.items() if _is_usable(text)}
    if not provider.rotates:
        texts, first = dict([*texts.items()][:1]), next(iter(texts), "")
        usable = {name: secret for name, secret in usable.items() if name == first}
    if usable or provider.keyless:
        return usable, None
    if texts:
        return {}, f"{next(iter(texts))} {_UNUSABLE}"
    return {}, f"set {' or '.join(names)} to enable it"


def _unused(provider: Provider, keys: MappingOf[str, Secret], environ: MappingOf[str, str]) -> list[str]:
    """One line for each variable of a rotation without a key: the others serve."""
    missing = [name for name in provider.key_variables if name not in keys]
    return [f"{name} {_UNUSABLE if environ.get(name, '').strip() else 'is not set'}" for name in missing]


def _is_usable(text: str) -> bool:
    """True if a header can carry it."""
    return all("!" <= char <= "~" for char in text)
