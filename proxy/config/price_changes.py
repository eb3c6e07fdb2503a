"""Translates: a row of pricing.yaml and the same model in a price list -> the differences, and the updated row.

A price that the list lacks is not a difference: the list never removes anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

from msgspec import Struct, structs

from proxy.metering.pricing import ModelPrice, PastPrice, Tier

PRICES = ("input", "output", "cached_input", "cache_write", "cache_write_1h", "per_request")
TIER_PRICES = ("input", "output", "cached_input", "cache_write", "cache_write_1h")
_KEPT = ("input", "output", "cached_input")  # the prices that `history` records


class Difference(Struct, frozen=True):
    """One price that differs. `key` is dotted (`tiers.0.input`). `file` and `listed` are in USD per 1M tokens; `file`
    is null if the file has no such price.

    If `writable` is false, the two have different tiers, which only a person can reconcile. The values then name the
    tiers.
    """

    model: str
    key: str
    file: float | str | None
    listed: float | str
    writable: bool = True


def differences(model: str, row: ModelPrice, listed: ModelPrice) -> list[Difference]:
    """All prices that differ, in the order of the keys."""
    found = [Difference(model, *change) for change in _changes(row, listed, PRICES)]
    if not listed.tiers:
        return found
    sizes, listed_sizes = _sizes(row), _sizes(listed)
    if not sizes:
        return [*found, Difference(model, "tiers", None, f"above {listed_sizes}")]
    if sizes != listed_sizes:
        return [*found, Difference(model, "tiers", f"above {sizes}", f"above {listed_sizes}", writable=False)]
    for place, (tier, other) in enumerate(zip(row.tiers, listed.tiers, strict=True)):
        found += [
            Difference(model, f"tiers.{place}.{key}", ours, theirs)
            for key, ours, theirs in _changes(tier, other, TIER_PRICES)
        ]
    return found


def updated(row: ModelPrice, listed: ModelPrice, today: date) -> ModelPrice:
    """The row with the listed prices. Yesterday's prices go into `history`, at most once a day."""
    changes = {key: theirs for key, _, theirs in _changes(row, listed, PRICES)}
    tiers = row.tiers
    if not tiers:
        tiers = listed.tiers
    elif _sizes(row) == _sizes(listed):
        tiers = [
            structs.replace(tier, **{key: theirs for key, _, theirs in _changes(tier, other, TIER_PRICES)})
            for tier, other in zip(tiers, listed.tiers, strict=True)
        ]
    until = (today - timedelta(days=1)).isoformat()
    over = any(getattr(row, key) is not None for key in _KEPT if key in changes)
    if over and not any(past.until >= until for past in row.history):
        past = PastPrice(until, **{key: getattr(row, key) for key in _KEPT})
        return structs.replace(row, **changes, tiers=tiers, history=[past, *row.history])
    return structs.replace(row, **changes, tiers=tiers)


def _changes(
    ours: ModelPrice | Tier, theirs: ModelPrice | Tier, keys: tuple[str, ...]
) -> Iterator[tuple[str, float | None, float]]:
    for key in keys:
        value, listed = getattr(ours, key), getattr(theirs, key)
        if listed is not None and listed != value:
            yield key, value, listed


def _sizes(row: ModelPrice) -> str:
    return ", ".join(str(tier.above_input_tokens) for tier in row.tiers)
