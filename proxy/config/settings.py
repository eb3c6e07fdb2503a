"""Values: the two files as they run, and as they are written."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from proxy.config.problems import Mark, Path
from proxy.config.server import ServerConfig
from proxy.metering.budgets import BudgetConfig
from proxy.metering.pricing import ModelPrice, Pricing
from proxy.pipeline.admission import KeyConfig, RateLimitsConfig
from proxy.providers.base.contract import Provider
from proxy.routing.settings import ModelEntry, RouterConfig
from proxy.schema.records import Secret
from proxy.storage.settings import StorageConfig


class Config(Struct, frozen=True, kw_only=True):
    """Everything the two files and the environment say, checked.

    `providers` holds all of them; those in `disabled` (name -> one line why) must not be called. `secrets` has the key
    of each that needs one and is on, `headers` what the environment adds to its requests. `vault_key` seals reasoning
    states; None: a key that lies beside the database. `notices` are lines for the start. `version` is a short hash of
    both files.
    `marks` says where each value of routing_rules.yaml was written, `price_marks` where each successor in pricing.yaml.
    """

    server: ServerConfig = ServerConfig()
    storage: StorageConfig = StorageConfig()
    providers: dict[str, Provider] = {}
    models: dict[str, ModelEntry] = {}
    aliases: dict[str, str] = {}
    router: RouterConfig = RouterConfig()
    budget: BudgetConfig | None = None
    rate_limits: RateLimitsConfig | None = None
    keys: dict[str, KeyConfig] = {}
    pricing: Pricing = Pricing()
    disabled: dict[str, str] = {}
    secrets: dict[str, Secret] = {}
    headers: dict[str, dict[str, str]] = {}
    vault_key: Secret | None = None
    notices: list[str] = []
    version: str = "none"
    marks: dict[Path, Mark] = {}
    price_marks: dict[Path, Mark] = {}


class RoutingFile(Struct, forbid_unknown_fields=True):
    """routing_rules.yaml as it is written; the types of `providers` depend on what is in it."""

    version: int
    providers: dict[str, Any]
    server: ServerConfig = ServerConfig()
    storage: StorageConfig = StorageConfig()
    models: dict[str, str | ModelEntry] = {}
    aliases: dict[str, str] = {}
    router: RouterConfig = RouterConfig()
    budget: BudgetConfig | None = None
    rate_limits: RateLimitsConfig | None = None
    keys: dict[str, KeyConfig] = {}


class PricingFile(Struct, forbid_unknown_fields=True):
    """pricing.yaml as it is written."""

    version: int
    currency: str = "USD"
    per: str = "1M tokens"
    updated: str | None = None
    lookup: str | None = "genai-prices"
    models: dict[str, ModelPrice] = {}


LATER: dict[type, frozenset[str]] = {
    RoutingFile: frozenset({"rules", "tasks", "ensembles"}),
    RouterConfig: frozenset(
        {
            "enabled",
            "strategy",
            "min_confidence",
            "auto_retry",
            "max_retries",
            "retry_delay_s",
            "retry_budget",
            "breaker",
            "sticky",
            "hedge",
            "exploration",
        }
    ),
}
