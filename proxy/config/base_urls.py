"""Translates: the usual mistakes in a provider's base URL into what to write instead. `addresses` judges the host.

Messages never repeat the URL, which may contain a password.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from proxy.config.addresses import wrong_url
from proxy.providers.base.contract import Provider

# What people copy from the page of an endpoint. The proxy adds these itself.
_ENDPOINT = re.compile(
    r"/(?:(?:chat/)?completions|responses|embeddings|messages|rerank|v\d\w*/chat|models(?:/[^/]+:\w+)?"
    r"|api/(?:chat|generate|tags|embed|embeddings|show|ps|version))$"
)
_OWN_API = {"ollama": "/api", "lmstudio": "/api/v0"}  # beside OpenAI's, and not what is spoken here
_GUESSES = ("", "/v1", "/openai", "/api/v1")
_VERSION = re.compile(r"(/v\d\w*)(?=/|$)")
_VARIABLE = re.compile(r"\$\{?\w+")


def wrong_base_url(url: str, provider: Provider, homes: Mapping[str, str]) -> str | None:
    """The reason to refuse a base URL, or None. `homes`: the hosts of vendors' public APIs -> their base URLs."""
    if _VARIABLE.search(url):
        return "variables are not expanded here; write base_url_env with the variable's name instead"
    if url != url.strip():
        return "has blanks around it"
    return wrong_url(url, provider.allow_private) or _wrong_path(url, provider, homes)


def homes_of(types: Mapping[str, type[Provider]]) -> dict[str, str]:
    """Host -> the base URL of the vendor's public API. Servers in the own network have none."""
    bases = [kind.base for kind in types.values() if kind.base and kind.base.startswith("https://")]
    return {urlsplit(base).netloc: base for base in bases}


def _wrong_path(url: str, provider: Provider, homes: Mapping[str, str]) -> str | None:
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    if "//" in path:
        return "has an empty part (//) in its path"
    if (found := _ENDPOINT.search(path)) is not None:
        return f"must end before {found[0]}, which the proxy adds itself"
    if (own := _OWN_API.get(provider.type)) is not None and path.endswith(own):
        return f"must not end with {own}: the proxy speaks the API of this server that is like OpenAI's, at /v1"
    versions = _VERSION.findall(path)
    twice = next((each for each in versions if versions.count(each) > 1), None)
    if twice is not None:
        return f"has {twice} twice"
    home = homes.get((parts.hostname or "").removesuffix("."), "")
    right = urlsplit(home).path
    if not home or path == right or (not right and _VERSION.fullmatch(path)):
        return None
    # Some vendors have another address that is like OpenAI's, so a path of one's own may be right there.
    if home == provider.default_base_url or (right and provider.type == "openai" and path in _GUESSES):
        return f"the API of this vendor is at {home}; write that"
    return None
