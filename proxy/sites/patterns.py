"""Translates: patterns of addresses into a matcher that is linear in the address.

    /r/{community}/comments/{id}/**    `{name}`: one segment, or a part of one; `**` at the end: any rest
    /watch?v                           the query has this parameter
    youtu.be/{id}                      only on this host and its sub-domains

Patterns come from configuration files, so they are not regular expressions, which can be written to run forever.
"""

from __future__ import annotations

import re

from msgspec import Struct

from proxy.sites.address import Address, host_of

MAX_PATTERN = 200  # characters
_PLACEHOLDER = re.compile(r"\{[a-z][a-z0-9_]*\}")  # linear: no nested repetition
_REST = "**"
_ODD = re.compile(r"[\s\\*{}#]")


class Pattern(Struct, frozen=True):
    """`segments`: each as its literal pieces, with some text between two; one piece: the whole segment is literal.

    `weight` grows with the literal part of the pattern: of two that fit, the heavier one wins.
    """

    host: str
    segments: tuple[tuple[str, ...], ...]
    has_rest: bool
    query: tuple[str, ...]
    weight: int

    def fits(self, address: Address) -> bool:
        """True if the address matches. Paths are compared without regard to case."""
        if self.host and not (address.host == self.host or address.host.endswith(f".{self.host}")):
            return False
        given, asked = address.segments, self.segments
        if len(given) < len(asked) or (len(given) > len(asked) and not self.has_rest):
            return False
        if not all(name in address.query for name in self.query):
            return False
        return all(_segment_fits(pieces, segment) for pieces, segment in zip(asked, given, strict=False))


def read_pattern(text: str) -> Pattern:
    """Raises ValueError, whose text explains the error."""
    if len(text) > MAX_PATTERN:
        raise ValueError(f"an address pattern has at most {MAX_PATTERN} characters")
    place, _, asked = text.partition("?")
    host, slash, path = place.partition("/")
    names = [segment for segment in path.split("/") if segment]
    has_rest = bool(names) and names[-1] == _REST
    names = names[:-1] if has_rest else names
    if not slash or any(_ODD.search(_PLACEHOLDER.sub("", name)) for name in names):
        example = "/r/{community}/** or /watch?v"
        raise ValueError(f"the pattern {text!r} is not valid; expected a path with {{names}} like {example}")
    if "}{" in text:
        raise ValueError(f"the pattern {text!r} has two names with nothing between them")
    segments = tuple(tuple(_PLACEHOLDER.split(name.lower())) for name in names)
    query = tuple(name for name in asked.split("&") if name)
    literal = sum(2 + len(piece) for pieces in segments for piece in pieces if piece)
    weight = literal + len(segments) + 4 * len(query) + (4 if host else 0)
    return Pattern(host_of(host) if host else "", segments, has_rest, query, weight)


def _segment_fits(pieces: tuple[str, ...], segment: str) -> bool:
    """The pieces occur in order, with at least one character between two. The leftmost match is always right."""
    first, last = pieces[0], pieces[-1]
    if len(pieces) == 1:
        return segment == first
    if not segment.startswith(first):
        return False
    end = len(first)
    for piece in pieces[1:-1]:
        place = segment.find(piece, end + 1)
        if place < 0:
            return False
        end = place + len(piece)
    return segment.endswith(last) and len(segment) - len(last) > end
