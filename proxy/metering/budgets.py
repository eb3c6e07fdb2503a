"""Values: the section `budget` of routing_rules.yaml."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct, field

from proxy.schema.constraints import NotNegative, Share, TimeZone, Variable, one_of


class BudgetLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """USD per period; None: no limit. `when_spent`, `downgrade_to` and `hard_usd` set the consequence (None: as in the
    overall budget).
    """

    minute_usd: NotNegative | None = None
    hour_usd: NotNegative | None = None
    daily_usd: NotNegative | None = None
    weekly_usd: NotNegative | None = None
    monthly_usd: NotNegative | None = None
    total_usd: NotNegative | None = None
    when_spent: Annotated[str, one_of("downgrade", "reject")] | None = None
    downgrade_to: str | None = None
    hard_usd: NotNegative | None = None


class BudgetConfig(BudgetLimits, frozen=True, forbid_unknown_fields=True):
    """Section `budget`: the overall limits, and limits for single keys, providers, models and tags."""

    timezone: TimeZone = "UTC"
    alert_at: list[Share] = field(default_factory=lambda: [0.8, 0.95])
    alert_webhook_env: Variable | None = None
    unknown_price: Annotated[str, one_of("refuse", "allow")] = "refuse"
    per_key: dict[str, BudgetLimits] = {}
    per_provider: dict[str, BudgetLimits] = {}
    per_model: dict[str, BudgetLimits] = {}
    per_tag: dict[str, BudgetLimits] = {}
