"""Translates: the section `providers` into Structs, API keys, and the reasons why providers are off."""

from __future__ import annotations

import re
from collections.abc import Mapping as MappingOf
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from proxy.config.addresses import wrong_header, wrong_header_name
from proxy.config.base_urls import corrected, homes_of, wrong_base_url
from proxy.config.environment import is_sendable, trimmed
from proxy.config.problems import Mark, Path, looks_like_key, near, shown
from proxy.config.reader import INVALID, Reader
from proxy.config.tree import Entry, Mapping, Scalar
from proxy.providers.base.contract import Provider
from proxy.routing.names import ROLES
from proxy.schema.records import Secret

# Placeholder for an invalid section, so that names that refer to it are not reported as well.
_UNREAD = Provider(models=dict.fromkeys(ROLES, "unread"))
_CHECKED = ("headers", "headers_env", "base_url", "allow_private")
_UNUSABLE = "contains characters that are not allowed in a key"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Providers(Struct):
    """The section as read. An invalid provider is also in `configured`, so that its name is known."""

    configured: dict[str, Provider] = field(default_factory=dict)
    disabled: dict[str, str] = field(default_factory=dict)
    keys: dict[str, dict[str, Secret]] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    secret_headers: dict[str, dict[str, Secret]] = field(default_factory=dict)


def read_providers(
    section: Entry | None, reader: Reader, types: MappingOf[str, type[Provider]], environ: MappingOf[str, str]
) -> Providers:
    """All providers of the section. `types` maps values of `type` to Structs; `environ` holds the API keys."""
    found = Providers()
    check, homes = _Check(reader), homes_of(types)
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
            check(Provider(**right), entry.mark, path)
            continue
        variable = provider.base_url_env
        address = trimmed(environ.get(variable or "", "")) or provider.base_url
        if address is not None:
            address, changes = corrected(address, provider, homes)
            found.notices += [f"providers.{name}.base_url: {change}" for change in changes]
            provider = replace(provider, base_url=address)
        found.configured[name] = provider
        check(provider, entry.mark, path)
        if not (provider.base_url or provider.default_base_url or provider.local_model or variable):
            reader.note(entry.mark, path, f"base_url is missing; type {kind} has no default")
        _enable(found, name, provider, environ)
    return found


def _enable(found: Providers, name: str, provider: Provider, environ: MappingOf[str, str]) -> None:
    """Adds the provider's secrets, or the reason why it is off."""
    keys, why_off = _keys(provider, environ)
    headers, why_headers = _secret_headers(provider, environ)
    if provider.enabled and provider.base_url_env and provider.base_url is None:
        # Never fall back to the vendor's own address: the key was meant for another one.
        why_off = f"set {provider.base_url_env} to enable it"
    why_off = why_off or why_headers
    if why_off:
        found.disabled[name] = why_off
        return
    if keys:
        found.keys[name] = keys
        if provider.rotates:
            found.notices += [f"providers.{name}: {line}" for line in _unused(provider, keys, environ)]
    if headers:
        found.secret_headers[name] = headers
    for header, variable in provider.header_variables.items():
        value = trimmed(environ.get(variable, ""))
        if value and value.isascii() and value.isprintable():
            found.headers.setdefault(name, {})[header] = value


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


class _Check(Struct):
    """Checks that no type can express, of headers and address, as far as they could be read."""

    reader: Reader

    def __call__(self, provider: Provider, mark: Mark, path: Path) -> None:
        for name, value in provider.headers.items():
            self._note(mark, (*path, "headers", name), wrong_header(name, value))
        for name in provider.headers_env:
            wrong = wrong_header_name(name)
            if wrong is None and name.lower() in {each.lower() for each in provider.headers}:
                wrong = "is under headers as well; keep one of them"
            self._note(mark, (*path, "headers_env", name), wrong)
        url = None if provider.local_model else provider.base_url or provider.default_base_url
        wrong = wrong_base_url(url, provider.allow_private) if url else None
        if wrong and provider.base_url_env and (*path, "base_url_env") in self.reader.marks:
            self._note(mark, (*path, "base_url_env"), f"{provider.base_url_env} {wrong}")
        else:
            self._note(mark, (*path, "base_url"), wrong)

    def _note(self, mark: Mark, where: Path, wrong: str | None) -> None:
        if wrong:
            self.reader.note(self.reader.marks.get(where, mark), where, wrong)


def _secret_headers(provider: Provider, environ: MappingOf[str, str]) -> tuple[dict[str, Secret], str | None]:
    """The values that `headers_env` names, or the reason why the provider is off: it would refuse requests
    without them.
    """
    found: dict[str, Secret] = {}
    for header, variable in provider.headers_env.items():
        value = trimmed(environ.get(variable, ""))
        if not value:
            return {}, f"set {variable} to enable it"
        if not all(" " <= char <= "~" for char in value):
            return {}, f"{variable} {_UNUSABLE}"
        found[header.lower()] = Secret(value)
    return found, None


def _keys(provider: Provider, environ: MappingOf[str, str]) -> tuple[dict[str, Secret], str | None]:
    """The provider's API keys by variable, or the reason why it is off; neither if it needs no key.

    One key, unless they rotate: the first variable that is set.
    """
    if not provider.enabled:
        return {}, "switched off"
    names = provider.key_variables
    texts = {name: text for name in names if (text := trimmed(environ.get(name, "")))}
    usable = {name: Secret(text) for name, text in texts.items() if is_sendable(text)}
    if not provider.rotates:
        texts, first = dict([*texts.items()][:1]), next(iter(texts), "")
        usable = {name: secret for name, secret in usable.items() if name == first}
    if usable or provider.keyless:
        return usable, None
    if texts:
        return {}, f"{next(iter(texts))} {_UNUSABLE}"
    return {}, f"set {' or '.join(names)} to enable it"


def _unused(provider: Provider, keys: MappingOf[str, Secret], environ: MappingOf[str, str]) -> list[str]:
    """One line for each variable of a rotation without a key; the others are used."""
    missing = [name for name in provider.key_variables if name not in keys]
    return [f"{name} {_UNUSABLE if trimmed(environ.get(name, '')) else 'is not set'}" for name in missing]
