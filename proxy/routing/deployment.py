"""Values: the targets of a name: deployments, and routes over them."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from math import inf
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from proxy.metering.media import searches_unasked
from proxy.metering.price_book import Answered, PriceBook
from proxy.metering.prices import Rates, added
from proxy.metering.pricing import ModelPrice
from proxy.metering.service_terms import region_of
from proxy.providers.base.contract import Provider
from proxy.schema.records import Cost, Tokens


class FlatPrice(NamedTuple):
    """The price of a request of up to `input_tokens`, without cache reads and searches.

    `input`, `output`: pico-USD a token; `most_*`: the maximum nano-USD for one; `fee`: nano-USD a request.
    """

    input_tokens: float
    input: int
    output: int
    most_input: int
    most_output: int
    fee: int

    @classmethod
    def of(cls, rates: Rates | None) -> FlatPrice | None:
        """The flat price; None: a price is unknown, or the model searches unasked."""
        if rates is None or rates.max_searches is not None:
            return None
        base, most = rates.base, rates.dearest[0]
        if base.input is None or base.output is None or most.input is None or most.output is None:
            return None
        lowest = min((above for above, _ in rates.tiers), default=inf)
        tokens = min([lowest, *(each.above for each in rates.dearest[1:])])
        return cls(tokens, base.input, base.output, most.input, most.output, rates.per_request_nano)


class Deployment(Struct, frozen=True):
    """A provider, the upstream's own model id, its price (None: unknown) and the price's version, for rows.

    `rates` is the price in integers. `name` is `provider/model`. `region` is that of the provider's address; it
    `searches` even unasked. `book` prices answers that name another model. `context`: the tokens that a prompt and its
    answer may take together; the embedded model's are in its own settings. None: unknown, as for `max_output`.
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
    flat: FlatPrice | None = None
    context: int | None = None
    max_output: int | None = None

    def __post_init__(self) -> None:
        force_setattr(self, "rates", None if self.price is None else Rates.of(self.price))
        force_setattr(self, "name", f"{self.provider_name}/{self.model}")
        force_setattr(self, "region", region_of(self.provider.base_url))
        force_setattr(self, "searches", searches_unasked(self.provider, self.model))
        force_setattr(self, "flat", None if self.searches else FlatPrice.of(self.rates))
        local = self.provider.local_model
        row = self.price
        force_setattr(self, "context", local.context if local is not None else row.context if row is not None else None)
        force_setattr(self, "max_output", None if row is None else row.max_output)

    def caching(self, mode: str) -> Deployment:
        """The same deployment, whose provider has this `cache`."""
        provider = self.provider.caching(mode)
        return self if provider is self.provider else replace(self, provider=provider)

    @property
    def is_free(self) -> bool:
        return self.rates is not None and self.rates.is_free

    def answered(self, named: str | None) -> Answered | None:
        """The price of an answer that names this model; None: this deployment's own price applies."""
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
