"""Translates: the calls of an ensemble into the cost of a cascade on the same calls, and the savings of a real one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from msgspec import Struct

from proxy.ensembles.estimates import median
from proxy.schema.ensembles import EnsembleCall, SeatRecord
from proxy.schema.records import NANO_PER_USD, Outcome


class Cascade(Struct, frozen=True):
    """A cascade of the members: the most expensive one (`strong`) is asked only if the others disagree.

    `calls`: those in which all members answered. In `asked` of them the cheap members disagree; in `same` of them the
    answer would have been the ensemble's. `cost_multiple`: as a multiple of the ensemble's cost on the same calls.
    """

    first: list[str]
    strong: str
    calls: int
    asked: int
    same: int
    cost_usd: float
    cost_multiple: float | None
    p50_latency_ms: float | None


class Escalation(Struct, frozen=True):
    """The stronger model of an ensemble that is a cascade, in the calls in which it was asked.

    `cost_multiple`: the ensemble's cost, as a multiple of what `model` alone would have cost at its mean cost.
    """

    model: str
    calls: int
    share: float
    cost_usd: float | None
    cost_multiple: float | None
    p50_latency_ms: float | None


def escalation_of(calls: Sequence[EnsembleCall]) -> Escalation | None:
    """The escalation to the model that was asked most; None: there was none."""
    named = Counter(call.record.escalation.name for call in calls if call.record.escalation is not None)
    if not named:
        return None
    ((model, count),) = named.most_common(1)
    asked = [seat for call in calls if (seat := call.record.escalation) is not None and seat.name == model]
    costs = [seat.cost_nano for seat in asked if seat.outcome == Outcome.OK and seat.cost_nano is not None]
    whole = [call.cost_nano for call in calls if call.cost_nano is not None]
    alone = sum(costs) / len(costs) * len(whole) if costs else 0.0
    return Escalation(
        model=model,
        calls=count,
        share=count / len(calls),
        cost_usd=sum(costs) / NANO_PER_USD if costs else None,
        cost_multiple=sum(whole) / alone if alone else None,
        p50_latency_ms=median([seat.latency_ms for seat in asked]),
    )


def cascade_of(calls: Sequence[EnsembleCall], seats: Sequence[Mapping[str, SeatRecord]]) -> Cascade | None:
    """The cascade of the most frequent panel. None: fewer than two members are cheaper than the most expensive one, or
    no call has the answers and costs of all.

    `seats`: the members of each call, by name.
    """
    if not seats:
        return None
    ((names, _),) = Counter(frozenset(each) for each in seats).most_common(1)
    whole = [
        (call, each)
        for call, each in zip(calls, seats, strict=True)
        if names == each.keys() and call.cost_nano is not None and all(map(_is_whole, each.values()))
    ]
    if not whole or len(names) < 3:
        return None
    costs = {name: sum(each[name].cost_nano or 0 for _, each in whole) for name in names}
    first = sorted(costs, key=lambda name: (costs[name], name))
    strong = first.pop()
    if len(first) < 2 or costs[first[-1]] == costs[strong]:
        return None
    asked = same = nano = 0
    latencies = []
    for call, each in whole:
        answers = {each[name].answer for name in first}
        latency_ms = max(each[name].latency_ms for name in first)
        nano += sum(each[name].cost_nano or 0 for name in first)
        if len(answers) > 1:
            asked += 1
            answers = {each[strong].answer}
            latency_ms += each[strong].latency_ms
            nano += each[strong].cost_nano or 0
        same += answers == {call.record.answer}
        latencies.append(latency_ms)
    paid = sum(call.cost_nano or 0 for call, _ in whole)
    return Cascade(
        first=first,
        strong=strong,
        calls=len(whole),
        asked=asked,
        same=same,
        cost_usd=nano / NANO_PER_USD,
        cost_multiple=nano / paid if paid else None,
        p50_latency_ms=median(latencies),
    )


def _is_whole(seat: SeatRecord) -> bool:
    return seat.outcome == Outcome.OK and seat.answer is not None and seat.cost_nano is not None
