"""Performs I/O: looks up models missing from pricing.yaml in the price list of the package `genai-prices`.

The first look-up imports the package. That takes 0.6 s and 31 MB, and stalls other threads for up to 0.2 s (measured in
November 2026). So call it in a worker thread, and only for models without a row. It never uses the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from proxy.metering.pricing import ModelPrice, Tier

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice as ListedPrice

_KEYS = {  # of the list -> of a row
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cached_input",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "input_audio_mtok": "audio_input",
    "cache_audio_read_mtok": "cached_audio_input",
    "output_audio_mtok": "audio_output",
    "input_image_mtok": "image_input",
    "output_image_mtok": "image_output",
}


def lookup_price(name: str, now: datetime | None = None) -> ModelPrice | None:
    """The listed price of `vendor/model` at `now` (default: the current time); `vendor` is a provider's `catalogue`."""
    vendor, _, model = name.partition("/")
    if not vendor or not model:
        return None
    from genai_prices.data_snapshot import get_snapshot  # lazy: 0.6 s and 31 MB, see above

    provider = next((provider for provider in get_snapshot().providers if provider.id == vendor), None)
    # Not `find_provider_model`: it caches every name without bound, and callers choose the names.
    listed = provider.find_model(model) if provider else None
    if listed is None:
        return None
    return _row(listed.get_prices(now or datetime.now(UTC)), listed.context_window)


def lookup_version() -> str:
    """The price version in rows priced by a look-up."""
    return f"genai-prices-{version('genai-prices')}"


def _row(listed: ListedPrice, context: int | None) -> ModelPrice | None:
    """A row of the list as a ModelPrice; None if it has no prices, or prices that `Tokens` cannot express (video)."""
    prices = {key: price for key, price in vars(listed).items() if price is not None and key.endswith("_mtok")}
    if not {"input_mtok", "output_mtok"} <= prices.keys() <= _KEYS.keys():
        return None
    starts = sorted({tier.start for price in prices.values() for tier in getattr(price, "tiers", ())})
    requests = vars(listed).get("requests_kcount")
    vendor_searches = vars(listed).get("web_searches_kcount")
    return ModelPrice(
        **_usd(prices, 0),
        per_request=None if requests is None else float(requests) / 1000,
        per_search=None if vendor_searches is None else float(vendor_searches) / 1000,
        tiers=[Tier(start, **_usd(prices, start + 1)) for start in starts],
        context=context,
    )


def _usd(prices: Mapping[str, Any], input_tokens: int) -> dict[str, Any]:
    """The prices in a request of this size, by the keys of a row."""
    return {ours: _at(prices, key, input_tokens) for key, ours in _KEYS.items()}


def _at(prices: Mapping[str, Any], key: str, input_tokens: int) -> float | None:
    """USD per 1M tokens of one kind, in a request of this size."""
    price = prices.get(key)
    if price is None:
        return None
    usd = getattr(price, "base", price)
    for tier in getattr(price, "tiers", ()):
        if input_tokens > tier.start:
            usd = tier.price
    return float(usd)
