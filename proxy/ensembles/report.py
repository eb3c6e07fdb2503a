"""Translates: the stored calls of an ensemble into the report on whether it is worth its cost. Pure over rows."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from proxy.ensembles.cascade import Cascade, Escalation, cascade_of, escalation_of
from proxy.ensembles.estimates import Answered, Lift, accuracies, lift_over, median, share_limits
from proxy.ensembles.worth import Compared, Verdict, verdict_of
from proxy.schema.ensembles import EnsembleCall, SeatRecord
from proxy.schema.records import NANO_PER_USD, Outcome

LEVELS = (0.0, 0.4, 0.6, 0.8, 1.0)  # lower bounds of the levels of agreement; the last level is exactly 1
_ENOUGH = 10  # rated calls that a level needs to be judged
_SLACK = 0.05  # how far a confidence may be from the accuracy and still be honest
_TWO_SIDED = 1.96
_EXCLUSIVE = ("voting", "fusion")  # strategies that compare answers by meaning, not texts by quality


class MemberReport(Struct, frozen=True):
    """One member against the ensemble, on the calls in which it had a seat.

    `compared`: calls in which its answer could be compared with the ensemble's; in `differed` of them it was a
    different one, or the member failed. `cost_multiple`: the ensemble's cost, as a multiple of the member's on the same
    calls.
    """

    member: str
    calls: int
    failed: int
    compared: int
    differed: int
    differed_share: float | None
    cost_usd: float | None
    cost_multiple: float | None
    p50_latency_ms: float | None
    latency_multiple: float | None
    lift: Lift | None


class Level(Struct, frozen=True):
    """Calls whose confidence is in a range. `is_honest`: it is near the accuracy; None: too few calls are rated."""

    confidence_from: float
    confidence_to: float
    calls: int
    rated_calls: int
    confidence: float | None
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    is_honest: bool | None


class EnsembleReport(Struct, frozen=True):
    """The body of `GET /v1/ensembles/{name}/report`. `has_more`: there are older calls, which are not in it.

    `calibration_error`: the mean difference between confidence and accuracy over the rated calls.
    """

    ensemble: str
    since: str | None
    until: str | None
    calls: int
    has_more: bool
    failed: int
    agreed: int
    escalated: int
    rated_calls: int
    accuracy: float | None
    cost_usd: float | None
    unpriced_calls: int
    p50_latency_ms: float | None
    members: list[MemberReport]
    levels: list[Level]
    calibration_error: float | None
    is_honest: bool | None
    escalation: Escalation | None
    cascade: Cascade | None
    verdict: Verdict


def report_of(
    name: str, calls: Sequence[EnsembleCall], period: tuple[str | None, str | None], *, has_more: bool = False
) -> EnsembleReport:
    """The report on these calls."""
    answered = [call for call in calls if call.success]
    rated = [call.rating for call in answered if call.rating is not None]
    seats = [_seats(call) for call in answered]
    members = _members(answered, seats)
    levels = _levels(answered)
    priced = [call.cost_nano for call in calls if call.cost_nano is not None]
    cascade, escalation = cascade_of(answered, seats), escalation_of(answered)
    compared = [_compared(member) for member in members]
    judged = [level for level in levels if level.is_honest is not None]
    return EnsembleReport(
        ensemble=name,
        since=period[0],
        until=period[1],
        calls=len(calls),
        has_more=has_more,
        failed=len(calls) - len(answered),
        agreed=sum(call.record.agreed for call in answered),
        escalated=sum(call.record.escalation is not None for call in answered),
        rated_calls=len(rated),
        accuracy=sum(rated) / len(rated) if rated else None,
        cost_usd=sum(priced) / NANO_PER_USD if priced else None,
        unpriced_calls=len(calls) - len(priced),
        p50_latency_ms=median([call.latency_ms for call in answered]),
        members=members,
        levels=levels,
        calibration_error=_error(levels),
        is_honest=all(level.is_honest for level in judged) if judged else None,
        escalation=escalation,
        cascade=cascade,
        verdict=verdict_of(compared, cascade, escalation, can_rate=any(map(_is_exclusive, answered))),
    )


def _seats(call: EnsembleCall) -> dict[str, SeatRecord]:
    """The members of a call by name. Further seats of one model are numbered."""
    found: dict[str, SeatRecord] = {}
    for seat in call.record.members:
        name, number = seat.name, 1
        while name in found:
            number += 1
            name = f"{seat.name} #{number}"
        found[name] = seat
    return found


def _is_comparable(call: EnsembleCall, seat: SeatRecord) -> bool:
    """False for a member that was stopped early, and if the ensemble's answer is a text of its own."""
    if call.record.answer is None or seat.outcome == Outcome.CANCELLED:
        return False
    return seat.answer is not None or seat.outcome != Outcome.OK


def _is_exclusive(call: EnsembleCall) -> bool:
    """True if at most one of two different answers can be right."""
    return call.record.strategy in _EXCLUSIVE


def _members(calls: Sequence[EnsembleCall], seats: Sequence[dict[str, SeatRecord]]) -> list[MemberReport]:
    rated: Counter[Answered] = Counter()
    for call, each in zip(calls, seats, strict=True):
        if call.rating is not None and call.record.answer is not None and _is_exclusive(call):
            number = {call.record.answer: 0}  # by first appearance, so that similar calls are counted together
            answers = []
            for name, seat in each.items():
                if _is_comparable(call, seat):
                    answer = None if seat.answer is None else number.setdefault(seat.answer, len(number))
                    answers.append((name, answer))
            rated[Answered(tuple(answers), 0, call.rating)] += 1
    accuracy = accuracies(rated)
    names = dict.fromkeys(name for each in seats for name in each)
    found = []
    for name in names:
        seated = [(call, each[name]) for call, each in zip(calls, seats, strict=True) if name in each]
        found.append(_member(name, seated, lift_over(name, rated, accuracy)))
    return found


def _member(name: str, seated: Sequence[tuple[EnsembleCall, SeatRecord]], lift: Lift | None) -> MemberReport:
    compared = [(call, seat) for call, seat in seated if _is_comparable(call, seat)]
    differed = sum(seat.answer != call.record.answer for call, seat in compared)
    alone = [(call, seat) for call, seat in seated if seat.outcome == Outcome.OK]
    paid = [(call.cost_nano, seat.cost_nano) for call, seat in alone]
    costs = [(whole, own) for whole, own in paid if whole is not None and own is not None]
    own_nano = sum(own for _, own in costs)
    own_ms, whole_ms = median([seat.latency_ms for _, seat in alone]), median([call.latency_ms for call, _ in alone])
    return MemberReport(
        member=name,
        calls=len(seated),
        failed=sum(seat.outcome not in (Outcome.OK, Outcome.CANCELLED) for _, seat in seated),
        compared=len(compared),
        differed=differed,
        differed_share=differed / len(compared) if compared else None,
        cost_usd=own_nano / NANO_PER_USD if costs else None,
        cost_multiple=sum(whole for whole, _ in costs) / own_nano if own_nano else None,
        p50_latency_ms=own_ms,
        latency_multiple=whole_ms / own_ms if own_ms and whole_ms is not None else None,
        lift=lift,
    )


def _compared(member: MemberReport) -> Compared:
    return Compared(member.member, member.compared, member.differed, member.cost_usd, member.cost_multiple, member.lift)


def _levels(calls: Sequence[EnsembleCall]) -> list[Level]:
    by_start: dict[float, list[EnsembleCall]] = {}
    for call in calls:
        if call.record.confidence is not None:
            confidence = min(max(call.record.confidence, 0.0), 1.0)
            by_start.setdefault(LEVELS[bisect_right(LEVELS, confidence) - 1], []).append(call)
    return [_level(start, by_start[start]) for start in sorted(by_start)]


def _level(start: float, calls: Sequence[EnsembleCall]) -> Level:
    told = [(call.record.confidence, call.rating) for call in calls]
    pairs = [(sure, rating) for sure, rating in told if sure is not None and rating is not None]
    confidence = accuracy = low = high = None
    if pairs:
        confidence = sum(sure for sure, _ in pairs) / len(pairs)
        hits = sum(rating for _, rating in pairs)
        accuracy = hits / len(pairs)
        low, high = share_limits(hits, len(pairs), _TWO_SIDED)
    is_honest = None
    if len(pairs) >= _ENOUGH and confidence is not None and low is not None and high is not None:
        is_honest = low - _SLACK <= confidence <= high + _SLACK
    end = next((each for each in LEVELS if each > start), 1.0)
    return Level(start, end, len(calls), len(pairs), confidence, accuracy, low, high, is_honest)


def _error(levels: Sequence[Level]) -> float | None:
    told = [(level.rated_calls, level.confidence, level.accuracy) for level in levels]
    gaps = [(count, abs(sure - hit)) for count, sure, hit in told if sure is not None and hit is not None]
    return sum(count * gap for count, gap in gaps) / sum(count for count, _ in gaps) if gaps else None
