"""Translates: a Decision into the answer of `POST /v1/route/explain`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from proxy.routing.decision import NOT_ALLOWED, Decision
from proxy.routing.facts import Facts
from proxy.routing.named import NAMED
from proxy.schema.records import NANO_PER_USD

_SHORT = {"model": "m", "rejected": "x", "low": "l", "high": "h", "warm_tokens": "w", "rests": "r"}
_CLASSIFIED = ("task", "task_confidence", "difficulty", "language")


def explained(decision: Decision, budget: dict[str, Any] | None = None, *, names_all: bool = True) -> dict[str, Any]:
    """The facts, the rules that were tried, the candidates, and the deployment that a call would be sent to.

    `chosen` None: nothing would be sent, because every vendor named a time to wait. `names_all` False: models
    that the key may not use are only counted. `budget`: its effect. If an ensemble answers, `chosen` names it and
    `ensemble` shows its panel.
    """
    name, *fallbacks = [deployment.name for deployment in decision.route.candidates]
    first = next((each for each in decision.candidates if each.deployment.name == name), None)
    cost = None if first is None else _cost_range(first.cost_low_nano, first.cost_high_nano)
    shown: dict[str, Any] = {
        "requested": decision.route.requested,
        "facts": shown_facts(decision.facts, is_classified=decision.step != NAMED),
        "step": decision.step,
        "rule": decision.rule,
        "strategy": decision.strategy,
        "rules": [{"name": rule.name, "matched": rule.matched, "why": rule.why} for rule in decision.rules],
        **shown_candidates(kept_candidates(decision), names_all=names_all),
        "chosen": decision.chosen.name if decision.chosen is not None else None,
        "fallbacks": fallbacks,
        "estimated_cost_usd": cost or {"low": None, "high": None},
        "budget": budget,
        "snapshot": decision.snapshot,
    }
    if (panel := decision.panel) is not None:
        shown |= {"chosen": panel["name"], "fallbacks": [], "estimated_cost_usd": panel["estimated_cost_usd"]}
        shown["ensemble"] = panel
    return shown


class KeptCandidate(Struct, frozen=True, omit_defaults=True, rename=_SHORT):
    """A candidate as stored in the row of a call. Costs are nano-USD."""

    model: str
    rejected: str | None = None
    low: int | None = None
    high: int | None = None
    warm_tokens: int = 0
    rests: str = ""


def kept_candidates(decision: Decision) -> list[KeptCandidate]:
    """All candidates; those that are not rejected are in the order of the route."""
    return [
        KeptCandidate(
            each.deployment.name, each.rejected, each.cost_low_nano, each.cost_high_nano, each.warm_tokens, each.rests
        )
        for each in decision.candidates
    ]


def shown_candidates(kept: Iterable[KeptCandidate], *, names_all: bool) -> dict[str, Any]:
    """`candidates`, each with its place in the fallback order or the reason for having none, and `not_allowed`: the
    number of those that the key may not use.
    """
    shown, place, barred = [], 0, 0
    for each in kept:
        place += each.rejected is None
        barred += each.rejected == NOT_ALLOWED
        if each.rejected == NOT_ALLOWED and not names_all:
            continue
        shown.append(
            {
                "model": each.model,
                "order": place if each.rejected is None else None,
                "rejected": each.rejected,
                "estimated_cost_usd": _cost_range(each.low, each.high),
                **({"warm_tokens": each.warm_tokens} if each.warm_tokens else {}),
                **({"rests": each.rests} if each.rests else {}),
            }
        )
    return {"candidates": shown, "not_allowed": barred}


def shown_facts(facts: Facts, *, is_classified: bool = True) -> dict[str, Any]:
    """The facts without the client's text. Facts that only the classifier can tell are null if it was not asked."""
    shown: dict[str, Any] = msgspec.to_builtins(facts)
    del shown["text"]
    return shown if is_classified else shown | dict.fromkeys(_CLASSIFIED)


def _cost_range(low: int | None, high: int | None) -> dict[str, float] | None:
    return None if low is None or high is None else {"low": low / NANO_PER_USD, "high": high / NANO_PER_USD}
