"""Values: the section `budget` of routing_rules.yaml."""

from __future__ import annotations

from msgspec import Struct, field


class BudgetLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """USD per period; None: no limit. `when_spent`, `downgrade_to` and `hard_usd` say what follows (None: as the
    whole).
    """

    minute_usd: float | None = None
    hour_usd: float | None = None
    daily_usd: float | None = None
    weekly_usd: float | None = None
    monthly_usd: float | None = None
    total_usd: float | None = None
    when_spent: str | None = None
    downgrade_to: str | None = None
    hard_usd: float | None = None


class BudgetConfig(BudgetLimits, frozen=True, forbid_unknown_fields=True):
    """Section `budget`: limits for everything, and beside them for single keys, providers, models and tags."""

    timezone: str = "UTC"
    alert_at: list[float] = field(default_factory=lambda: [0.8, 0.95])
    alert_webhook_env: str | None = None
    unknown_price: str = "refuse"
    per_key: dict[str, BudgetLimits] = {}
    per_provider: dict[str, BudgetLimits] = {}
    per_model: dict[str, BudgetLimits] = {}
    per_tag: dict[str, BudgetLimits] = {}
