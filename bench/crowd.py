"""Translates: how often members are right, and how often they err together, into answers, and into what theory expects.

A question has `options` answers. A member is right with its accuracy; a wrong one picks any wrong option. With
probability `shared` a member follows a draw that it has in common with others who do so too: then weaker members are
wrong wherever stronger ones are, and with the same answer.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise, product

from msgspec import Struct

RIGHT = 0  # the option that is correct; the others are 1, 2...
Answers = tuple[int, ...]


class Crowd(Struct, frozen=True):
    """Members by their accuracy."""

    accuracies: tuple[float, ...]
    options: int = 4
    shared: float = 0.0

    def answers(self, dice: random.Random) -> Answers:
        """What each member says to one question."""
        common, wrong = dice.random(), dice.randrange(1, self.options)
        found = []
        for accuracy in self.accuracies:
            follows, own, own_wrong = dice.random() < self.shared, dice.random(), dice.randrange(1, self.options)
            draw, mistake = (common, wrong) if follows else (own, own_wrong)
            found.append(RIGHT if draw < accuracy else mistake)
        return tuple(found)

    def outcomes(self) -> Mapping[Answers, float]:
        """The exact probability of each combination of answers."""
        found: defaultdict[Answers, float] = defaultdict(float)
        for follows in product((False, True), repeat=len(self.accuracies)):
            chance = 1.0
            for each in follows:
                chance *= self.shared if each else 1 - self.shared
            if chance:
                for answers, likely in self._given(follows):
                    found[answers] += chance * likely
        return found

    def _given(self, follows: Sequence[bool]) -> Iterator[tuple[Answers, float]]:
        """The outcomes when these members follow the common draw."""
        edges = sorted({0.0, 1.0, *self.accuracies})
        wrong = range(1, self.options)
        for (low, high), mistake in product(pairwise(edges), wrong):
            each = []
            for accuracy, follow in zip(self.accuracies, follows, strict=True):
                if follow:
                    each.append([(RIGHT if low < accuracy else mistake, 1.0)])
                else:
                    each.append([(RIGHT, accuracy), *((option, (1 - accuracy) / len(wrong)) for option in wrong)])
            for combination in product(*each):
                likely = (high - low) / len(wrong)
                for _, chance in combination:
                    likely *= chance
                yield tuple(option for option, _ in combination), likely


def expected(crowd: Crowd, value: Callable[[Answers], float]) -> float:
    """The mean of a value over all outcomes."""
    return sum(likely * value(answers) for answers, likely in crowd.outcomes().items())


def plurality(answers: Answers) -> float:
    """The chance that a plain vote is right: of equally frequent answers each wins as often as the others."""
    counts = [answers.count(option) for option in range(max(answers) + 1)]
    leaders = [option for option, votes in enumerate(counts) if votes == max(counts)]
    return 1 / len(leaders) if RIGHT in leaders else 0.0


def disagree(answers: Answers) -> float:
    """Whether the members of a cascade disagree; the last answer is the strong model's."""
    return float(len({*answers[:-1]}) > 1)


def cascade(answers: Answers) -> float:
    """Whether a cascade is right."""
    return float((answers[-1] if disagree(answers) else answers[0]) == RIGHT)
