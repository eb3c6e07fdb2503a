"""Orchestrates: what the budgets would do to a call now, for explanations. Nothing is held.

It decides as `Holds` and `Admission` do, from the figures that this process knows.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from msgspec import structs

from proxy.ensembles.explain import shown_plan
from proxy.ensembles.plan import shrunk
from proxy.metering.charges import Budgets
from proxy.metering.standing import Spending, figures, shown, standing
from proxy.pipeline.conditions import within
from proxy.pipeline.holds import shortened
from proxy.pipeline.seating import Seated
from proxy.routing.allowed import Allowed
from proxy.routing.decision import Candidate, Decision
from proxy.routing.deployment import Deployment, Route
from proxy.routing.plan import attempt_bound
from proxy.routing.router import Router
from proxy.schema.chat import ChatRequest
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import CostLimit
from proxy.schema.records import Charge
from proxy.storage.admit import Additions, lacking_room
from proxy.storage.base import Room


class Foresight:
    """One request, seen against the budgets at one moment."""

    def __init__(self, budgets: Budgets, spending: Spending, request: AnyRequest, now_ns: int) -> None:
        self._budgets = budgets
        self._spending = spending
        self._request = request
        self._now_ns = now_ns
        self._of_call: tuple[Charge, ...] = ()

    async def look(
        self,
        decision: Decision,
        charges: tuple[Charge, ...],
        router: Router,
        allowed: Allowed | None,
        seated: Seated | None = None,
    ) -> tuple[Decision, dict[str, Any] | None]:
        """The decision after the budgets, and their effect: `none`, `shortened`, `shrunk` (a panel with fewer
        seats, or shorter answers), `downgraded` or `refused`. None: there are no budgets. `charges`: the windows of
        the call.
        """
        if self._budgets.is_empty:
            return decision, None
        self._of_call = charges
        if seated is not None:
            return await self._panel(decision, seated, router, allowed)
        request, candidates = self._request, list(decision.route.candidates)
        may_downgrade = request.hints.allow_downgrade and isinstance(request, ChatRequest)
        room = self._room(candidates[0], is_downgraded=False)
        while (
            room is not None
            and room.is_of_attempt
            and len(candidates) > 1
            and self._limit(candidates[0], room, may_downgrade) is None
        ):
            candidates.pop(0)
            room = self._room(candidates[0], is_downgraded=False)
        if len(candidates) < len(decision.route.candidates):
            decision = structs.replace(decision, route=structs.replace(decision.route, candidates=tuple(candidates)))
        if room is None:
            return decision, self._effect(candidates[0], "none")
        if (limit := self._limit(candidates[0], room, may_downgrade)) is not None:
            return decision, self._effect(candidates[0], "shortened", limit)
        if room.is_soft and may_downgrade and isinstance(request, ChatRequest):
            cheaper = await router.downgraded(request, room.charge.downgrade_to, allowed)
            if cheaper is not None:
                return self._downgraded(decision, cheaper)
            if (limit := self._limit(candidates[0], room, False)) is not None:
                return decision, self._effect(candidates[0], "shortened", limit)
        return decision, self._effect(candidates[0], "refused", refused_by=room.charge.budget)

    async def _panel(
        self, decision: Decision, seated: Seated, router: Router, allowed: Allowed | None
    ) -> tuple[Decision, dict[str, Any]]:
        """`look` for an ensemble, whose panel gets smaller before anything else."""
        request, first = self._request, decision.route.candidates[0]
        additions = Additions(self._of_call, seated.plan.bound_nano or 0, (), 0)
        room = lacking_room(additions, False, lambda charge: figures(charge, self._spending))
        if room is None:
            return decision, self._effect(first, "none")
        with suppress(CostLimit):
            fits = shrunk(seated.plan, room.left_nano) or seated.again(room.left_nano)
            panel = shown_plan(fits, decision.facts, names_all=False)
            return structs.replace(decision, panel=panel), self._effect(first, "shrunk")
        if room.is_soft and request.hints.allow_downgrade and isinstance(request, ChatRequest):
            cheaper = await router.downgraded(request, room.charge.downgrade_to, allowed)
            if cheaper is not None:
                return self._downgraded(decision, cheaper)
        return decision, self._effect(first, "refused", refused_by=room.charge.budget)

    def _downgraded(self, decision: Decision, cheaper: Route) -> tuple[Decision, dict[str, Any]]:
        known = {each.deployment.name for each in decision.candidates}
        added = tuple(Candidate(each) for each in cheaper.candidates if each.name not in known)
        changed = structs.replace(decision, panel=None, route=cheaper, candidates=(*decision.candidates, *added))
        changed = within(changed, self._request)
        first = changed.route.candidates[0]
        room = self._room(first, is_downgraded=True)
        if room is None:
            return changed, self._effect(first, "downgraded")
        if (limit := self._limit(first, room, False)) is not None:
            return changed, self._effect(first, "downgraded", limit)
        return changed, self._effect(first, "refused", refused_by=room.charge.budget)

    def _room(self, deployment: Deployment, *, is_downgraded: bool) -> Room | None:
        bound = attempt_bound(self._request, deployment) or 0
        additions = Additions(self._of_call, bound, self._of_attempt(deployment), bound)
        return lacking_room(additions, is_downgraded, lambda charge: figures(charge, self._spending))

    def _limit(self, deployment: Deployment, room: Room, may_downgrade: bool) -> int | None:
        """The longest answer that would fit, in tokens; None: none fits."""
        found = shortened(self._request, room, lambda each: attempt_bound(each, deployment), may_downgrade, False)
        return None if found is None else found[0].output_limit(None)

    def _of_attempt(self, deployment: Deployment) -> tuple[Charge, ...]:
        return self._budgets.of_attempt(deployment.provider_name, deployment.name, self._now_ns)

    def _effect(
        self, deployment: Deployment, effect: str, max_tokens: int | None = None, refused_by: str | None = None
    ) -> dict[str, Any]:
        windows = standing((*self._of_call, *self._of_attempt(deployment)), self._spending)
        return {
            "effect": effect,
            "max_output_tokens": max_tokens,
            "refused_by": refused_by,
            "windows": [shown(each, self._now_ns) for each in windows],
        }
