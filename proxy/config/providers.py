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
from proxy.providers.base import Provider
from proxy.records import Secret

PLANNED = ("anthropic", "google", "cohere", "perplexity")

# Stands for a section that is wrong, so that names that lead to it are not reported too.
_UNREAD = Provider(models=dict.fromkeys(("default", "reasoning", "fast"), "unread"))
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Providers(Struct):
    """What the section says. A provider that is wrong is `configured` all the same, so that its name is known."""

    configured: dict[str, Provider] = field(default_factory=dict)
    disabled: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, Secret] = field(default_factory=dict)


def read_providers(
    section: Entry | None, reader: Reader, types: MappingOf[str, type[Provider]], environ: MappingOf[str, str]
) -> Providers:
    """Every provider of the section. `types` maps the key `type` to Structs, `environ` holds the keys."""
    found = Providers()
    for name, entry in reader.mapping(section, ("providers",)).entries.items():
        path = ("providers", name)
        if name in ("auto", "ensemble") or looks_like_key(name) or not _NAME.fullmatch(name):
            reader.note(
                entry.mark, path, "a provider's name is made of a-z, 0-9, `.`, `_` and `-`, and is not auto or ensemble"
            )
            continue
        kind, provider = _read_provider(name, entry, reader, types)
        if provider is INVALID:
            found.configured[name] = _UNREAD
            continue
        found.configured[name] = provider
        _check(provider, kind, entry.mark, path, reader)
        secret, why_off = _key(provider, kind, environ)
        if why_off:
            found.disabled[name] = why_off
        elif secret:
            found.secrets[name] = secret
    return found


def _read_provider(name: str, entry: Entry, reader: Reader, types: MappingOf[str, type[Provider]]) -> tuple[str, Any]:
    """The provider's type and its Struct, or INVALID."""
    path = ("providers", name)
    node = entry.node
    if not isinstance(node, Mapping):
        return name, reader.struct(node, types.get(name, Provider), path)
    own = dict(node.entries)
    written = own.pop("type", None)
    mark, kind = entry.mark, name
    where: Path = path
    if written is not None:
        mark, where = written.node.mark, (*path, "type")
        if not isinstance(written.node, Scalar) or not isinstance(written.node.value, str):
            return name, reader.note(mark, where, "expected text, the provider's type")
        kind = written.node.value
    known = (*types, *PLANNED)
    if kind not in known:
        hint = near(kind, known) or f"; known: {', '.join(known)}"
        said = (
            f'unknown type "{shown(kind)}"' if written else f'no type is called "{shown(kind)}"; name one with `type:`'
        )
        reader.note(mark, where, said + hint)
        return kind, INVALID
    return kind, reader.struct(Mapping(entry.mark, own), types.get(kind, Provider), path)


def _check(provider: Provider, kind: str, mark: Mark, path: Path, reader: Reader) -> None:
    for name, value in provider.headers.items():
        where = (*path, "headers", name)
        wrong = wrong_header(name, value)
        if wrong:
            reader.note(reader.marks.get(where, mark), where, wrong)
    if provider.local_model is not None:
        return
    url = provider.base_url or provider.default_base_url
    if url is None:
        if kind not in PLANNED:
            reader.note(mark, path, f"base_url is missing; type {kind} has no default")
        return
    where = (*path, "base_url")
    wrong = wrong_url(url, provider.allow_private)
    if wrong:
        reader.note(reader.marks.get(where, mark), where, wrong)


def _key(provider: Provider, kind: str, environ: MappingOf[str, str]) -> tuple[Secret | None, str | None]:
    """The provider's key, or why it is off; neither where it needs none."""
    if not provider.enabled:
        return None, "switched off"
    if kind in PLANNED:
        return None, "its adapter is not part of this version yet"
    names = [provider.api_key_env] if isinstance(provider.api_key_env, str) else provider.api_key_env or []
    for name in names:
        value = environ.get(name, "").strip()
        if value and all("!" <= char <= "~" for char in value):
            return Secret(value), None
        if value:
            return None, f"{name} holds characters that no key has"
    if provider.keyless:
        return None, None
    return None, f"set {' or '.join(names)} to enable it" if names else "give it api_key_env"
