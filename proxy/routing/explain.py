"""Translates: a Decision into the answer of `POST /v1/route/explain`."""

from __future__ import annotations

from typing import Any

import msgspec

from proxy.routing.decision import Candidate, Decision
from proxy.routing.facts import Facts
from proxy.routing.named import NAMED
from proxy.schema.records import NANO_PER_USD

_CLASSIFIED = ("task", "task_confidence", "difficulty", "language")


def explained(decision: Decision, budget: dict[str, Any] | None = None) -> dict[str, Any]:
    """The facts, the rules that were tried, the candidates, and what a call would be sent to. `budget`: its effect."""
    chosen, *fallbacks = [deployment.name for deployment in decision.route.candidates]
    first = next((each for each in decision.candidates if each.deployment.name == chosen), None)
    return {
        "requested": decision.route.requested,
        "facts": shown_facts(decision.facts, is_classified=decision.step != NAMED),
        "step": decision.step,
        "rule": decision.rule,
        "strategy": decision.strategy,
        "rules": [{"name": rule.name, "matched": rule.matched, "why": rule.why} for rule in decision.rules],
        "candidates": candidates(decision),
        "chosen": chosen,
        "fallbacks": fallbacks,
        "estimated_cost_usd": (first and _cost_range(first)) or {"low": None, "high": None},
        "budget": budget,
        "snapshot": decision.snapshot,
    }


def candidates(decision: Decision) -> list[dict[str, Any]]:
    """Each candidate with its place in the fallback order, or the reason why it has none."""
    order = {deployment.name: place for place, deployment in enumerate(decision.route.candidates, 1)}
    return [
        {
            "model": candidate.deployment.name,
            "order": None if candidate.rejected else order.get(candidate.deployment.name),
            "rejected": candidate.rejected,
            "estimated_cost_usd": _cost_range(candidate),
            **({"warm_tokens": candidate.warm_tokens} if candidate.warm_tokens else {}),
        }
        for candidate in decision.candidates
    ]


def shown_facts(facts: Facts, *, is_classified: bool = True) -> dict[str, Any]:
    """The facts without the client's text. What only the classifier can tell is null if it was not asked."""
    shown: dict[str, Any] = msgspec.to_builtins(facts)
    del shown["text"]
    return shown if is_classified else shown | dict.fromkeys(_CLASSIFIED)


def _cost_range(candidate: Candidate) -> dict[str, float] | None:
    if candidate.cost_low_nano is None or candidate.cost_high_nano is None:
        return None
    return {"low": candidate.cost_low_nano / NANO_PER_USD, "high": candidate.cost_high_nano / NANO_PER_USD}
