"""Translates: stored attempts and the prices of their days into the costs they should have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

import msgspec

from proxy.metering.pricing import ModelPrice
from proxy.metering.reprice import reprice
from proxy.schema.queries import Repriced, StoredAttempt
from proxy.schema.records import NANO_PER_USD

Find = Callable[[str], tuple[ModelPrice | None, str]]


def price_on(price: ModelPrice | None, day: str) -> ModelPrice | None:
    """The price as it was on a day, YYYY-MM-DD: from the earliest entry of `history` that ends on it or later."""
    if price is None:
        return None
    past = min((each for each in price.history if each.until >= day), key=lambda each: each.until, default=None)
    if past is None:
        return price
    return msgspec.structs.replace(
        price,
        input=past.input,
        output=past.output,
        cached_input=past.cached_input,
        cache_write=None,  # the price of input: history has none
        cache_write_1h=None,
        tiers=[],
    )


def repriced(attempts: Iterable[StoredAttempt], find: Find, *, by_day: bool) -> Iterator[Repriced]:
    """The attempts whose cost changes, with the new cost.

    `by_day`: at the price of the day on which they began; otherwise at the current one.
    """
    for attempt in attempts:
        moment = datetime.fromtimestamp(attempt.opened_ns // NANO_PER_USD, UTC)
        day = moment.date().isoformat() if by_day else "9999-12-31"

        def price_of(model: str, provider: str = attempt.provider, day: str = day) -> ModelPrice | None:
            return price_on(find(f"{provider}/{model}")[0], day)

        cost = reprice(attempt.parts, price_of(attempt.model), price_of)
        cost_nano = None if cost is None else cost.total
        if cost_nano != attempt.cost_nano:
            yield Repriced(attempt, cost_nano, find(f"{attempt.provider}/{attempt.model}")[1])
