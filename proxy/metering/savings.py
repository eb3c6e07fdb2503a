"""Values: the section `usage` of routing_rules.yaml, and the prices that savings are measured against."""

from __future__ import annotations

from msgspec import Struct

from proxy.metering.prices import Rates
from proxy.schema.constraints import NotBlank
from proxy.schema.queries import TokenRates


class UsageConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Section `usage`. `baseline`: the model whose price savings are measured against."""

    baseline: NotBlank | None = None


def baseline_rates(rates: Rates | None) -> TokenRates | None:
    """The prices of a baseline; None: a part has no known price. Sums of calls have no size, so tiers do not apply."""
    if rates is None:
        return None
    base = rates.base
    if base.input is None or base.output is None:
        return None
    read = base.input if base.cache_read is None else base.cache_read
    return TokenRates(base.input, read, base.input if base.cache_write is None else base.cache_write, base.output)
