"""Translates: the origins of web pages and the host names that `server` lists into reasons to refuse them.

Both are compared as text with what clients send, so an entry in another form would never match.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from urllib.parse import urlsplit

from proxy.config.addresses import address_of
from proxy.config.problems import Path
from proxy.config.server import ServerConfig

_PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*", re.IGNORECASE)
_HOST = re.compile(r"[a-z0-9_.-]+|\[[0-9a-f:.]+\]")
_STAR = "would let every web page call the proxy; list the origins that may"


def without_effect(server: ServerConfig) -> list[tuple[Path, str]]:
    """The entries that no client can match, each with the reason. `proxy check` refuses them; a server starts, and
    reports that they have no effect.
    """
    found: list[tuple[Path, str]] = []
    for key, entries, reason in (
        ("cors_origins", server.cors_origins, wrong_origin),
        ("allowed_hosts", server.allowed_hosts, wrong_host),
    ):
        for place, text in enumerate(entries):
            if (wrong := reason(text)) is not None:
                found.append((("server", key, str(place)), wrong))
    return found


def wrong_origin(text: str) -> str | None:
    """The reason why no page can have this origin, or why it must not be listed; None if it may. `null` may: pages from
    files send it.
    """
    if text == "null":
        return None
    if text.strip() in ("*", "http://*", "https://*", "*://*"):
        return _STAR
    if "*" in text:
        return "patterns are not supported; list each origin"
    if not text.strip():
        return "is empty; write an origin like https://app.example.com"
    origin = _origin_of(text.strip())
    if origin is None:
        return "is not an origin; write scheme, host and port only, like https://app.example.com"
    return None if origin == text else f"never matches what browsers send; write {origin}"


def wrong_host(text: str) -> str | None:
    """The reason why no Host header can have this name; None if one can."""
    name = text.strip().lower()
    if "*" in name:
        return "patterns are not supported; list each name"
    name = name.partition("://")[2] or name
    name = re.split(r"[/?#]", name)[0]
    if name.count(":") > 1 and not name.startswith("["):
        name = f"[{name}]"
    name = re.sub(r"(?<=[^:]):[0-9]*$", "", name) if not name.endswith("]") else name
    if not _HOST.fullmatch(name):
        return "is not a host name; write the name alone, like proxy.example.com"
    return None if name == text.lower() else f"never matches; write the name alone: {name}"


def _origin_of(text: str) -> str | None:
    """The origin as browsers send it; None if there is none."""
    scheme, found, rest = text.partition("://")
    if not found:  # `localhost:3000`: the scheme was left out
        scheme, rest = "http" if re.match(r"localhost\b|127\.|\[", text) else "https", text
    if not _SCHEME.fullmatch(scheme) or not rest.isascii() or scheme.lower() == "file":
        return None
    try:
        parts = urlsplit(f"{scheme.lower()}://{rest}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    if scheme.lower() not in _PORTS:  # extensions and applications: the part after the scheme is their own
        return f"{scheme.lower()}://{rest.rstrip('/')}" if rest.strip("/") else None
    name = _host_of(host)
    if name is None:
        return None
    shown = "" if port in (None, _PORTS[scheme.lower()]) else f":{port}"
    return f"{scheme.lower()}://{name}{shown}"


def _host_of(host: str) -> str | None:
    try:
        address = address_of(host)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return f"[{address.compressed}]"
    if address is not None:
        return str(address)
    return host if _HOST.fullmatch(host) else None
