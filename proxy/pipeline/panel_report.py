"""Translates: a panel's asks and its ensemble's decision into `routing.ensemble` of the answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from proxy.ensembles.base import Reply, Seat
from proxy.ensembles.plan import PanelPlan, Place, shown_left_out
from proxy.pipeline.call import Call
from proxy.schema.records import NANO_PER_USD


class Asked:
    """One ask of a panel. `seat` None: a judge or another follower. `inner`: if an ensemble was asked, its plan, its
    asks and its decision.
    """

    def __init__(self, place: Place, role: str, seat: Seat | None) -> None:
        self.model = place.name
        self.deployment = place.deployment
        self.role = role
        self.seat = seat
        self.attempts: tuple[str, ...] = ()
        self.deployments: tuple[str, ...] = ()
        self.reply: Reply | None = None
        self.outcome = "cancelled"
        self.message: str | None = None
        self.latency_ms = 0.0
        self.inner: tuple[PanelPlan, list[Asked]] | None = None
        self.decided: dict[str, Any] = {}

    def note(self, reply: Reply) -> None:
        self.deployments, self.reply = reply.deployments, reply
        if reply.error is not None:
            self.outcome, self.message = reply.error.code or "error", reply.error.message
        elif not reply.is_cancelled:
            self.outcome = "ok"


def report(call: Call, plan: PanelPlan, decided: dict[str, Any], asked: Iterable[Asked]) -> dict[str, Any]:
    """The ensemble's own report, with every model that was asked and its cost."""
    costs = {attempt.id: attempt.cost() for attempt in call.attempts}
    nano = {name: None if cost is None else cost.total for name, cost in costs.items()}
    return _report(_Ledger(nano, call.caller.admin), plan, decided, asked)


class _Ledger(NamedTuple):
    """What each attempt cost in nano-USD, and whether the caller may see every model's name."""

    nano: Mapping[str, int | None]
    names_all: bool


def _report(ledger: _Ledger, plan: PanelPlan, decided: dict[str, Any], asked: Iterable[Asked]) -> dict[str, Any]:
    seats = decided.get("seats", {})  # what the strategy reports about each member
    members = [{**_member(each, ledger), **seats.get(each.seat and each.seat.index, {})} for each in asked]
    seated = [each["deployment"] for each in members if "seat" in each]
    shared = sorted(
        {*decided.get("same_deployment", ()), *(name for name in seated if name and seated.count(name) > 1)}
    )
    bound = plan.bound_nano
    return {
        "name": plan.name,
        "strategy": plan.ensemble.__struct_config__.tag,
        **{name: value for name, value in decided.items() if name != "seats"},
        "members": members,
        **({"same_deployment": shared} if shared else {}),
        **(shown_left_out(plan.left_out, names_all=ledger.names_all) if plan.left_out else {}),
        "bound_usd": None if bound is None else bound / NANO_PER_USD,
    }


def _member(asked: Asked, ledger: _Ledger) -> dict[str, Any]:
    costs = [ledger.nano.get(each, 0) for each in asked.attempts]
    cost = None if None in costs else sum(each for each in costs if each is not None) / NANO_PER_USD
    shown: dict[str, Any] = {"model": asked.model, "role": asked.role}
    if asked.seat is not None:
        shown |= {"seat": asked.seat.index, "weight": asked.seat.weight}
    shown |= {
        "deployment": (asked.deployments[-1] if asked.deployments else "") or asked.deployment or None,
        "outcome": asked.outcome,
        "latency_ms": round(asked.latency_ms, 1),
        "cost_usd": cost,
    }
    if asked.message is not None:
        shown["error"] = asked.message
    if asked.inner is not None:
        plan, inside = asked.inner
        shown["deployment"] = None
        shown["ensemble"] = _report(ledger, plan, asked.decided, inside)
    return shown
