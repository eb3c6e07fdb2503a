"""Values: the section `storage` of routing_rules.yaml."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from proxy.schema.constraints import Days, Lifetime, one_of, text

_ONLY_SQLITE = "be sqlite:///FILE; other databases are not supported by this version"


class StorageConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Section `storage`. `durability: process` survives kill -9, `power` a power loss.

    `keep_errors_days`: for calls without success; None: `keep_days`. `keep_text_days`: for prompts and answers.
    """

    url: Annotated[str, text(r"^sqlite:///[\s\S]", _ONLY_SQLITE)] = "sqlite:///proxy.db"
    durability: Annotated[str, one_of("process", "power")] = "process"
    when_down: Annotated[str, one_of("refuse", "unmetered")] = "refuse"
    keep_days: Days = 90
    keep_errors_days: Days | None = None
    keep_text_days: Days = 7
    reasoning_state: Annotated[str, one_of("store", "memory", "off")] = "store"
    idempotency_ttl_s: Lifetime = 86400
