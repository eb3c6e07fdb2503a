"""Values: simulated panels, whose members are right with known probabilities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

from proxy.schema.ensembles import EnsembleCall, EnsembleRecord, SeatRecord

WRONG = 4  # wrong answers to each question


def simulated(
    accuracies: Sequence[float],
    calls: int,
    *,
    rated: float = 1.0,
    alike: float = 0.0,
    costs: Sequence[int] | None = None,
    seed: int = 1,
) -> list[EnsembleCall]:
    """Votes of equal weight. `rated`: the share of calls that are; `alike`: the probability that a call's members all
    give the answer of one of them; answer 0 is the right one.
    """
    random = Random(seed)
    prices = costs or [1000] * len(accuracies)
    found = []
    for _ in range(calls):
        answers = [0 if random.random() < accuracy else random.randint(1, WRONG) for accuracy in accuracies]
        if random.random() < alike:
            answers = [answers[0]] * len(answers)
        votes = Counter(answers)
        most = max(votes.values())
        winner = random.choice([answer for answer, count in votes.items() if count == most])
        seats = tuple(
            SeatRecord(f"m{number}", "ok", answer, cost_nano=prices[number], latency_ms=100.0 * (number + 1))
            for number, answer in enumerate(answers)
        )
        share = most / len(answers)
        record = EnsembleRecord("voting", "voting", seats, winner, share, agreed=share > 0.66)
        rating = float(winner == 0) if random.random() < rated else None
        found.append(EnsembleCall(record, True, sum(prices), 100.0 * len(answers), rating))
    return found


def truth(accuracies: Sequence[float], **options: float) -> float:
    """How often such a panel is right, from many calls."""
    calls = simulated(accuracies, 5_000, seed=7, **options)  # type: ignore[arg-type]
    return sum(call.rating or 0 for call in calls) / len(calls)
