"""Values: the section `storage` of routing_rules.yaml."""

from __future__ import annotations

from msgspec import Struct


class StorageConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Section `storage`. `durability: process` survives kill -9, `power` a power loss."""

    url: str = "sqlite:///proxy.db"
    durability: str = "process"
    when_down: str = "refuse"
    keep_days: int = 90
    reasoning_state: str = "store"
    idempotency_ttl_s: float = 86400
