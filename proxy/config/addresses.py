"""Translates: a provider's base URL, or a header, into the reason to refuse it. Judges the text and resolves no names.

An address inside the own network may be intended (a model on this machine), so it needs `allow_private: true`.
Link-local and metadata addresses hand out the machine's own credentials and are always refused.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

_IP = IPv4Address | IPv6Address

# Metadata services outside the link-local ranges: AWS (IPv6), Google Cloud (IPv6), Alibaba, Azure, Oracle.
_METADATA = {
    ip_address(text) for text in ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
}
_METADATA_NAMES = (
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
)
_PRIVATE_ENDINGS = (".localhost", ".local", ".internal", ".lan", ".home", ".corp", ".intranet", ".home.arpa", ".test")
_SHARED = ip_network("100.64.0.0/10")
_SITE_LOCAL = ip_network("fec0::/10")
_EMBEDDING = (IPv6Network("64:ff9b::/96"), IPv6Network("::/96"), IPv6Network("::ffff:0:0:0/96"))
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")
_API_VERSION = re.compile(r"api-version=[A-Za-z0-9._-]+")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CREDENTIALS = ("authorization", "proxy-authorization", "cookie", "api-key", "x-api-key", "x-goog-api-key")
_TRANSPORT = (
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "keep-alive",
)


def wrong_url(url: str, allow_private: bool) -> str | None:
    """The reason to refuse a base URL, or None. Never repeats the URL, which may contain a password."""
    if not url.isascii() or any(char <= " " or char in '\\"<>^`{|}\x7f' for char in url):
        return "must be plain ASCII without spaces or backslashes; write international names in their xn-- form"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in ("http", "https"):
        return "must start with http:// or https://"
    if "@" in parts.netloc:
        return "must not contain a user name or password; keys come from api_key_env or headers_env"
    if "#" in url or ("?" in url and not _API_VERSION.fullmatch(parts.query)):
        return "must not contain a fragment, nor a query other than Azure's ?api-version=..."
    if not host:
        return "has no host"
    return _wrong_host(host.removesuffix("."), allow_private)


def wrong_header(name: str, value: str) -> str | None:
    """The reason to refuse a header that a provider's section adds to every request, or None."""
    wrong = wrong_header_name(name)
    if wrong is not None:
        return wrong
    if name.lower() in _CREDENTIALS:
        return "credentials do not belong in this file; use api_key_env or headers_env"
    if not all(" " <= char <= "~" for char in value):
        return "a header value must be printable ASCII"
    return None


def wrong_header_name(name: str) -> str | None:
    """The reason to refuse the name of a header, whatever its value."""
    if not _TOKEN.fullmatch(name):
        return "is not a valid header name"
    if name.lower() in _TRANSPORT:
        return "this header belongs to the connection and cannot be set"
    return None


def _wrong_host(host: str, allow_private: bool) -> str | None:
    try:
        address = address_of(host)
    except ValueError:
        return "the host is not a valid name or address"
    if address is None:
        return _wrong_name(host, allow_private)
    inner = _inner(address)
    if any(ip.is_link_local or ip in _METADATA for ip in inner):
        return "a link-local or metadata address is never allowed"
    if not allow_private and any(_is_private(ip) for ip in inner):
        return "an address inside your own network; add allow_private: true if this is intended"
    return None


def _wrong_name(host: str, allow_private: bool) -> str | None:
    if not all(_LABEL.fullmatch(label) for label in host.split(".")):
        return "the host is not a valid name or address"
    if host in _METADATA_NAMES:
        return "a link-local or metadata address is never allowed"
    if not allow_private and ("." not in host or host.endswith(_PRIVATE_ENDINGS)):
        return "a name inside your own network; add allow_private: true if this is intended"
    return None


def address_of(host: str) -> _IP | None:
    """The address a host denotes, in any notation that resolvers accept (127.1, 0x7f000001, 2130706433). A name: None.

    Raises ValueError for a malformed address: resolvers disagree about those.
    """
    if ":" in host:
        return IPv6Address(host) if "%" not in host else IPv6Address(host.partition("%")[0])
    labels = host.split(".")
    if not _NUMBER.fullmatch(labels[-1]):
        return None
    if len(labels) > 4 or not all(_NUMBER.fullmatch(label) for label in labels):
        raise ValueError(host)
    numbers = [_number(label) for label in labels]
    if any(number > 255 for number in numbers[:-1]) or numbers[-1] >= 256 ** (5 - len(numbers)):
        raise ValueError(host)
    value = numbers[-1] + sum(number << (24 - 8 * place) for place, number in enumerate(numbers[:-1]))
    return IPv4Address(value)


def _number(label: str) -> int:
    if label.startswith("0x"):
        return int(label[2:] or "0", 16)
    return int(label, 8) if label.startswith("0") else int(label)


def _inner(address: _IP) -> list[_IP]:
    """The address, and any IPv4 addresses embedded in it."""
    if isinstance(address, IPv4Address):
        return [address]
    inner: list[_IP] = [address]
    if address.ipv4_mapped:
        inner = [address.ipv4_mapped]
    elif address.sixtofour:
        inner.append(address.sixtofour)
    elif address.teredo:
        inner += address.teredo
    elif any(address in network for network in _EMBEDDING):
        inner.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return inner


def _is_private(address: _IP) -> bool:
    return not address.is_global or address.is_multicast or address in _SHARED or address in _SITE_LOCAL
