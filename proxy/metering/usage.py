"""Translates: the usage and cost of an answer's attempts into the `usage` of the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard, cast

from msgspec import Struct

from proxy.metering.prices import added
from proxy.schema.records import NANO_PER_USD, Cost
from proxy.schema.usage import Usage, UsageReport


class Used(Struct, frozen=True):
    """The usage of one attempt, and its source."""

    report: UsageReport
    source: str


def usage_of(answered: Sequence[Used], costs: Sequence[Cost | None], models: Sequence[str] = ()) -> Usage:
    """OpenAI's usage, summed over the attempts that make up an answer. `costs`: of all attempts of the call; the
    answer's cost and its parts cover them all, and are null if one price is unknown. `models`: those of the `costs`, if
    the answer shows what each model cost.

    The counts are those that the vendor shows. It may bill for less (Cohere); the rows have the billed counts.
    """
    usage: dict[str, Any] = dict(answered[0].report.shown)
    for used in answered[1:]:
        usage = _sum(usage, used.report.shown)
    if "estimated" in [used.source for used in answered]:
        usage["estimated"] = True
    total = costs[0]
    for cost in costs[1:]:
        total = None if total is None or cost is None else added(total, cost)
    if total is None:
        usage["cost"] = None
        return cast(Usage, usage)
    usage["cost"] = total.total / NANO_PER_USD
    usage["cost_details"] = _details(total)
    if models:
        usage["cost_details"]["by_model"] = _by_model(models, costs)
    return cast(Usage, usage)


def _sum(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Adds numbers, nested ones too; of other values the first one that is not null stays."""
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


def _by_model(models: Sequence[str], costs: Sequence[Cost | None]) -> dict[str, float]:
    """USD by model; they add up to the cost."""
    nano: dict[str, int] = {}
    for model, cost in zip(models, costs, strict=True):
        nano[model] = nano.get(model, 0) + (0 if cost is None else cost.total)
    return {model: each / NANO_PER_USD for model, each in nano.items()}


def _details(cost: Cost) -> dict[str, float]:
    """USD by part; fees only if there are any. The parts add up to `cost`."""
    details = {
        "input": cost.input / NANO_PER_USD,
        "cache_read": cost.cache_read / NANO_PER_USD,
        "cache_write": cost.cache_write / NANO_PER_USD,
        "output": cost.output / NANO_PER_USD,
    }
    if cost.requests:
        details["requests"] = cost.requests / NANO_PER_USD
    if cost.searches:
        details["searches"] = cost.searches / NANO_PER_USD
    return details
