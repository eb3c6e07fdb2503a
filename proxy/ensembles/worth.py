"""Translates: members compared with their ensemble, into a verdict in plain words: is the ensemble worth its cost?"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from msgspec import Struct

from proxy.ensembles.cascade import Cascade, Escalation
from proxy.ensembles.estimates import Lift, Z, calls_needed, share_limits

SAME = 0.05  # a member whose answer differs less often than this gives the ensemble's answers
NOT_BETTER = 0.02  # a lift below this counts as none
_LIKELY_LIFT = 0.05  # expected if nothing is rated
LEAST_RATED = 30
ONE_MEMBER, WORTH_IT, UNDECIDED = "one_member", "worth_it", "undecided"


class Compared(Struct, frozen=True):
    """The figures of one member for the verdict. In `differed` of the `compared` calls its answer was different."""

    member: str
    compared: int
    differed: int
    cost_usd: float | None
    cost_multiple: float | None
    lift: Lift | None

    @property
    def gives_the_same(self) -> bool:
        return share_limits(self.differed, self.compared)[1] < SAME and not self.is_beaten

    @property
    def is_beaten(self) -> bool:
        """True if the ensemble is right more often."""
        return self.lift is not None and self.lift.rated_calls >= LEAST_RATED and self.lift.low > 0

    @property
    def is_as_good(self) -> bool:
        return self.lift is not None and self.lift.rated_calls >= LEAST_RATED and self.lift.high < NOT_BETTER


class Verdict(Struct, frozen=True):
    """`decision`: one_member, worth_it or undecided. `member`: the one that would have been enough, or the hardest to
    beat.

    `calls_needed`, `rated_calls_needed`: about how many in total would decide; None: no number would, or it is decided.
    """

    decision: str
    text: str
    member: str | None = None
    calls_needed: int | None = None
    rated_calls_needed: int | None = None


def verdict_of(
    members: Sequence[Compared], cascade: Cascade | None, escalation: Escalation | None = None, *, can_rate: bool = True
) -> Verdict:
    """The verdict on all members. The burden of proof is the ensemble's: it costs more.

    `can_rate`: ratings of the ensemble's answers also tell about those of its members.
    """
    compared = [each for each in members if each.compared]
    if not members:
        return Verdict(UNDECIDED, "The ensemble has not answered a call in this period.")
    if not compared:
        text = (
            "Its answers are texts of their own, which cannot be compared with those of its members. "
            "Rate its calls and those of one member alone (POST /v1/feedback) and compare both."
        )
        return Verdict(UNDECIDED, text)
    enough = [each for each in compared if each.gives_the_same or each.is_as_good]
    if enough:
        best = min(enough, key=lambda each: (each.cost_usd is None, each.cost_usd or 0, each.member))
        text = f"{best.member} alone would have done: {_why_enough(best)}."
        return Verdict(ONE_MEMBER, text + _instead(cascade, 1 / (best.cost_multiple or 1)), best.member)
    instead = _instead(cascade) + _alone(escalation)
    hardest = min(compared, key=lambda each: (_lift(each), each.member))
    if all(each.is_beaten for each in compared):
        return Verdict(WORTH_IT, _why_worth(hardest) + instead, hardest.member)
    return _undecided(compared, hardest, instead, can_rate=can_rate)


def _why_enough(member: Compared) -> str:
    lift, price = member.lift, _price(member)
    if member.gives_the_same or lift is None:
        most = share_limits(member.differed, member.compared)[1]
        share = member.differed / member.compared
        return f"its answer differed in {_percent(share)} of {member.compared} calls (at most {_percent(most)}){price}"
    gain = "no better" if lift.estimate <= 0 else f"better by {_points(lift.estimate)} only"
    return (
        f"in {lift.rated_calls} rated calls the ensemble was {gain} (at most {_points(max(0.0, lift.high))} better)"
        f"{price}"
    )


def _why_worth(member: Compared) -> str:
    if member.lift is None:
        raise ValueError("a lift is needed")
    price = "" if member.cost_multiple is None else f", at {member.cost_multiple:.1f} times the cost"
    return (
        f"It is worth it: in {member.lift.rated_calls} rated calls the ensemble was right more often than "
        f"{member.member}, the member that is hardest to beat, by {_points(member.lift.estimate)} "
        f"(at least {_points(member.lift.low)}){price}."
    )


def _undecided(compared: Sequence[Compared], hardest: Compared, instead: str, *, can_rate: bool) -> Verdict:
    nearest = min(compared, key=lambda each: (each.differed / each.compared, each.member))
    calls = calls_needed(nearest.differed / nearest.compared, SAME)
    if calls is not None and calls <= nearest.compared:  # it gives the same answers, but the ensemble's are better
        calls = None
    if not can_rate:
        text = (
            f"Undecided: the answers of {nearest.member} differ in {_percent(nearest.differed / nearest.compared)} of "
            f"{nearest.compared} calls, and two different texts may both be good. Rate calls of {nearest.member} alone "
            f"(POST /v1/feedback) and compare.{instead}"
        )
        return Verdict(UNDECIDED, text, nearest.member, calls)
    rated = rated_needed(hardest)
    ways = [f"about {calls} calls in all"] if calls is not None else []
    ways.append(f"about {rated} rated calls in all (POST /v1/feedback)")
    text = (
        f"Undecided: {hardest.compared} {'call' if hardest.compared == 1 else 'calls'}, of which "
        f"{hardest.lift.rated_calls if hardest.lift else 0} are rated, are too few to tell "
        f"whether {hardest.member} alone would have done. It takes {' or '.join(ways)}."
        f"{instead}"
    )
    return Verdict(UNDECIDED, text, hardest.member, calls, rated)


def rated_needed(member: Compared) -> int:
    """About how many rated calls show whether the ensemble beats this member, if the figures stay as they are."""
    lift = member.lift
    if lift is None or lift.rated_calls < LEAST_RATED:
        variance, gap = max(member.differed / member.compared, SAME), _LIKELY_LIFT
    else:
        variance, gap = max(lift.variance, SAME), max(lift.estimate, NOT_BETTER - lift.estimate)
    have = lift.rated_calls if lift else 0
    return max(LEAST_RATED, have + have // 10 + 1, ceil(Z * Z * variance / gap**2))


def _instead(cascade: Cascade | None, below: float = 1.0) -> str:
    """A sentence on a cascade that would have cost less than this share of the ensemble."""
    if cascade is None or cascade.cost_multiple is None or cascade.cost_multiple >= below:
        return ""
    return (
        f" A cascade of {', '.join(cascade.first)}, with {cascade.strong} only where they disagree "
        f"({_percent(cascade.asked / cascade.calls)}), would have cost {cascade.cost_multiple:.2f} times as much "
        f"and given the same answer in {_percent(cascade.same / cascade.calls)}."
    )


def _alone(escalation: Escalation | None) -> str:
    if escalation is None or escalation.cost_multiple is None:
        return ""
    return (
        f" It asked {escalation.model} in {_percent(escalation.share)}, "
        f"and cost {escalation.cost_multiple:.2f} times as much as {escalation.model} alone."
    )


def _lift(member: Compared) -> float:
    return member.lift.estimate if member.lift else member.differed / member.compared


def _price(member: Compared) -> str:
    if member.cost_multiple is None:
        return ""
    return f", and the ensemble costs {member.cost_multiple:.1f} times as much"


def _percent(share: float) -> str:
    return f"{share:.1%}".replace("%", " %")


def _points(share: float) -> str:
    return f"{share * 100:.1f} points"
