"""Translates: the headers of a provider's last answer into the remaining room in its rate limits."""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

from proxy.providers.base.contract import HTTPResponse, Provider

_REMAINING = re.compile(r"x-ratelimit-remaining-([a-z-]{1,32})")
_COUNT = re.compile(r"(\d{1,15})(?:\.0*)?")


class Headroom(Struct, frozen=True):
    """What is left of one limit. `what`: `requests`, `tokens`, `input-tokens` and so on; `limit`: None if the provider
    does not report it; `reset`: the time until it is fully available again, in the provider's own words, or "".
    """

    what: str
    remaining: int
    limit: int | None
    reset: str


def headroom_of(provider: Provider, headers: Mapping[str, str]) -> list[Headroom]:
    """The limits that the headers name. Each provider reads its own header names in the code that reads its errors."""
    named = provider.parse_error(HTTPResponse(429, dict(headers), b"{}")).headers
    found = []
    for name, value in sorted(named.items()):
        said = _REMAINING.fullmatch(name)
        if said and (remaining := _count(value)) is not None:
            limit = _count(named.get(f"x-ratelimit-limit-{said[1]}", ""))
            found.append(Headroom(said[1], remaining, limit, named.get(f"x-ratelimit-reset-{said[1]}", "")[:32]))
    return found


def _count(text: str) -> int | None:
    number = _COUNT.fullmatch(text.strip())
    return int(number[1]) if number else None
