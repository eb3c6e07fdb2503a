"""Translates: one Config into the namespace: the enabled providers, their addresses, and the model names."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from proxy.config.settings import Config
from proxy.ensembles.base import Ensemble
from proxy.ensembles.registry import Ensembles
from proxy.metering.price_book import PriceBook
from proxy.metering.prices import Rates, find_price
from proxy.metering.savings import baseline_rates
from proxy.providers.base.contract import Provider
from proxy.providers.embedded import model_id
from proxy.routing.names import Names
from proxy.routing.panelists import Panelists
from proxy.schema.errors import ProxyError
from proxy.schema.queries import TokenRates
from proxy.schema.records import Endpoint


def enabled(config: Config) -> dict[str, Provider]:
    """The providers that are on."""
    return {name: provider for name, provider in config.providers.items() if name not in config.disabled}


def endpoint_of(config: Config, name: str) -> Endpoint:
    """The base URL of a remote provider, with its API key and extra headers."""
    provider = config.providers[name]
    base_url, mark, query = (provider.base_url or provider.default_base_url or "").partition("?")
    headers, secret_headers = config.headers.get(name, {}), config.secret_headers.get(name, {})
    return Endpoint(base_url.rstrip("/"), config.secrets.get(name), headers, secret_headers, mark + query)


def key_endpoints(config: Config, name: str) -> dict[str, Endpoint]:
    """Variable -> the provider's endpoint with its key. Two variables that hold the same key count once."""
    keys, first = config.provider_keys.get(name, {}), dict[str, str]()
    for variable, key in keys.items():
        first.setdefault(key.reveal(), variable)
    return {variable: replace(endpoint_of(config, name), key=keys[variable]) for variable in first.values()}


def build_names(config: Config, book: PriceBook, found: Mapping[str, tuple[str, ...]]) -> Names:
    """The namespace of one configuration. `found` holds the ids that servers currently list."""
    return Names(
        providers=enabled(config),
        disabled=config.disabled,
        models=config.models,
        aliases=config.aliases,
        router=config.router,
        rules=tuple(config.rules),
        tasks={task: tuple(names) for task, names in config.tasks.items()},
        listed={name: _listed(config, name) for name in config.providers},
        price_of=book.current.find,
        book=book,
        found=found,
        ensembles={name: _panelists(each) for name, each in config.ensembles.items()},
        routes_to_ensembles=config.ensembles_enabled,
    )


def ensembles_of(config: Config) -> Ensembles:
    """The ensembles that calls may ask."""
    return Ensembles(config.ensembles, config.strategies)


def _panelists(ensemble: Ensemble) -> Panelists:
    members = tuple(dict.fromkeys(member.use for member in ensemble.panelists()))
    return Panelists(members, tuple(dict.fromkeys(ensemble.followers())), ensemble.size)


def catalogues(config: Config) -> dict[str, str]:
    """Provider -> vendor in the price list, for providers at their vendor's own address, where list prices apply."""
    at_home = {name: provider for name, provider in enabled(config).items() if provider.base_url is None}
    return {name: provider.catalogue for name, provider in at_home.items() if provider.catalogue is not None}


def names_now(config: Config) -> list[str]:
    """The names that `/v1/models` lists before any server has been asked for its models."""
    return build_names(config, PriceBook(config.pricing, {}), {}).names()


def _listed(config: Config, provider_name: str) -> tuple[str, ...]:
    """The upstream ids configured for one provider: its embedded model, or its roles and rows in pricing.yaml."""
    spec = config.providers[provider_name].local_model
    if spec is not None:
        return (model_id(spec),)
    prefix = f"{provider_name}/"
    priced = [
        name.removeprefix(prefix)
        for name, price in config.pricing.models.items()
        if name.startswith(prefix) and not name.endswith("*") and price.retired is None
    ]
    return tuple(dict.fromkeys([*config.providers[provider_name].models.values(), *priced]))


def baseline_of(config: Config, names: Names, name: str | None = None) -> TokenRates | None:
    """The prices that savings are measured against: those of the first model behind `name`, or `usage.baseline`.

    A model that cannot be called now, because its key is missing, still has its price.
    """
    name = name or config.usage.baseline
    if name is None:
        return None
    try:
        return baseline_rates(names.resolve(name).candidates[0].rates)
    except ProxyError:
        price = find_price(config.pricing, name)
        return None if price is None else baseline_rates(Rates.of(price))
