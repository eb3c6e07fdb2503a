"""Translates: past calls, routed by two configurations, into the effect of a configuration change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import Struct

from proxy.routing.decision import Decision
from proxy.routing.deployment import Deployment
from proxy.schema.errors import ProxyError
from proxy.schema.records import NANO_PER_USD, PastCall

Decide = Callable[[PastCall], Decision]
"""The decision on a past call by one configuration. Raises ProxyError if it would be refused."""

_DAY_NS = 86_400 * NANO_PER_USD
_LEAST_NS = 3_600 * NANO_PER_USD  # a few calls within one minute say little about a day


class Replayed(Struct, frozen=True):
    """One call by one configuration. `model` None: refused, because of `why`. `cost_nano` None: a price is unknown."""

    model: Deployment | None
    rule: str | None = None
    why: str | None = None
    cost_nano: int | None = None


class Change(Struct):
    """Calls that change in the same way. `difference_nano`: the sum over those whose prices are known."""

    requested: str
    before: Replayed
    after: Replayed
    calls: int = 0
    difference_nano: int = 0


def replay(calls: Sequence[PastCall], before: Decide, after: Decide, now_ns: int) -> dict[str, Any]:
    """What changes for these calls (newest first): models, cost per day, capabilities, rules that no longer match.

    Costs apply the current prices of either configuration to the tokens that the calls used. The call rate is
    averaged over the time since the first of them, at least an hour.
    """
    rules: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    changes: dict[tuple[str, ...], Change] = {}
    skipped: Counter[tuple[str, str]] = Counter()
    sums, unpriced, changed = [0, 0], 0, 0
    for call in calls:
        was = _replayed(call, before)
        if was.model is None:
            skipped[call.requested_model, was.why or ""] += 1
            continue
        new = _replayed(call, after)
        for count, each in zip(rules, (was, new), strict=True):
            if each.rule is not None:
                count[each.rule] += 1
        difference = None
        if was.cost_nano is not None and new.cost_nano is not None:
            sums[0] += was.cost_nano
            sums[1] += new.cost_nano
            difference = new.cost_nano - was.cost_nano
        elif new.model is not None:
            unpriced += 1
        if new.model is None or new.model.name != was.model.name:
            changed += 1
            _add(changes, call.requested_model, was, new, difference)
    per_day = _DAY_NS / max(now_ns - calls[-1].opened_ns, _LEAST_NS) / NANO_PER_USD if calls else 0.0
    return {
        "calls": len(calls),
        "changed": changed,
        "changes": [_shown(change, per_day) for change in sorted(changes.values(), key=lambda each: -each.calls)],
        "cost_usd_per_day": {
            "before": sums[0] * per_day,
            "after": sums[1] * per_day,
            "difference": (sums[1] - sums[0]) * per_day,
        },
        "unpriced_calls": unpriced,
        "rules": _rule_counts(*rules),
        "rules_no_longer_matching": sorted(name for name in rules[0] if not rules[1][name]),
        "not_replayed": [
            {"requested": name, "calls": count, "why": why} for (name, why), count in skipped.most_common()
        ],
    }


def _replayed(call: PastCall, decide: Decide) -> Replayed:
    try:
        decision = decide(call)
    except ProxyError as error:
        return Replayed(None, why=f"{error.status} {error.code}: {error.message}")
    model = decision.route.candidates[0]
    cost = model.cost(call.tokens)
    return Replayed(model, decision.rule, cost_nano=None if cost is None else cost.total)


def _add(
    changes: dict[tuple[str, ...], Change], requested: str, was: Replayed, new: Replayed, difference: int | None
) -> None:
    key = (requested, *(str(part) for each in (was, new) for part in (_name(each), each.rule, each.why)))
    change = changes.setdefault(key, Change(requested, was, new))
    change.calls += 1
    change.difference_nano += difference or 0


def _shown(change: Change, per_day: float) -> dict[str, Any]:
    was, new = change.before, change.after
    return {
        "requested": change.requested,
        "calls": change.calls,
        "before": _name(was),
        "after": _name(new),
        "rule_before": was.rule,
        "rule_after": new.rule,
        "cost_usd_per_day": change.difference_nano * per_day,
        "capabilities_lost": _lost(was.model, new.model) if was.model and new.model else [],
        "refused": new.why,
    }


def _name(each: Replayed) -> str | None:
    return None if each.model is None else each.model.name


def _lost(before: Deployment, after: Deployment) -> list[str]:
    """Capabilities of the old model that the new one is not known to have, by their rows in pricing.yaml."""
    was, new = before.price, after.price
    if was is None or new is None:
        return []
    lost = sorted({*(was.supports or ())} - {*new.supports}) if new.supports is not None else []
    for name, had, has in (("context", was.context, new.context), ("max_output", was.max_output, new.max_output)):
        if had is not None and has is not None and has < had:
            lost.append(f"{name} {had} -> {has}")
    return lost


def _rule_counts(before: Counter[str], after: Counter[str]) -> list[dict[str, Any]]:
    names: Iterable[str] = dict.fromkeys((*before, *after))
    return [{"name": name, "before": before[name], "after": after[name]} for name in names]
