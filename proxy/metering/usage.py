"""Translates: what the attempts of an answer used and cost, into the usage that stands in the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, TypeGuard, cast

from msgspec import Struct

from proxy.metering.prices import added
from proxy.schema.chat import Usage
from proxy.schema.records import NANO_PER_USD, Cost, Tokens


class Used(Struct, frozen=True):
    """One attempt: the provider's own words, the counts that hold, where they are from; `cost` None: not known."""

    said: Usage | None
    tokens: Tokens
    source: str
    cost: Cost | None


def usage_of(answered: Sequence[Used], cost_usd: float | None) -> Usage:
    """OpenAI's usage, the sum over the attempts that an answer is made of; `cost_usd`: of the whole call, null where a
    part of it is not known.
    """
    usage = reduce(_sum, map(_counted, answered))
    usage["cost"] = cost_usd
    costs = [used.cost for used in answered if used.cost is not None]
    if len(costs) == len(answered):
        usage["cost_details"] = _details(reduce(added, costs))
    return cast(Usage, usage)


def _counted(used: Used) -> dict[str, Any]:
    """What the provider said, with three integers whatever it said.

    The counts of a complete answer are the provider's: what it bills for may be less (Cohere), and is in the rows.
    """
    counted: dict[str, Any] = {
        "prompt_tokens": used.tokens.prompt,
        "completion_tokens": used.tokens.output,
        "total_tokens": used.tokens.total,
    }
    said = dict(used.said or {})
    usage = counted | said if used.source == "provider" else said | counted
    if used.source == "estimated":
        usage["estimated"] = True
    return usage


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
