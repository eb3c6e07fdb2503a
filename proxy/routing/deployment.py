"""Values: what a name leads to: deployments, and routes over them."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from proxy.metering.media import searches_unasked
from proxy.metering.price_book import Answered, PriceBook
from proxy.metering.prices import Rates, added
from proxy.metering.pricing import ModelPrice
from proxy.metering.service_terms import region_of
from proxy.providers.base.contract import Provider
from proxy.schema.records import Cost, Tokens


class Deployment(Struct, frozen=True):
    """A provider, the upstream's own model id, its price (None: unknown) and the price's version, for rows.

    `rates` is the price in integers. `name` is `provider/model`. `region` is that of the provider's address; it
    `searches` even unasked. `book` prices answers that name another model.
    """

    provider_name: str
    provider: Provider
    model: str
    price: ModelPrice | None
    price_version: str = ""
    price_of: Callable[[str], tuple[ModelPrice | None, str]] = lambda name: (None, "")
    book: PriceBook | None = None
    rates: Rates | None = None
    name: str = ""
    region: str | None = None
    searches: bool = False

    def __post_init__(self) -> None:
        force_setattr(self, "rates", None if self.price is None else Rates.of(self.price))
        force_setattr(self, "name", f"{self.provider_name}/{self.model}")
        force_setattr(self, "region", region_of(self.provider.base_url))
        force_setattr(self, "searches", searches_unasked(self.provider, self.model))

    def caching(self, mode: str) -> Deployment:
        """The same, whose provider has this `cache`."""
        provider = self.provider.caching(mode)
        return self if provider is self.provider else replace(self, provider=provider)

    @property
    def is_free(self) -> bool:
        return self.rates is not None and self.rates.is_free

    def answered(self, named: str | None) -> Answered | None:
        """The price of an answer that names this model; None: it is this deployment's own."""
        if named is None or named == self.model or self.book is None or self.is_free:
            return None
        found = self.book.answered(self.provider_name, self.model, named, self.price)
        return None if found.is_same else found

    def cost(self, tokens: Tokens, by: Answered | None = None) -> Cost | None:
        """The cost of an answer, including other models of the provider that took part. None: a price is unknown.
        `by`: the price of another model that answered.
        """
        rates = self.rates if by is None else by.rates
        own = None if rates is None else rates.cost(tokens)
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
    """The candidates for a name, in order. The other lists replace the rest if a request is too long or filtered.

    `ensemble`: the name of the ensemble that answers; the candidates are the models that it asks.
    """

    requested: str
    candidates: tuple[Deployment, ...]
    context_fallback: tuple[Deployment, ...] = ()
    content_fallback: tuple[Deployment, ...] = ()
    ensemble: str = ""
