"""Translates: a configured provider into its type, and into the vendor whose list prices apply to it."""

from __future__ import annotations

from proxy.config import Config
from proxy.config.warnings import PriceOf
from proxy.metering.genai_prices import lookup_price
from proxy.metering.pricing import ModelPrice
from proxy.providers import PROVIDERS


def kind_of(config: Config, name: str) -> str | None:
    """The `type` of a provider."""
    kind = type(config.providers[name])
    return next((known for known, cls in PROVIDERS.items() if cls is kind), None)


def vendor_of(config: Config, name: str) -> str | None:
    """The vendor's name in the bundled price list; None if the provider has a custom base URL."""
    if name not in config.providers:  # a price row for a provider that is not configured yet
        return name
    return kind_of(config, name) if config.providers[name].base_url is None else None


def listed_price(config: Config) -> PriceOf:
    """A function that looks up `provider/model` in the bundled price list. The first look-up takes half a second."""

    def find(deployment: str) -> ModelPrice | None:
        name, _, model = deployment.partition("/")
        vendor = vendor_of(config, name)
        return lookup_price(f"{vendor}/{model}") if vendor else None

    return find


def states(config: Config) -> dict[str, dict[str, str | None]]:
    """Provider -> `{"type", "state": "on" | "off", "why"}`, in the order of the file."""
    return {
        name: {
            "type": kind_of(config, name),
            "state": "off" if name in config.disabled else "on",
            "why": config.disabled.get(name),
        }
        for name in config.providers
    }
