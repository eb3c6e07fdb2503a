"""Values: the section `budget` of routing_rules.yaml."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct, field

from proxy.schema.constraints import Dollars, NotBlank, Share, TimeZone, Variable, one_of

HARD_FACTOR = 1.25  # times the limit at which calls are downgraded: downgraded calls are refused there


class BudgetLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """USD per window; None: no limit. `when_spent` and `downgrade_to` None: as in the overall budget.

    A limit is soft where `when_spent` is `downgrade`; its `hard_` twin stops downgraded calls.
    """

    minute_usd: Dollars | None = None
    hour_usd: Dollars | None = None
    daily_usd: Dollars | None = None
    weekly_usd: Dollars | None = None
    monthly_usd: Dollars | None = None
    total_usd: Dollars | None = None
    last_24h_usd: Dollars | None = None
    hard_minute_usd: Dollars | None = None
    hard_hour_usd: Dollars | None = None
    hard_daily_usd: Dollars | None = None
    hard_weekly_usd: Dollars | None = None
    hard_monthly_usd: Dollars | None = None
    hard_total_usd: Dollars | None = None
    hard_last_24h_usd: Dollars | None = None
    when_spent: Annotated[str, one_of("downgrade", "reject")] | None = None
    downgrade_to: str | None = None


class BudgetConfig(BudgetLimits, frozen=True, forbid_unknown_fields=True):
    """Section `budget`: the overall limits, and those of single keys, providers, models and tags, and of each session.

    `per_model` counts the models that a name stands for, without its fallbacks.
    """

    timezone: TimeZone = "UTC"
    alert_at: list[Share] = field(default_factory=lambda: [0.8, 0.95])
    alert_webhook_env: Variable | None = None
    unknown_price: Annotated[str, one_of("refuse", "allow")] = "refuse"
    charge_failed: bool = True
    message: NotBlank | None = None
    per_key: dict[str, BudgetLimits] = {}
    per_provider: dict[str, BudgetLimits] = {}
    per_model: dict[str, BudgetLimits] = {}
    per_tag: dict[str, BudgetLimits] = {}
    per_session: BudgetLimits | None = None
