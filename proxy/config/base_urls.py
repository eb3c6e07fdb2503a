"""Translates: a provider's base URL as users write it into the intended one. `addresses` judges the host.

Each correction is reported in one line at every start. No line repeats the URL, which may contain a password.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from proxy.config.addresses import wrong_url
from proxy.providers.base.contract import Provider

# Endings that people copy from documentation. The proxy adds these itself.
_ENDPOINT = re.compile(
    r"/(?:(?:chat/)?completions|responses|embeddings|messages|rerank|(?<=\d/)chat|models(?:/[^/]+:\w+)?"
    r"|api/(?:chat|generate|tags|embed|embeddings|show|ps|version))/*$"
)
_GUESSES = ("", "/v1", "/openai", "/api/v1")
_VERSION = re.compile(r"/v\d\w*")
_TWICE = re.compile(r"(/v\d\w*)\1+(?=/|$)")
_VARIABLE = re.compile(r"\$\{?\w+")
_SCHEMES = re.compile(r"(?:https?:/*)+(?=https?://)", re.IGNORECASE)
_NO_SCHEME = re.compile(r"(?:[\w-]+\.)*[\w-]+(?::\d+)?(?:/.*)?")


def corrected(url: str, provider: Provider, homes: Mapping[str, str]) -> tuple[str, list[str]]:
    """The intended base URL, and the corrections. `homes`: the hosts of vendors' APIs -> their base URLs."""
    found: list[str] = []
    url = url.strip()
    if (doubled := _SCHEMES.match(url)) is not None:
        url = url[doubled.end() :]
        found.append(f"{doubled[0]} before {url.partition('://')[0]}:// is left out")
    if "://" not in url and _NO_SCHEME.fullmatch(url):
        scheme = "http" if provider.allow_private else "https"
        url = f"{scheme}://{url}"
        found.append(f"{scheme}:// is put before it")
    scheme, mark, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    if not mark or "?" in host:
        return url, found
    path, query, tail = f"{slash}{path}".partition("?")
    if "//" in path:
        path = re.sub("/{2,}", "/", path)
        found.append("// is read as /")
    if (end := _ENDPOINT.search(path)) is not None:
        path = path[: end.start()]
        found.append(f"{end[0].rstrip('/')} at its end is left out, because the proxy adds it")
    own = provider.other_api
    if own is not None and path.rstrip("/").endswith(own):
        path = path.rstrip("/").removesuffix(own)
        found.append(f"{own} at its end is left out: the server's API that is like OpenAI's is spoken")
    if (twice := _TWICE.search(path)) is not None:
        path = _TWICE.sub(r"\1", path)
        found.append(f"{twice[1]} is read once")
    home = _home(host, path.rstrip("/"), provider, homes)
    if home is not None:
        return home, [*found, f"the API of this vendor is at {home}"]
    return f"{scheme}{mark}{host}{path}{query}{tail}", found


def wrong_base_url(url: str, allow_private: bool) -> str | None:
    """The reason to refuse a base URL, or None."""
    if _VARIABLE.search(url):
        return "variables are not expanded here; write base_url_env with the variable's name instead"
    return wrong_url(url, allow_private)


def homes_of(types: Mapping[str, type[Provider]]) -> dict[str, str]:
    """Host -> the base URL of the vendor's public API. Servers in the own network have none."""
    bases = [kind.base for kind in types.values() if kind.base and kind.base.startswith("https://")]
    return {urlsplit(base).netloc: base for base in bases}


def _home(host: str, path: str, provider: Provider, homes: Mapping[str, str]) -> str | None:
    """The address of the vendor's API, if another path at its host cannot be right."""
    home = homes.get(host.lower().removesuffix("."), "")
    right = urlsplit(home).path
    if not home or path == right or (not right and _VERSION.fullmatch(path)):
        return None
    # Some vendors also have an address with OpenAI's API, so a custom path may be right there.
    is_guess = bool(right) and provider.is_generic and path in _GUESSES
    return home if home == provider.default_base_url or is_guess else None
