"""Translates: the row of an attempt into its billed usage, and that into a cost by any price.

Pure: a row holds everything that its cost follows from. `tokens_of` is the inverse of what `storage/rows.py` writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import msgspec
from msgspec.structs import replace

from proxy.metering.prices import added, cost
from proxy.metering.pricing import ModelPrice
from proxy.schema.records import Cost, Tokens
from proxy.storage.rows import OTHER_PARTS, TERMS_JOINT

PARTS = (
    *("input", "cache_read", "cache_write", "output", "reasoning", "cache_write_1h", "searches"),
    *("input_audio", "input_image", "cache_read_audio", "output_audio", "output_image"),
)
COLUMNS = (*PARTS, "service_tier", "others")  # of the table `attempts`
PriceOf = Callable[[str], ModelPrice | None]


def tokens_of(row: Mapping[str, Any]) -> Tokens:
    """The billed usage of an attempt, by its columns."""
    others = [
        (model, Tokens(**dict(zip(OTHER_PARTS, counts, strict=True))))
        for model, counts in (msgspec.json.decode(row["others"]) if row["others"] else ())
    ]
    terms = tuple(row["service_tier"].split(TERMS_JOINT)) if row["service_tier"] else ()
    return replace(Tokens(**{part: row[part] for part in PARTS}), terms=terms, others=tuple(others))


def reprice(row: Mapping[str, Any], price: ModelPrice | None, price_of: PriceOf = lambda model: None) -> Cost | None:
    """The cost of an attempt by `price`, the price of the model that answered; None: unknown. `price_of` gives the
    prices of further models of the provider, by their ids.
    """
    tokens = tokens_of(row)
    costs = [cost(price, tokens), *(cost(price_of(model), used) for model, used in tokens.others)]
    known = [each for each in costs if each is not None]
    return reduce(added, known) if len(known) == len(costs) else None
