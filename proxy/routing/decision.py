"""Values: the route that was decided for one request, with the reasons."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from proxy.routing.deployment import Deployment, Route
from proxy.routing.facts import Facts
from proxy.routing.rules import CompiledRule, RuleTried, outcomes

NOT_ALLOWED = "not_allowed"


class Candidate(Struct, frozen=True):
    """A deployment that the router considered. `rejected`: why it is not in the route (None: it is); NOT_ALLOWED: it is
    not on the allow-list of the caller's key.

    `cost_low_nano`, `cost_high_nano`: the estimated cost of this request in nano-USD; None: its price is unknown.
    `cost_nano` is the expected one. `warm_tokens`: tokens of the prompt that it has cached. `rests`: why it comes
    last in the order ("": it does not rest). `must_wait`: its vendor named a time, and nothing is sent to it
    before that.
    """

    deployment: Deployment
    rejected: str | None = None
    cost_low_nano: int | None = None
    cost_high_nano: int | None = None
    warm_tokens: int = 0
    cost_nano: int | None = None
    rests: str = ""
    must_wait: bool = False


class Decision(Struct, frozen=True):
    """`route` is what a call follows. `step`, what decided: preferred_model, rule, task, strategy or default.

    `snapshot` names the configuration and the state it was decided on. `tried`: the rules from the top to the first
    that matched. `is_shared`: it follows from what all workers know, apart from the deployments' health and where the
    conversation is warm. `panel`: the plan of the ensemble that answers, as explanations show it.
    """

    route: Route
    facts: Facts
    step: str = "default"
    rule: str | None = None
    strategy: str | None = None
    tried: tuple[CompiledRule, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    snapshot: str = ""
    is_shared: bool = True
    panel: dict[str, Any] | None = None

    @property
    def chosen(self) -> Deployment | None:
        """The deployment that a call asks first. None: it asks none, because all vendors named a time to wait."""
        first = self.route.candidates[0]
        waits = any(each.must_wait for each in self.candidates if each.deployment.name == first.name)
        return None if waits else first

    @property
    def rules(self) -> tuple[RuleTried, ...]:
        """The rules that were tried, and why each did not match. Only explanations pay for the reasons."""
        return outcomes(self.tried, self.facts)
