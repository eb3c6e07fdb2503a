"""Translates: a settled call into `routing` of its answer: what decided, and the attempts with their costs."""

from __future__ import annotations

from typing import Any

from proxy.pipeline.attempt import Attempt
from proxy.pipeline.call import Call
from proxy.routing.attempt_tree import attempt_tree
from proxy.routing.explain import kept_candidates, shown_candidates


def trace(call: Call) -> dict[str, Any]:
    """`{"routing": ...}` for an answer whose client asked for it, else nothing. An ensemble's decision is always
    included.
    """
    decision = call.traced
    panel = {} if call.panel_report is None else {"ensemble": call.panel_report}
    if decision is None:
        return {"routing": panel} if panel else {}
    return {
        "routing": {
            "requested": call.request.model,
            "step": decision.step,
            "rule": decision.rule,
            "strategy": decision.strategy,
            **shown_candidates(kept_candidates(decision), names_all=call.caller.admin),
            "attempts": attempt_tree([_row(attempt) for attempt in call.attempts]),
            "adapted": list(dict.fromkeys([*call.adapted, *call.answering.adapted])),
            "downgraded_from": call.downgraded_from,
            "site": call.request.site,
            "snapshot": decision.snapshot,
            **panel,
        }
    }


def _row(attempt: Attempt) -> dict[str, Any]:
    """An attempt as `GET /v1/requests/{id}` shows it."""
    end, (tokens, source) = attempt.ended, attempt.measured()
    cost = attempt.cost()
    return {
        "id": attempt.id,
        "parent": attempt.origin.parent,
        "seat": attempt.origin.seat,
        "model": attempt.deployment.name,
        "outcome": end.outcome.value if end else "open",
        "status": end.status if end else attempt.status,
        "code": end.error_code if end else None,
        "message": end.notes.message if end else None,
        "input_tokens": tokens.prompt,
        "cached_tokens": tokens.cache_read,
        "output_tokens": tokens.output,
        "usage_source": source,
        "cost_nano": None if cost is None else cost.total,
        "duration_ms": end.duration_ms if end else None,
        "first_token_ms": attempt.first_token_ms,
        "upstream_request_id": attempt.request_id,
        "price_version": attempt.deployment.price_version,
    }
