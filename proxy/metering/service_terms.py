"""Translates: how an answer was served, according to the answer and the request -> the terms of its price.

Standard service has no terms. Every other word is a term, and a row of pricing.yaml prices it under `service_tiers`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from proxy.schema.usage import UNSAID, Service

_FIELDS = frozenset({"service_tier", "serviceTier", "speed", "inference_geo"})
_STANDARD = frozenset({"", "auto", "default", "standard", "standard_only", "on_demand", "global", "not_available"})
_SAME = {"fast": "priority", "performance": "priority"}  # OpenAI answers `fast` with `priority`; Groq's word
_MAX_TERM = 32
# Addresses that keep the processing in one region (vendors' pages, November 2026): OpenAI and xAI, Together.
_REGIONAL = re.compile(r"//(?:([a-z]{2})(?:-[a-z0-9-]+)?\.api\.(?:openai\.com|x\.ai)|([a-z]{2})-api\.together\.)")


def sent(fields: Mapping[str, Any], defaults: Mapping[str, Any], dropped: Sequence[str] = ()) -> Service:
    """The service that a request asks for, by its own fields or the provider's `parameters`. Dropped fields were not
    sent.
    """
    if _FIELDS.isdisjoint(fields) and (not defaults or _FIELDS.isdisjoint(defaults)):
        return UNSAID
    words = {
        name: None if name in dropped else _word(fields.get(name)) or _word(defaults.get(name)) for name in _FIELDS
    }
    return Service(words["service_tier"] or words["serviceTier"], words["speed"], words["inference_geo"])


def region_of(base_url: str | None) -> str | None:
    """The region that a vendor's regional address stands for."""
    found = _REGIONAL.search(base_url or "")
    return None if found is None else next(region for region in found.groups() if region)


def terms_of(said: Service, asked: Service, region: str | None = None) -> tuple[str, ...]:
    """The terms of one answer. The answer takes precedence over the request; a region may follow from the
    address.
    """
    tier = _word(said.tier) if said.tier is not None else asked.tier
    speed = _word(said.speed) if said.speed is not None else asked.speed
    place = _word(said.region) if said.region is not None else asked.region or region
    found = (_SAME.get(tier or "", tier), speed, place)
    return tuple(dict.fromkeys(term for term in found if term is not None and term not in _STANDARD))


def _word(value: object) -> str | None:
    return value.lower()[:_MAX_TERM] if isinstance(value, str) else None
