"""Translates: what the attempts of an answer used and cost, into the usage that stands in the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, TypeGuard, cast

from msgspec import Struct

from proxy.metering.prices import added
from proxy.schema.records import NANO_PER_USD, Cost
from proxy.schema.usage import Usage, UsageReport


class Used(Struct, frozen=True):
    """What one attempt used, and where that is from."""

    report: UsageReport
    source: str


def usage_of(answered: Sequence[Used], costs: Sequence[Cost | None]) -> Usage:
    """OpenAI's usage, the sum over the attempts that an answer is made of. `costs`: of all attempts of the call; the
    answer's cost and its parts cover them all, and are null where one price is not known.

    The counts are the ones that the vendor shows. What it bills for may be less (Cohere), and is in the rows.
    """
    usage: dict[str, Any] = dict(answered[0].report.shown)
    for used in answered[1:]:
        usage = _sum(usage, used.report.shown)
    if any(used.source == "estimated" for used in answered):
        usage["estimated"] = True
    known = [cost for cost in costs if cost is not None]
    if len(known) < len(costs):
        usage["cost"] = None
        return cast(Usage, usage)
    total = reduce(added, known)
    usage["cost"] = total.total / NANO_PER_USD
    usage["cost_details"] = _details(total)
    return cast(Usage, usage)


def _sum(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers are added, also nested; of anything else the first that is not null stays."""
    total = {**one}
    for name, value in other.items():
        before = total.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            total[name] = _sum(before, value)
        elif _is_number(before) and _is_number(value):
            total[name] = before + value
        elif before is None:
            total[name] = value
    return total


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _details(cost: Cost) -> dict[str, float]:
    """USD by part; fees only where there are some. The parts add up to `cost`."""
    parts = {
        "input": cost.input,
        "cache_read": cost.cache_read,
        "cache_write": cost.cache_write,
        "output": cost.output,
    }
    fees = {"requests": cost.requests, "searches": cost.searches}
    parts |= {name: nano for name, nano in fees.items() if nano}
    return {name: nano / NANO_PER_USD for name, nano in parts.items()}
