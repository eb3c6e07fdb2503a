"""Performs I/O: the price of any model: its row in pricing.yaml, else what the package genai-prices lists."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from proxy.metering.genai_prices import lookup_price, lookup_version
from proxy.metering.prices import find_price
from proxy.metering.pricing import ModelPrice, Pricing

_MAX_KEPT = 4096  # callers choose the names


class PriceBook:
    """`vendors` maps a provider's name to the vendor whose list prices hold there; a `base_url` of one's own has
    none.
    """

    def __init__(
        self,
        pricing: Pricing,
        vendors: Mapping[str, str],
        lookup: Callable[[str], ModelPrice | None] = lookup_price,
    ) -> None:
        self._pricing = pricing
        self._vendors = vendors if pricing.lookup else {}
        self._lookup = lookup
        self._loaded = False
        self._found: dict[str, ModelPrice | None] = {}

    def find(self, name: str) -> tuple[ModelPrice | None, str]:
        """The price of `provider/model` and the version that rows say they were priced by."""
        listed = find_price(self._pricing, name)
        if listed is not None or not self._loaded:
            return listed, self._pricing.version
        if name not in self._found:
            if len(self._found) >= _MAX_KEPT:
                self._found.clear()
            provider, _, model = name.partition("/")
            vendor = self._vendors.get(provider)
            self._found[name] = self._lookup(f"{vendor}/{model}") if vendor else None
        return self._found[name], lookup_version()

    def may_find(self, name: str) -> bool:
        """True when `load` could give this model a price."""
        return not self._loaded and name.partition("/")[0] in self._vendors

    async def load(self) -> None:
        """Reads the list, once, off the event loop: it takes half a second and 31 MB, so not before it is needed."""
        await asyncio.to_thread(self._lookup, "openai/gpt-4o")
        self._loaded = True
