"""Translates: the windows of budgets into the bars that pages show. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from markupsafe import Markup
from msgspec import Struct

from proxy.metering.standing import Standing, shown
from proxy.schema.records import NANO_PER_USD as NANO
from proxy.server.web.charts import share_bar
from proxy.server.web.words import percent, plain, usd

_ROOM = 1.06  # of the bar, beyond its last mark


class BudgetBar(Struct, frozen=True):
    """One window. `state`: ok, near, downgraded or spent; `badge` says it in words. `effect`: what happens to the next
    calls; long before the limit is passed, for a call must fit into what is left.

    `scope`: what the budget is of, as `key ann`; empty for the overall one. `window`: daily, for example.
    """

    scope: str
    name: str
    window: str
    bar: Markup
    state: str
    badge: str
    spent: str
    limit: str
    used: str
    left: str
    effect: str
    held: str
    projection: str
    is_over: bool
    resets: str


def budget_bar(each: Standing, alert_at: Sequence[float], now_ns: int, tz: str) -> BudgetBar:
    """`alert_at`: the shares of the limit at which somebody is told."""
    figures = shown(each, now_ns)
    charge, used = each.charge, each.spent_nano + each.held_nano
    scale = max(charge.hard_nano, each.limit_nano, used, 1) * _ROOM
    alerts = [("mark alert", share * each.limit_nano / scale) for share in alert_at]
    limits = [("mark limit", each.limit_nano / scale)]
    if charge.hard_nano > each.limit_nano:
        limits.append(("mark hard", charge.hard_nano / scale))
    state, badge = _state(each, used, alert_at)
    style = {"ok": "spent", "near": "spent near"}.get(state, "spent over")
    parts = [(style, each.spent_nano / scale), ("held", each.held_nano / scale)]
    projected = figures["projected_usd"]
    scope, _, window = charge.budget.rpartition(" ")
    window = window.replace("_", " ")
    return BudgetBar(
        scope,
        f"{plain(scope)} {window}" if scope else window,
        window,
        share_bar(parts, [*alerts, *limits]),
        state,
        badge,
        _usd(figures["spent_usd"]),
        _usd(figures["limit_usd"]),
        percent(each.share),
        _usd(figures["left_usd"]),
        _effect(each, state),
        _usd(figures["held_usd"]) if each.held_nano else "",
        "" if projected is None else _usd(projected),
        projected is not None and projected > figures["limit_usd"],
        _moment(charge.resets_ns, tz),
    )


def _state(each: Standing, used: int, alert_at: Sequence[float]) -> tuple[str, str]:
    charge = each.charge
    if used >= charge.hard_nano:
        return "spent", "limit reached"
    if charge.soft_nano is not None and used >= charge.soft_nano:
        return "downgraded", f"downgraded to {plain(charge.downgrade_to)}" if charge.downgrade_to else "downgraded"
    crossed = [share for share in alert_at if each.share >= share]
    return ("near", f"{percent(max(crossed))} reached") if crossed else ("ok", "")


def _effect(each: Standing, state: str) -> str:
    charge = each.charge
    if state == "spent":
        return "only calls that are free pass"
    if state == "downgraded":
        return f"calls are refused at {_usd(charge.hard_nano / NANO)}"
    if charge.soft_nano is None:
        return "a call that may cost more is shortened or refused"
    to = f" to {plain(charge.downgrade_to)}" if charge.downgrade_to else ""
    return f"a call that may cost more is shortened or downgraded{to}"


def _usd(value: float) -> str:
    """To the cent, from a cent on."""
    return f"${value:,.2f}" if value >= 0.01 else usd(value)


def _moment(time_ns: int | None, tz: str) -> str:
    """When it begins anew, in the zone of budgets."""
    if time_ns is None:
        return ""
    at: Any = datetime.fromtimestamp(time_ns // NANO, ZoneInfo(tz))
    return f"{at:%a} {at.day} {at:%b}, {at:%H:%M}"
