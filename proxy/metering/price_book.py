"""Performs I/O: the price of any model: its row in pricing.yaml, else its entry in the package genai-prices.

The cost of an answer may follow another model's price: `answered` decides that, once for each pair of names.

`Prices` is an immutable snapshot; `PriceBook` publishes a new one when the list has been read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from msgspec import Struct

from proxy.metering.answered import is_same_model
from proxy.metering.genai_prices import lookup_price, lookup_version
from proxy.metering.prices import Rates, find_price, find_row
from proxy.metering.pricing import ModelPrice, Pricing
from proxy.schema.daemon_thread import DaemonThread

WAIT_S = 5.0  # how long a call waits for the list; after that it is priced without the list
_MAX_KEPT = 4096  # names come from clients

Lookup = Callable[[str], ModelPrice | None]


class Answered(Struct, frozen=True):
    """How answers that name another id are priced. `rates` None: the price is not known. `is_same`: both ids name one
    model, whose price applies.
    """

    is_same: bool
    rates: Rates | None = None
    version: str = ""


_SAME = Answered(True)


class Prices:
    """The price of every model, from the file and, once read, the list. The same name always has the same price."""

    def __init__(self, pricing: Pricing, vendors: Mapping[str, str], lookup: Lookup | None) -> None:
        self._pricing = pricing
        self._vendors = vendors
        self._lookup = lookup
        self._version = pricing.version if lookup is None else lookup_version()
        self._found: dict[str, ModelPrice | None] = {}  # caches the list's answers by name

    def find(self, name: str) -> tuple[ModelPrice | None, str]:
        """The price of `provider/model`, and the price version for its rows."""
        listed = find_price(self._pricing, name)
        if listed is not None or self._lookup is None:
            return listed, self._pricing.version
        if name not in self._found:
            if len(self._found) >= _MAX_KEPT:
                self._found.clear()
            provider, _, model = name.partition("/")
            vendor = self._vendors.get(provider)
            self._found[name] = self._lookup(f"{vendor}/{model}") if vendor else None
        return self._found[name], self._version


def _ignore(event: str, **fields: object) -> None:
    return


class PriceBook:
    """The prices of one configuration: `current`.

    `vendors` maps a provider to the vendor whose list prices apply. Providers with another `base_url` have none.
    """

    def __init__(
        self,
        pricing: Pricing,
        vendors: Mapping[str, str],
        lookup: Lookup = lookup_price,
        warn: Callable[..., object] = _ignore,
    ) -> None:
        self._pricing = pricing
        self._vendors = vendors if pricing.lookup else {}
        self._lookup = lookup
        self._loading: asyncio.Task[None] | None = None
        self._loaded = False
        self._thread = DaemonThread("price-list")
        self._begun_s = 0.0
        self._is_late = False
        self._warn = warn
        self._answered: dict[tuple[str, str, str], Answered] = {}
        self.current = Prices(pricing, self._vendors, None)

    def answered(self, provider: str, asked: str, named: str, price: ModelPrice | None) -> Answered:
        """The price of an answer of `provider` that names the model `named`; `price`: that of the requested model.

        A row for the named model comes first, then whether both are one model, then the list. A different model is
        reported once.
        """
        pair = (provider, asked, named)
        if (known := self._answered.get(pair)) is not None:
            return known
        name = f"{provider}/{named.removeprefix('models/')}"
        own, version = find_row(self._pricing, name), self._pricing.version
        listed_here = () if price is None else price.answers_as
        is_same = is_same_model(asked, named) or "*" in listed_here or named in listed_here
        if own is None and (price is None or not is_same):
            own, version = self.current.find(name)
        is_own_price = is_same if own is None else own is price
        found = _SAME if is_own_price else Answered(False, None if own is None else Rates.of(own), version)
        if own is None and not is_same and self.may_find(name):
            return found  # the list has not been read yet
        if len(self._answered) >= _MAX_KEPT:
            self._answered.clear()
        self._answered[pair] = found
        if not is_same:
            self._warn(
                "answered_by_another_model", provider=provider, asked=asked, answered=named, priced=own is not None
            )
        return found

    def lacks(self, provider: str, asked: str, named: str, price: ModelPrice | None) -> bool:
        """True if the price of such an answer is not known before the list has been read; see `load`."""
        if self._loaded or not self.may_find(f"{provider}/{named}"):
            return False
        found = self.answered(provider, asked, named, price)
        return not found.is_same and found.rates is None

    def find(self, name: str) -> tuple[ModelPrice | None, str]:
        """`Prices.find` of the current snapshot."""
        return self.current.find(name)

    def may_find(self, name: str) -> bool:
        """True if `load` could find a price for this model."""
        return not self._loaded and name.partition("/")[0] in self._vendors

    async def load(self, wait_s: float = WAIT_S) -> None:
        """Reads the list once, off the event loop, and publishes new prices. Returns at most `wait_s` after the read
        began, so that a slow list does not delay calls further.

        Reading takes 0.6 s and 31 MB, so it happens when a model first needs it.
        """
        if self._loaded:
            return
        loop = asyncio.get_running_loop()
        if self._loading is None:
            self._begun_s = loop.time()
            self._loading = loop.create_task(self._read())
        rest_s = self._begun_s + wait_s - loop.time()
        if rest_s > 0:
            await asyncio.wait({self._loading}, timeout=rest_s)
            if not self._is_late and self._loading is not None and not self._loading.done():
                self._is_late = True
                self._warn("price_list_unread", after_s=wait_s)
        if self._loading is not None and self._loading.done():
            reading, self._loading = self._loading, None
            reading.result()

    async def _read(self) -> None:
        await self._thread.run(self._lookup, "openai/gpt-4o")
        self.current = Prices(self._pricing, self._vendors, self._lookup)
        self._loaded = True
