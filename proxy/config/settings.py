"""Values: the contents of the two files, as written and as a checked configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Struct

from proxy.config.problems import Mark, Path
from proxy.config.server import ServerConfig
from proxy.ensembles.base import Ensemble
from proxy.ensembles.registry import STRATEGIES
from proxy.metering.budgets import BudgetConfig
from proxy.metering.pricing import ModelPrice, Pricing
from proxy.metering.savings import UsageConfig
from proxy.pipeline.key_settings import KeyConfig, RateLimitsConfig
from proxy.providers.base.contract import Provider
from proxy.routing.settings import ModelEntry, RouterConfig, Rule
from proxy.schema.constraints import Day, NotBlank, one_of
from proxy.schema.records import Secret
from proxy.sites.template import Site
from proxy.storage.settings import StorageConfig


class Config(Struct, frozen=True, kw_only=True):
    """The checked configuration, from the two files and the environment.

    `providers` holds all providers; those in `disabled` (name -> reason) must not be called. `provider_keys` has the
    API keys of each enabled provider, by variable. `headers` has the request headers from the environment,
    `secret_headers` those that `headers_env` names. `proxies` has the HTTP proxy of each provider that uses one.
    `vault_key` encrypts reasoning states; None means a key stored beside the database. `alert_webhook` is a URL.
    `notices` are lines to print at the start. `version` is a short hash of both files. `marks` has the position of each
    value in routing_rules.yaml, `price_marks` that of each successor in pricing.yaml. Rules may choose ensembles if
    `ensembles_enabled`; requests may name any of the `strategies`. `sites` has the sites of the file, without the
    shipped catalog.
    """

    server: ServerConfig = ServerConfig()
    storage: StorageConfig = StorageConfig()
    proxy: str | None = None
    providers: dict[str, Provider] = {}
    models: dict[str, ModelEntry] = {}
    aliases: dict[str, str] = {}
    router: RouterConfig = RouterConfig()
    rules: list[Rule] = []
    tasks: dict[str, list[str]] = {}
    ensembles: dict[str, Ensemble] = {}
    ensembles_enabled: bool = False
    strategies: Mapping[str, type[Ensemble]] = STRATEGIES
    budget: BudgetConfig | None = None
    usage: UsageConfig = UsageConfig()
    rate_limits: RateLimitsConfig | None = None
    keys: dict[str, KeyConfig] = {}
    sites: dict[str, Site] = {}
    pricing: Pricing = Pricing()
    disabled: dict[str, str] = {}
    provider_keys: dict[str, dict[str, Secret]] = {}
    headers: dict[str, dict[str, str]] = {}
    secret_headers: dict[str, dict[str, Secret]] = {}
    proxies: dict[str, Secret] = {}
    vault_key: Secret | None = None
    alert_webhook: Secret | None = None
    notices: list[str] = []
    version: str = "none"
    marks: dict[Path, Mark] = {}
    price_marks: dict[Path, Mark] = {}

    @property
    def secrets(self) -> dict[str, Secret]:
        """The first API key of each enabled provider that has one."""
        return {name: next(iter(keys.values())) for name, keys in self.provider_keys.items() if keys}


class EnsemblesFile(Struct, frozen=True):
    """Section `ensembles`, without the ensembles in it."""

    enabled: bool = False


class RoutingFile(Struct, forbid_unknown_fields=True):
    """routing_rules.yaml as written. The types of its `providers` and `ensembles` depend on their content."""

    version: Annotated[int, one_of(1)]
    providers: dict[str, Any]
    proxy: NotBlank | None = None
    server: ServerConfig = ServerConfig()
    storage: StorageConfig = StorageConfig()
    models: dict[str, str | ModelEntry] = {}
    aliases: dict[str, str] = {}
    router: RouterConfig = RouterConfig()
    rules: list[Rule] = []
    tasks: dict[str, NotBlank | list[NotBlank]] = {}
    ensembles: dict[str, Any] = {}
    budget: BudgetConfig | None = None
    usage: UsageConfig = UsageConfig()
    rate_limits: RateLimitsConfig | None = None
    keys: dict[str, KeyConfig] = {}
    sites: dict[str, Site] = {}


class PricingFile(Struct, forbid_unknown_fields=True):
    """pricing.yaml as written."""

    version: Annotated[int, one_of(1)]
    currency: Annotated[str, one_of("USD")] = "USD"
    per: Annotated[str, one_of("1M tokens")] = "1M tokens"
    updated: Day | None = None
    lookup: Annotated[str, one_of("genai-prices")] | None = "genai-prices"
    models: dict[str, ModelPrice] = {}


LATER: dict[type, frozenset[str]] = {}
