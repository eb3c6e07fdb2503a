"""The report of an ensemble: figures by hand, and verdicts on simulated panels whose truth is known."""

from __future__ import annotations

from collections import Counter
from math import isfinite
from random import Random
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from proxy.ensembles.estimates import Answered, accuracies, calls_needed, lift_over, median, share_limits
from proxy.ensembles.report import EnsembleReport, report_of
from proxy.schema.ensembles import EnsembleCall, EnsembleRecord, SeatRecord
from proxy.schema.records import Outcome
from tests.ensembles.panels import simulated, truth

NO_PERIOD = (None, None)


def seat(name: str, answer: int | None, nano: int | None = 100, ms: float = 10.0, outcome: str = "ok") -> SeatRecord:
    return SeatRecord(name, outcome, answer, cost_nano=nano, latency_ms=ms)


def called(seats: list[SeatRecord], answer: int | None, rating: float | None = None, **changes: Any) -> EnsembleCall:
    record = EnsembleRecord("v", "voting", tuple(seats), answer, changes.pop("confidence", None))
    return EnsembleCall(record, True, sum(each.cost_nano or 0 for each in seats), 30.0, rating, **changes)


def report(calls: list[EnsembleCall]) -> EnsembleReport:
    return report_of("v", calls, NO_PERIOD)


# --- figures by hand --------------------------------------------------------------------------------------------------


def test_limits_of_a_share() -> None:
    """Wilson's, of the textbook's 8 in 10; none at all says nothing."""
    low, high = share_limits(8, 10, 1.96)
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)
    assert share_limits(0, 0) == (0.0, 1.0)
    assert (share_limits(0, 51)[1] < 0.05, share_limits(0, 52)[1] < 0.05) == (False, True)


def test_how_many_calls_it_takes() -> None:
    """The first number at which the upper limit is below; none if the share itself is not."""
    assert (calls_needed(0.0, 0.05), calls_needed(0.05, 0.05), calls_needed(0.2, 0.05)) == (52, None, None)
    needed = calls_needed(0.02, 0.05)
    assert needed is not None
    assert share_limits(0.02 * needed, needed)[1] < 0.05 <= share_limits(0.02 * (needed - 1), needed - 1)[1]


def test_medians() -> None:
    """Of an even number the mean of the middle two."""
    assert (median([]), median([3.0, 1.0, 2.0]), median([4.0, 1.0])) == (None, 2.0, 2.5)


def test_the_bounds_of_a_lift_assume_nothing() -> None:
    """Of ten calls the member agreed in six, failed in one, and gave another answer where the ensemble was right (2)
    and wrong (1): at most three more right answers, at least two.
    """
    calls = Counter(
        {
            Answered((("m", 0), ("n", 0)), 0, 1.0): 6,
            Answered((("m", 1), ("n", 0)), 0, 1.0): 2,
            Answered((("m", 1), ("n", 0)), 0, 0.0): 1,
            Answered((("m", None), ("n", 0)), 0, 1.0): 1,
        }
    )
    accuracy = accuracies(calls)
    lift = lift_over("m", calls, accuracy)
    assert lift is not None
    assert (lift.rated_calls, lift.at_least, lift.at_most) == (10, 0.2, 0.3)
    assert lift.at_least < lift.estimate < lift.at_most and lift.low < lift.estimate < lift.high
    assert accuracy["n"] > accuracy["m"]
    assert lift_over("nobody", calls, accuracy) is None


def test_accuracies_come_near_the_truth() -> None:
    """Though nobody rates single members."""
    rated: Counter[Answered] = Counter()
    for call in simulated((0.9, 0.75, 0.6), 5_000):
        answers = tuple((each.name, each.answer) for each in call.record.members)
        rated[Answered(answers, call.record.answer or 0, call.rating or 0.0)] += 1
    found = accuracies(rated)
    assert [found[name] for name in ("m0", "m1", "m2")] == pytest.approx([0.9, 0.75, 0.6], abs=0.03)


def test_a_member_against_the_ensemble() -> None:
    """On the calls in which it had a seat: another answer, a failure, cost and time."""
    calls = [
        called([seat("a", 0, 100, 10.0), seat("b", 0, 300, 30.0)], 0),
        called([seat("a", 1, 100, 20.0), seat("b", 0, 300, 30.0)], 0),
        called([seat("a", None, 0, 5.0, "timeout_total"), seat("b", 0, 300, 30.0)], 0),
        called([seat("a", None, 50, 1.0, Outcome.CANCELLED), seat("b", 0, 300, 60.0)], 0),
        called([seat("b", 0, None, 30.0)], 0),
    ]
    first, second = report(calls).members
    assert (first.member, first.calls, first.failed, first.compared, first.differed) == ("a", 4, 1, 3, 2)
    assert (first.cost_usd, first.cost_multiple) == (200 / 1e9, 800 / 200)
    assert (first.p50_latency_ms, first.latency_multiple) == (15.0, 2.0)
    assert (second.calls, second.compared, second.differed, second.cost_usd) == (5, 5, 0, 1200 / 1e9)


def test_what_a_cascade_would_have_cost() -> None:
    """a and b first; c, the dearest, where they disagree. Calls without the answers of all three are left out."""
    calls = [
        called([seat("a", 0, 10, 10.0), seat("b", 0, 20, 20.0), seat("c", 1, 100, 50.0)], 0),
        called([seat("a", 0, 10, 10.0), seat("b", 1, 20, 20.0), seat("c", 1, 100, 50.0)], 1),
        called([seat("a", 0, 10, 10.0), seat("b", 1, 20, 20.0), seat("c", 2, 100, 50.0)], 0),
        called([seat("a", 0, 10, 10.0), seat("b", None, 0, 20.0, "upstream_error"), seat("c", 2, 100, 50.0)], 0),
    ]
    cascade = report(calls).cascade
    assert cascade is not None
    assert (cascade.first, cascade.strong, cascade.calls) == (["a", "b"], "c", 3)
    assert (cascade.asked, cascade.same, cascade.cost_usd) == (2, 2, 290 / 1e9)
    assert (cascade.cost_multiple, cascade.p50_latency_ms) == (290 / 390, 70.0)


def test_what_a_cascade_has_saved() -> None:
    """Its own cost, against the mean cost of its stronger model in every call."""
    pair = [seat("a", 0, 10), seat("b", 1, 10)]
    calls = [called(pair, 0)] * 3
    for nano, outcome in ((400, "ok"), (600, "ok"), (0, "upstream_error")):
        record = replace(calls[0].record, escalation=seat("strong", None, nano, 50.0, outcome))
        calls.append(replace(calls[0], record=record, cost_nano=20 + nano))
    escalation = report(calls).escalation
    assert escalation is not None
    assert (escalation.model, escalation.calls, escalation.share) == ("strong", 3, 0.5)
    assert (escalation.cost_usd, escalation.cost_multiple) == (1000 / 1e9, 1120 / 3000)
    assert report(calls[:3]).escalation is None


@pytest.mark.parametrize("costs", [(100, 100, 100), (10, 100, 100), (10, 20)])
def test_no_cascade_without_two_cheaper_members(costs: tuple[int, ...]) -> None:
    """One cheap member has nobody to agree with."""
    calls = [called([seat(f"m{number}", 0, nano) for number, nano in enumerate(costs)], 0)] * 3
    assert report(calls).cascade is None


def test_accuracy_per_level_of_agreement() -> None:
    """A confidence that misses the accuracy by more than chance is not honest; few ratings judge nothing."""
    pair = [seat("a", 0), seat("b", 0)]
    calls = [called(pair, 0, float(number < 45), confidence=0.9) for number in range(50)]
    calls += [called(pair, 0, float(number < 10), confidence=1.0) for number in range(40)]
    calls += [called(pair, 0, 1.0, confidence=0.5), called(pair, 0, None, confidence=0.5), called(pair, 0, 1.0)]
    found = report(calls)
    assert [(each.confidence_from, each.confidence_to, each.calls, each.rated_calls) for each in found.levels] == [
        (0.4, 0.6, 2, 1),
        (0.8, 1.0, 50, 50),
        (1.0, 1.0, 40, 40),
    ]
    assert [each.is_honest for each in found.levels] == [None, True, False]
    assert [each.accuracy for each in found.levels] == [1.0, 0.9, 0.25]
    assert found.calibration_error == pytest.approx((1 * 0.5 + 50 * 0.0 + 40 * 0.75) / 91)
    assert found.is_honest is False


def test_seats_of_one_model_are_members_of_their_own() -> None:
    """By their order in the call."""
    calls = [called([seat("a", 0), seat("a", 1), seat("a", 0)], 0)]
    assert [(each.member, each.differed) for each in report(calls).members] == [("a", 0), ("a #2", 1), ("a #3", 0)]


def test_failed_and_unpriced_calls_are_counted() -> None:
    """They have no part in the comparison."""
    fine, failed = called([seat("a", 0, None)], 0), called([seat("a", 0)], None)
    found = report([replace(fine, cost_nano=None), replace(failed, success=False), fine])
    assert (found.calls, found.failed, found.unpriced_calls, found.cost_usd) == (3, 1, 1, 100 / 1e9)
    assert [(each.calls, each.cost_usd, each.cost_multiple) for each in found.members] == [(2, None, None)]


def test_free_members_have_no_multiple() -> None:
    """Nothing is divided by zero."""
    (member,) = report([called([seat("a", 0, 0, 0.0)], 0)]).members
    assert (member.cost_usd, member.cost_multiple, member.latency_multiple) == (0.0, None, None)


# --- verdicts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("members", "options", "decision"),
    [
        ((0.9, 0.6, 0.6), {}, "one_member"),
        ((0.9, 0.6, 0.6), {"alike": 0.3}, "one_member"),
        ((0.8, 0.8, 0.8), {"alike": 1.0, "rated": 0.0}, "one_member"),
        ((0.7, 0.7, 0.7), {}, "worth_it"),
        ((0.8, 0.75, 0.7), {}, "worth_it"),
        ((0.8, 0.8, 0.8), {"alike": 0.5}, "worth_it"),
        ((0.85, 0.85, 0.85, 0.85, 0.85), {}, "worth_it"),
    ],
)
def test_the_verdict_on_2000_calls_is_right(
    members: tuple[float, ...], options: dict[str, float], decision: str, seed: int
) -> None:
    """The best member alone is better; or all give the same answers; or the members complete each other."""
    verdict = report(simulated(members, 2_000, seed=seed, **options)).verdict  # type: ignore[arg-type]
    assert (verdict.decision, verdict.calls_needed, verdict.rated_calls_needed) == (decision, None, None)
    if decision == "one_member" and options.get("rated", 1.0) > 0:
        assert verdict.member == "m0"


@pytest.mark.parametrize("members", [(0.9, 0.6, 0.6), (0.7, 0.7, 0.7), (0.9, 0.8, 0.7)])
def test_a_lift_is_near_the_truth(members: tuple[float, ...]) -> None:
    """Over the best member, which nobody rated alone."""
    found = report(simulated(members, 2_000, seed=3))
    lifts = [each.lift.estimate for each in found.members if each.lift is not None]
    assert min(lifts) == pytest.approx(truth(members) - max(members), abs=0.025)


def test_few_calls_decide_nothing() -> None:
    """The text says how many would; so many do."""
    for members, decision in (((0.9, 0.6, 0.6), "one_member"), ((0.7, 0.7, 0.7), "worth_it")):
        few = report(simulated(members, 20)).verdict
        assert few.decision == "undecided"
        needed = few.rated_calls_needed
        assert needed is not None and 30 <= needed <= 2_000
        assert f"about {needed} rated calls" in few.text and "20 calls, of which 20 are rated" in few.text
        assert report(simulated(members, 4 * needed)).verdict.decision == decision


def test_without_ratings_another_answer_is_not_a_better_one() -> None:
    """Members that differ cannot be told apart; members that do not are as good as all of them."""
    found = report(simulated((0.7, 0.7, 0.7), 2_000, rated=0.0)).verdict
    assert (found.decision, found.calls_needed) == ("undecided", None)
    same = [called([seat("a", 0), seat("b", 0)], 0)]
    few, many = report(same * 20).verdict, report(same * 60).verdict
    assert (few.decision, few.calls_needed, many.decision) == ("undecided", 52, "one_member")
    assert "differed in 0.0 % of 60 calls (at most 4.3 %), and the ensemble costs 2.0 times as much" in many.text


def test_of_members_that_would_have_done_the_cheapest_is_named() -> None:
    """One without a price comes last."""
    calls = [called([seat("a", 0, None), seat("b", 0, 30), seat("c", 0, 20)], 0)] * 100
    assert report(calls).verdict.member == "c"


def test_a_rare_but_better_answer_is_worth_it() -> None:
    """The member differs in 4 % of the calls, and the ensemble is right in all of these."""
    calls = [called([seat("a", 0), seat("b", 0), seat("c", 0)], 0, 1.0)] * 960
    calls += [called([seat("a", 1), seat("b", 0), seat("c", 0)], 0, 1.0)] * 40
    calls += [called([seat("a", 0), seat("b", 1), seat("c", 2)], 0, 1.0)] * 40
    verdict = report(calls).verdict
    assert (verdict.decision, verdict.member) == ("worth_it", "a")


def test_the_cheaper_cascade_is_told() -> None:
    """With what it would have cost, and how often its answer would have been the same."""
    text = report(simulated((0.8, 0.8, 0.95), 1_000, costs=(10, 10, 1000))).verdict.text
    assert "A cascade of m0, m1, with m2 only where they disagree (" in text
    assert "times as much and given the same answer in" in text


def test_answers_that_cannot_be_compared() -> None:
    """A judge writes a text of its own; an ensemble without calls has nothing to judge."""
    fused = report([called([seat("a", 0), seat("b", 1)], None, 1.0)] * 50).verdict
    assert (fused.decision, fused.member) == ("undecided", None)
    assert "cannot be compared" in fused.text
    assert "has not answered a call" in report([]).verdict.text


def test_ratings_of_texts_say_nothing_about_other_texts() -> None:
    """Of two texts both may be good, so nobody is asked for ratings that would not decide."""
    calls = [
        replace(call, record=replace(call.record, strategy="ranking")) for call in simulated((0.7, 0.7, 0.7), 2_000)
    ]
    found = report(calls)
    assert [each.lift for each in found.members] == [None] * 3
    assert (found.verdict.decision, found.verdict.rated_calls_needed) == ("undecided", None)
    assert "two different texts may both be good" in found.verdict.text
    assert found.is_honest is not None


def test_the_order_of_the_members_changes_nothing() -> None:
    """All figures by member, and the verdict."""
    calls = simulated((0.85, 0.8, 0.6), 500, costs=(10, 20, 300))
    turned = [
        replace(call, record=replace(call.record, members=tuple(reversed(call.record.members)))) for call in calls
    ]
    one, other = report(calls), report(turned)
    assert (one.verdict, one.cascade) == (other.verdict, other.cascade)
    assert [each.differed for each in one.members] == [each.differed for each in reversed(other.members)]
    for left, right in zip(one.members, reversed(other.members), strict=True):
        assert left.lift is not None and right.lift is not None
        assert left.lift.estimate == pytest.approx(right.lift.estimate)


@pytest.mark.parametrize("seed", range(20))
def test_any_records_have_a_report(seed: int) -> None:
    """Empty panels, panels that change, failures, early stops, shares as ratings: every figure is finite."""
    random = Random(seed)
    calls = []
    for _ in range(random.choice([1, 2, 5, 40])):
        seats = [
            SeatRecord(
                random.choice("abc"),
                random.choice([*Outcome]),
                random.choice([None, 0, 1, 2]),
                cost_nano=random.choice([None, 0, 10**15]),
                latency_ms=random.choice([0.0, 1e9]),
            )
            for _ in range(random.randint(0, 6))
        ]
        record = EnsembleRecord("v", "s", tuple(seats), random.choice([None, 0, 7]), random.choice([None, 0.0, 1.0, 5]))
        rating = random.choice([None, 0.0, 0.3, 1.0])
        calls.append(EnsembleCall(record, random.random() < 0.8, random.choice([None, 0, 10**16]), 1.0, rating))
    found = report(calls)
    numbers = [value for value in _leaves(msgspec.to_builtins(found)) if isinstance(value, float)]
    assert all(map(isfinite, numbers)) and found.verdict.text


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict | list):
        return [leaf for each in (value.values() if isinstance(value, dict) else value) for leaf in _leaves(each)]
    return [value]
