"""Translates: the plan of a panel into its part of `POST /v1/route/explain`. No model is asked."""

from __future__ import annotations

from typing import Any

from proxy.ensembles.plan import PanelPlan, Place, shown_left_out
from proxy.routing.costs import estimate
from proxy.routing.facts import Facts
from proxy.routing.health import NO_STATE
from proxy.schema.records import NANO_PER_USD


def shown_plan(plan: PanelPlan, facts: Facts, *, names_all: bool = True) -> dict[str, Any]:
    """The models that would be asked, the maximum cost and the usual cost. `low`: no follower is needed.
    `names_all` False: models that the key may not use are only counted.
    """
    bound, cost = plan.bound_nano, _range(plan, facts)
    shown = [_shown(place, facts, names_all=names_all) for place in (*plan.places, *plan.followers)]
    seats = len(plan.seats)
    return {
        "name": plan.name,
        "strategy": plan.ensemble.__struct_config__.tag,
        "quorum": plan.quorum,
        "members": [{"weight": seat.weight, **each} for seat, each in zip(plan.seats, shown[:seats], strict=True)],
        "followers": shown[seats:],
        **shown_left_out(plan.left_out, names_all=names_all),
        "bound_usd": None if bound is None else bound / NANO_PER_USD,
        "estimated_cost_usd": _usd(cost) or {"low": None, "high": None},
    }


def _shown(place: Place, facts: Facts, *, names_all: bool) -> dict[str, Any]:
    bound = place.bound_nano
    shown: dict[str, Any] = {
        "model": place.name,
        "deployment": place.deployment or None,
        "bound_usd": None if bound is None else bound / NANO_PER_USD,
        "estimated_cost_usd": _usd(_cost(place, facts)),
    }
    return shown if place.panel is None else shown | {"ensemble": shown_plan(place.panel, facts, names_all=names_all)}


def _range(plan: PanelPlan, facts: Facts) -> tuple[int, int] | None:
    members = [_cost(place, facts) for place in plan.places]
    followers = [_cost(place, facts) for place in plan.followers]
    if None in members or None in followers:
        return None
    low = sum(cost[0] for cost in members if cost is not None)
    return low, sum(cost[1] for cost in (*members, *followers) if cost is not None)


def _cost(place: Place, facts: Facts) -> tuple[int, int] | None:
    if place.panel is not None:
        return _range(place.panel, facts)
    return estimate(place.route.candidates[0], facts, NO_STATE)


def _usd(cost: tuple[int, int] | None) -> dict[str, float] | None:
    return None if cost is None else {"low": cost[0] / NANO_PER_USD, "high": cost[1] / NANO_PER_USD}
