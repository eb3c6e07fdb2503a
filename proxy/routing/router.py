"""Orchestrates: a requested name -> Route. The smart router will look at the request here."""

from __future__ import annotations

from collections.abc import Callable

from proxy.metering.price_book import PriceBook
from proxy.routing.allowed import Allowed, Views
from proxy.routing.deployment import Route


class Router:
    """`random` in [0, 1) picks among `weighted` names."""

    def __init__(self, views: Views, prices: PriceBook, random: Callable[[], float]) -> None:
        self._views = views
        self._prices = prices
        self._random = random

    async def route(self, name: str, allowed: Allowed | None = None) -> Route:
        """The route of a name among the `allowed` models. Raises ProxyError 403, 404 or 503.

        The first call of a model missing from pricing.yaml waits for the price list, at most `WAIT_S`.
        """
        draw = self._random()
        route = self._views.resolve(name, draw, allowed)
        if any(candidate.price is None and self._prices.may_find(candidate.name) for candidate in route.candidates):
            await self._prices.load()
            route = self._views.resolve(name, draw, allowed)
        return route
