"""Values: the sections `router` and `models` of routing_rules.yaml."""

from __future__ import annotations

from msgspec import Struct

from proxy.schema.constraints import Positive


class RouterConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Section `router`: the model behind `auto`, its fallbacks, and the deadline of a call with all its attempts."""

    default_model: str | None = None
    fallback: list[str] = []
    deadline_s: Positive = 900


class ModelEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """One name under `models:`. `weighted` maps names to shares; `use` and `weighted` exclude each other."""

    use: str | None = None
    fallback: list[str] = []
    context_fallback: list[str] = []
    content_fallback: list[str] = []
    weighted: dict[str, Positive] | None = None
