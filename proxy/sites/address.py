"""Translates: a URL as people write it into the host, path and query that patterns match.

Read as browsers do wherever it decides whose page it is: text before `@` is not the host, other scripts become
punycode, a trailing dot and a port change nothing. URLs that browsers repair in ways of their own (backslashes, spaces,
control characters) are refused.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from msgspec import Struct

MAX_URL = 2_048  # characters
MAX_SEGMENTS = 32
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):(?!\d)")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_REFUSED = re.compile(r"[\s\\\x00-\x1f\x7f<>\"^`|]")
_MAX_HOST = 253
_MAX_PARAMETERS = 100


class Address(Struct, frozen=True):
    """`segments` of the path in lower case, percent-decoded; `query`: the names of its parameters."""

    host: str
    segments: tuple[str, ...] = ()
    query: frozenset[str] = frozenset()


def read_address(text: str) -> Address:
    """Raises ValueError, whose text explains the error without repeating the URL: it may hold a password."""
    text = text.strip(" ")
    if not text:
        raise ValueError("expected a URL, got an empty text")
    if len(text) > MAX_URL:
        raise ValueError(f"expected a URL of at most {MAX_URL} characters")
    if _REFUSED.search(text):
        raise ValueError("expected a URL; it has spaces or characters that no URL may have")
    scheme = _SCHEME.match(text)
    if scheme is not None:
        if scheme[1].lower() not in ("http", "https"):
            raise ValueError(f"expected a URL of http or https, not {scheme[1][:32]!r}")
        text = text[scheme.end() :]
        if not text.startswith("//"):
            raise ValueError("expected a URL like https://example.com/path; `//` is missing")
    text = text.removeprefix("//")
    place = re.split(r"[/?#]", text, maxsplit=1)[0]
    path, _, query = text[len(place) :].partition("#")[0].partition("?")
    host = host_of(_without_port(place.rpartition("@")[2]))
    if scheme is None and "." not in host and not host.startswith("["):
        raise ValueError("expected a URL like https://example.com/path; the host has no dot")
    segments = tuple(unquote(segment).lower() for segment in path.split("/") if segment)
    if len(segments) > MAX_SEGMENTS:
        raise ValueError(f"expected a URL whose path has at most {MAX_SEGMENTS} segments")
    names = frozenset(unquote(each.partition("=")[0]) for each in query.split("&", _MAX_PARAMETERS) if each)
    return Address(host, segments, names)


def host_of(text: str) -> str:
    """A host name in the form in which catalogs and addresses compare it. Raises ValueError."""
    if text.startswith("[") and text.endswith("]"):
        return text.lower()  # an IPv6 address: in no catalog
    if len(text) > _MAX_HOST:
        raise ValueError("the host is too long")
    try:
        name = (text if text.isascii() else text.encode("idna").decode("ascii")).lower()
    except UnicodeError:
        name = ""
    name = name.removesuffix(".")
    if not name or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise ValueError("the host is not a valid name")
    return name


def _without_port(place: str) -> str:
    head, colon, port = place.rpartition(":")
    if not colon or place.endswith("]"):
        return place
    if port and not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) < 65_536):
        raise ValueError("the port is not a number below 65536")
    return head


def parents(host: str) -> list[str]:
    """The host and the domains above it, the longest first. Only whole labels count: evilreddit.com is not below
    reddit.com.
    """
    labels = host.split(".")
    return [".".join(labels[place:]) for place in range(len(labels))]
