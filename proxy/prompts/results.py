"""Translates: the stored data of an experiment into its results: figures of the variants, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from proxy.prompts.assignment import shares_of, thompson_shares
from proxy.prompts.statistics import Difference, Sample
from proxy.prompts.verdict import Decision, Rules, against, decide, forecast, mismatch, plain_difference
from proxy.schema.experiments import LOWER_IS_BETTER, METRICS, Experiment, Steps, StoredExperiment, Sums, VariantSums

NOTHING = VariantSums()


class ShownDifference(TypedDict):
    """The leader minus this variant, with an interval and a p-value that hold at every look."""

    value: float
    low: float
    high: float
    p_value: float


class Mean(TypedDict):
    """`count`: the number of units that have this outcome."""

    count: int
    mean: float | None


class VariantResult(TypedDict):
    """Cost in USD and latency in milliseconds are those of calls that succeeded. `share`: the share of assignments.

    `chance_best`: the probability that this variant has the best mean. Differences are null for the leader, and if
    there are no two outcomes to compare.
    """

    name: str
    share: float
    calls: int
    units: int
    errors: int
    success: Mean
    score: Mean
    valid_json: Mean
    refusal: Mean
    cost_usd: Mean
    latency_ms: Mean
    chance_best: float
    difference: ShownDifference | None
    cost_difference_usd: ShownDifference | None
    latency_difference_ms: ShownDifference | None


class SampleRatio(TypedDict):
    """Whether the variants were assigned in their intended shares; null if shares change (`auto`)."""

    mismatch: bool
    p_value: float


class Results(TypedDict):
    """`verdict`: winner, or undecided for this `reason`; `leader` has the best mean so far. `samples_needed`: units
    with outcomes that each variant still needs to prove a difference of the minimum effect.
    """

    id: str
    status: str
    metric: str
    verdict: str
    winner: str | None
    leader: str | None
    reason: str
    samples_needed: int
    sample_ratio: SampleRatio | None
    variants: list[VariantResult]


def decision_on(experiment: Experiment, sums: Mapping[str, VariantSums]) -> Decision:
    """The verdict on the current data."""
    return decide(_samples(experiment, sums, experiment.metric), _rules(experiment))


def shares_now(experiment: Experiment, sums: Mapping[str, VariantSums]) -> dict[str, float]:
    """The current share of assignments of each variant."""
    if experiment.assignment != "auto":
        return shares_of(experiment.weights)
    samples = _samples(experiment, sums, experiment.metric)
    if _rules(experiment).lower_is_better:
        samples = {name: sample.complement() for name, sample in samples.items()}
    return thompson_shares(samples, experiment.floor)


def results_of(stored: StoredExperiment, sums: Mapping[str, VariantSums]) -> Results:
    """The results. A recorded winner stays the winner."""
    experiment, rules = stored.experiment, _rules(stored.experiment)
    found = decision_on(experiment, sums)
    ahead = forecast(_samples(experiment, sums, experiment.metric), rules)
    winner = stored.state.winner or found.winner
    shares = shares_now(experiment, sums)
    reason = found.reason if winner is None else ""
    ratio: SampleRatio | None = None
    if experiment.assignment != "auto":
        is_off, p_value = mismatch({name: known.units for name, known in sums.items()}, shares)
        ratio = {"mismatch": is_off, "p_value": p_value}
    return {
        "id": experiment.id,
        "status": stored.state.status,
        "metric": experiment.metric,
        "verdict": "undecided" if winner is None else "winner",
        "winner": winner,
        "leader": found.leader,
        "reason": reason,
        "samples_needed": 0 if winner is not None else ahead.needed,
        "sample_ratio": ratio,
        "variants": [
            _variant(experiment, sums, name, shares[name], ahead.chances[name], found) for name in experiment.weights
        ],
    }


class Course(TypedDict):
    """The difference between the leader and one variant over time: its confidence interval at the end of each interval
    of time, None if there was nothing to compare.
    """

    variant: str
    points: list[ShownDifference | None]


def courses_of(experiment: Experiment, steps: Steps, leader: str | None) -> list[Course]:
    """The course of each variant except the leader."""
    if leader is None:
        return []
    added: dict[int, list[tuple[str, Sums]]] = {}
    for variant, step, sums in steps.sums:
        added.setdefault(step, []).append((variant, sums))
    known: dict[str, Sums] = dict.fromkeys(experiment.weights, (0, 0.0, 0.0))
    courses: dict[str, list[ShownDifference | None]] = {name: [] for name in experiment.weights if name != leader}
    for step in range(steps.count):
        for variant, (count, total, squares) in added.get(step, ()):
            before = known.get(variant, (0, 0.0, 0.0))
            known[variant] = (before[0] + count, before[1] + total, before[2] + squares)
        samples = {name: Sample(*known[name]) for name in experiment.weights}
        for name, points in courses.items():
            is_known = samples[leader].count and samples[name].count
            points.append(_shown(against(samples, leader, name, _rules(experiment))) if is_known else None)
    return [{"variant": name, "points": points} for name, points in courses.items()]


def _variant(
    experiment: Experiment,
    sums: Mapping[str, VariantSums],
    name: str,
    share: float,
    chance: float,
    found: Decision,
) -> VariantResult:
    known = sums.get(name, NOTHING)

    def plainly(outcome: str) -> ShownDifference | None:
        if found.leader is None or name == found.leader:
            return None
        samples = _samples(experiment, sums, outcome)
        return _shown(plain_difference(samples[found.leader], samples[name], experiment.alpha))

    return {
        "name": name,
        "share": share,
        "calls": known.calls,
        "units": known.units,
        "errors": known.errors,
        **{metric: _mean(known, metric) for metric in METRICS},  # type: ignore[typeddict-item]  # four of its keys
        "cost_usd": _mean(known, "cost"),
        "latency_ms": _mean(known, "latency"),
        "chance_best": chance,
        "difference": _shown(found.against.get(name)),
        "cost_difference_usd": plainly("cost"),
        "latency_difference_ms": plainly("latency"),
    }


def _rules(experiment: Experiment) -> Rules:
    lower = experiment.metric in LOWER_IS_BETTER
    return Rules(experiment.alpha, experiment.minimum_effect, experiment.minimum_samples, lower)


def _samples(experiment: Experiment, sums: Mapping[str, VariantSums], outcome: str) -> dict[str, Sample]:
    return {name: _sample(sums.get(name, NOTHING), outcome) for name in experiment.weights}


def _sample(known: VariantSums, outcome: str) -> Sample:
    return Sample(*known.outcomes.get(outcome, (0, 0.0, 0.0)))


def _mean(known: VariantSums, outcome: str) -> Mean:
    sample = _sample(known, outcome)
    return {"count": sample.count, "mean": sample.mean}


def _shown(found: Difference | None) -> ShownDifference | None:
    if found is None:
        return None
    return {"value": found.value, "low": found.low, "high": found.high, "p_value": found.p_value}


def shown_experiment(stored: StoredExperiment, iso: Any) -> dict[str, Any]:
    """The experiment as the API shows it. `iso`: writes a time in Unix nanoseconds."""
    experiment, state = stored.experiment, stored.state
    fields = {name: getattr(experiment, name) for name in experiment.__struct_fields__}
    times = ("created", "started", "stopped", "decided", "promoted", "reverted")
    moments = {f"{name}_at": None if (at := getattr(state, f"{name}_ns")) is None else iso(at) for name in times}
    return {
        **fields,
        "status": state.status,
        "revision": state.revision,
        "winner": state.winner,
        "promoted_version": state.promoted_version,
        "promoted_from": state.promoted_from,
        **moments,
    }
