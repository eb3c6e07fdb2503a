"""Values: the sections `keys` and `rate_limits` of routing_rules.yaml."""

from __future__ import annotations

from datetime import UTC, date, datetime

from msgspec import Struct

from proxy.pipeline.limits import UNLIMITED, RateLimit
from proxy.schema.constraints import Count, Day, NotBlank
from proxy.schema.records import NANO_PER_USD


class RateLimitsConfig(Struct, frozen=True, forbid_unknown_fields=True, rename={"everyone": "global"}):
    """Section `rate_limits`: the limits for every key, for single keys by name, for callers without a key, and for
    all callers together.
    """

    default: RateLimit = UNLIMITED
    per_key: dict[NotBlank, RateLimit] = {}
    keyless: RateLimit = UNLIMITED
    everyone: RateLimit = UNLIMITED


class KeyConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One name under `keys:`. `models` None: every model; entries may be globs. `expires`: first day of refusal."""

    models: list[NotBlank] | None = None
    max_output_tokens: Count | None = None
    expires: Day | None = None
    store_text: bool = False


def day_ns(day: str) -> int:
    """The start of a day in UTC, in Unix nanoseconds."""
    start = datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC)
    return int(start.timestamp()) * NANO_PER_USD
