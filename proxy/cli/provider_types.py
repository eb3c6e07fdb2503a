"""Translates: a configured provider into its state, and into the list price of its models."""

from __future__ import annotations

from proxy.config import Config
from proxy.config.warnings import PriceOf
from proxy.metering.genai_prices import lookup_price
from proxy.metering.pricing import ModelPrice
from proxy.providers import PROVIDERS


def catalogue_of(config: Config, name: str) -> str | None:
    """The vendor's name in the bundled price list; None at another address than the vendor's own."""
    provider = config.providers.get(name)
    if provider is None:  # a row of pricing.yaml for a provider that is not configured yet
        return PROVIDERS[name].catalogue if name in PROVIDERS else None
    return provider.catalogue if provider.base_url is None else None


def listed_price(config: Config) -> PriceOf:
    """Looks up `provider/model` in the bundled list; the first look-up takes half a second."""

    def find(deployment: str) -> ModelPrice | None:
        name, _, model = deployment.partition("/")
        catalogue = catalogue_of(config, name)
        return lookup_price(f"{catalogue}/{model}") if catalogue else None

    return find


def states(config: Config) -> dict[str, dict[str, str | None]]:
    """Provider -> `{"type", "state": "on" | "off", "why"}`, in the order of the file.

    `why`: the reason for `off`; for a provider that is on, its keys if they rotate.
    """
    return {
        name: {
            "type": config.providers[name].type or None,
            "state": "off" if name in config.disabled else "on",
            "why": config.disabled.get(name) or _keys(config, name),
        }
        for name in config.providers
    }


def _keys(config: Config, name: str) -> str | None:
    """The variables of rotating keys."""
    if not config.providers[name].rotates:
        return None
    used, named = config.provider_keys[name], config.providers[name].key_variables
    return f"{len(used)} of {len(named)} keys: {', '.join(used)}"
