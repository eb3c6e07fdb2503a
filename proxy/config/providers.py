"""Translates: the section `providers` into Structs, the keys of those that are on, and why the others are off."""

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

# Stands for a section that is wrong, so that names that lead to it are not reported too.
_UNREAD = Provider(models=dict.fromkeys(ROLES, "unread"))
_CHECKED = ("headers", "base_url", "allow_private")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Providers(Struct):
    """What the section says. A provider that is wrong is `configured` all the same, so that its name is known."""

    configured: dict[str, Provider] = field(default_factory=dict)
    disabled: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, Secret] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)


def read_providers(
    section: Entry | None, reader: Reader, types: MappingOf[str, type[Provider]], environ: MappingOf[str, str]
) -> Providers:
    """Every provider of the section. `types` maps the key `type` to Structs, `environ` holds the keys."""
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
        return name, reader.note(written.node.mark, where, "expected text, the provider's type")
    if kind not in types:
        hint = near(kind, types) or f"; known: {', '.join(types)}"
        return kind, reader.note(written.node.mark, where, f'unknown type "{shown(kind)}"{hint}')
    return kind, reader.struct(Mapping(entry.mark, own), types[kind], path)


def _check(provider: Provider, mark: Mark, path: Path, reader: Reader) -> None:
    """Headers and address; of a section that is wrong elsewhere too, what could be read."""
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
    """The provider's key, or why it is off; neither where it needs none."""
    if not provider.enabled:
        return None, "switched off"
    names = provider.key_variables
    for name in names:
        value = environ.get(name, "").strip()
        if value and all("!" <= char <= "~" for char in value):
            return Secret(value), None
        if value:
            return None, f"{name} holds characters that no key has"
    if provider.keyless:
        return None, None
    return None, f"set {' or '.join(names)} to enable it"
