"""Values: what a name leads to: deployments, and routes over them."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

from msgspec import Struct
from msgspec.structs import force_setattr

from proxy.metering.prices import Rates, added
from proxy.metering.pricing import ModelPrice
from proxy.providers.base.contract import Provider
from proxy.schema.records import Cost, Tokens


class Deployment(Struct, frozen=True):
    """A provider, the upstream's own model id, its price (None: unknown) and the price's version, for rows.

    `rates` is the price in integers. `name` is `provider/model`.
    """

    provider_name: str
    provider: Provider
    model: str
    price: ModelPrice | None
    price_version: str = ""
    price_of: Callable[[str], tuple[ModelPrice | None, str]] = lambda name: (None, "")
    rates: Rates | None = None
    name: str = ""

    def __post_init__(self) -> None:
        force_setattr(self, "rates", None if self.price is None else Rates.of(self.price))
        force_setattr(self, "name", f"{self.provider_name}/{self.model}")

    def cost(self, tokens: Tokens) -> Cost | None:
        """The cost of an answer, including other models of the provider that took part. None: a price is unknown."""
        own = None if self.rates is None else self.rates.cost(tokens)
        if own is None or not tokens.others:
            return own
        costs = [own]
        for model, used in tokens.others:
            price, _ = self.price_of(f"{self.provider_name}/{model}")
            if price is None or (cost := Rates.of(price).cost(used)) is None:
                return None
            costs.append(cost)
        return reduce(added, costs)


class Route(Struct, frozen=True):
    """The candidates for a name, in order. The other lists replace the rest if a request is too long or filtered."""

    requested: str
    candidates: tuple[Deployment, ...]
    context_fallback: tuple[Deployment, ...] = ()
    content_fallback: tuple[Deployment, ...] = ()
