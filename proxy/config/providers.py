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
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Providers(Struct):
    """The section as read. An invalid provider is in `configured` too, so that its name is known."""

    configured: dict[str, Provider] = field(default_factory=dict)
    disabled: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, Secret] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)


def read_providers(
    section: Entry | None, reader: Reader, types: MappingOf[str, type[Provider]], environ: MappingOf[str, str]
) -> Providers:
    """All providers of the section. `types` maps values of `type` to Structs; `environ` holds the API keys."""
    found = Providers()
    for name, entry in reader.mapping(section, ("providers",)).entries.items():
        path = ("providers", name)
        if name in ("auto", "ensemble") or looks_like_key(name) or not NAME.fullmatch(name):
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
        secret, why_off = _key(provider, environ)
        if why_off:
            found.disabled[name] = why_off
        elif secret:
            found.secrets[name] = secret
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


def _key(provider: Provider, environ: MappingOf[str, str]) -> tuple[Secret | None, str | None]:
    """The provider's API key, or the reason why it is off; neither if it needs no key."""
    if not provider.enabled:
        return None, "switched off"
    names = provider.key_variables
    for name in names:
        value = environ.get(name, "").strip()
        if value and all("!" <= char <= "~" for char in value):
            return Secret(value), None
        if value:
            return None, f"{name} contains characters that are not allowed in a key"
    if provider.keyless:
        return None, None
    return None, f"set {' or '.join(names)} to enable it"
