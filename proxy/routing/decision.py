"""Values: the route that was decided for one request, with the reasons."""

from __future__ import annotations

from msgspec import Struct

from proxy.routing.deployment import Deployment, Route
from proxy.routing.facts import Facts


class Candidate(Struct, frozen=True):
    """A deployment in the order of the route. `rejected`: why it is not in it (None: it is).

    `cost_low_nano`, `cost_high_nano`: the estimated cost of this request in nano-USD; None: its price is unknown.
    `cost_nano` is the expected one. `warm_tokens`: tokens of the prompt that it has cached. `rests`: why it stands at
    the end of the order ("": it does not rest).
    """

    deployment: Deployment
    rejected: str | None = None
    cost_low_nano: int | None = None
    cost_high_nano: int | None = None
    warm_tokens: int = 0
    cost_nano: int | None = None
    rests: str = ""


class RuleTried(Struct, frozen=True):
    """One rule, from the top to the first that matched. `why`: the first key that did not hold, with both values."""

    name: str
    matched: bool
    why: str = ""


class Decision(Struct, frozen=True):
    """`route` is what a call follows. `step`: preferred_model, rule, task, strategy or default: what decided.

    `snapshot` names the configuration and the state it was decided on.
    """

    route: Route
    facts: Facts
    step: str = "default"
    rule: str | None = None
    strategy: str | None = None
    rules: tuple[RuleTried, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    snapshot: str = ""
