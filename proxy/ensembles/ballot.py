"""Values: the count of a vote: the different answers, the heaviest one, and whether the result is settled.

Nothing depends on the order of the members. Of equal answers the heavier ones come first, then a hash decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import fsum

from msgspec import Struct

from proxy.ensembles.base import Reply
from proxy.ensembles.votes import Vote, digest

MARGIN = 0.005  # this far below `min_agreement` still counts: two of three are 0.667, and people write 0.67


class Ballot(Struct, frozen=True):
    """One member's vote. `source` is equal for members whose answers come from the same deployment."""

    reply: Reply
    vote: Vote
    source: int = 0

    @property
    def weight(self) -> float:
        return self.reply.seat.weight if self.reply.seat is not None else 1.0


class Cluster(Struct, frozen=True):
    """Members that gave the same answer."""

    key: str
    ballots: tuple[Ballot, ...]
    weight: float

    @property
    def sources(self) -> int:
        """The number of deployments that gave it."""
        return len({ballot.source for ballot in self.ballots})

    @property
    def best(self) -> Ballot:
        """The ballot whose wording is used: the wording with the most weight; ties go by a hash."""
        words: dict[str, list[Ballot]] = {}
        for ballot in self.ballots:
            words.setdefault(ballot.vote.exact, []).append(ballot)
        chosen = min(words.values(), key=lambda same: (-weight_of(same), digest(same[0].vote.exact)))
        return min(chosen, key=lambda ballot: (-ballot.weight, digest("".join(ballot.reply.deployments))))


class Count(Struct, frozen=True):
    """All answers, the winner first."""

    clusters: tuple[Cluster, ...]

    @property
    def total(self) -> float:
        return round(fsum(cluster.weight for cluster in self.clusters), 9)

    @property
    def leaders(self) -> tuple[Cluster, ...]:
        """The heaviest answers: several in a tie."""
        return tuple(each for each in self.clusters if each.weight == self.clusters[0].weight)

    def share(self, cluster: Cluster) -> float:
        return cluster.weight / self.total if self.total else 0.0

    def labels(self) -> dict[str, str]:
        """Key of an answer -> its label in reports. Different answers have different labels."""
        taken: dict[str, str] = {}
        for cluster in self.clusters:
            label = cluster.best.vote.label
            taken[cluster.key] = f"{label} #{digest(cluster.key)[:6]}" if label in taken.values() else label
        return taken


def count(ballots: Sequence[Ballot], *, by_source: bool = False, merged: Mapping[str, str] | None = None) -> Count:
    """Counts the ballots. `by_source`: in each answer a deployment counts once, however many members it answered for.
    `merged`: key of an answer -> the common key of all answers that mean the same.
    """
    groups: dict[str, list[Ballot]] = {}
    for ballot in ballots:
        key = ballot.vote.key
        groups.setdefault((merged or {}).get(key, key), []).append(ballot)
    clusters = [
        Cluster(key, tuple(group), _weight_by_source(group) if by_source else weight_of(group))
        for key, group in groups.items()
    ]
    return Count(tuple(sorted(clusters, key=lambda each: (-each.weight, digest(each.key)))))


def weight_of(ballots: Iterable[Ballot]) -> float:
    """The total weight. It does not depend on the order of the ballots."""
    return round(fsum(ballot.weight for ballot in ballots), 9)


def with_sources(ballots: Sequence[Ballot]) -> list[Ballot]:
    """The ballots with their sources: members that have a deployment in common are one source."""
    names = [set(ballot.reply.deployments) or _first_deployment(ballot.reply) for ballot in ballots]
    source = list(range(len(ballots)))
    for here in range(len(ballots)):
        for there in range(here):
            if names[here] & names[there] and source[here] != source[there]:
                old, new = source[here], source[there]
                source = [new if each == old else each for each in source]
    return [Ballot(ballot.reply, ballot.vote, source[place]) for place, ballot in enumerate(ballots)]


class Rule(Struct, frozen=True):
    """When a vote is agreed, and when it is settled. `sources`: the number of deployments that an agreement needs.
    `may_merge`: different answers may still turn out to say the same, or to agree in parts. Without agreement, the
    winner matters if `needs_winner`, and all answers if `needs_all`: a judge chooses among them.
    """

    min_agreement: float
    sources: int = 1
    may_merge: bool = False
    needs_winner: bool = True
    needs_all: bool = False

    def agrees(self, found: Count) -> bool:
        """True if one answer alone has the required share."""
        if len(found.leaders) != 1:
            return False
        return found.leaders[0].sources >= self.sources and self.reaches(found.share(found.leaders[0]))

    def reaches(self, share: float) -> bool:
        return share >= self.min_agreement - MARGIN - 1e-9

    def is_settled(self, found: Count, pending: float) -> bool:
        """True if the members that have not answered, with this total weight, cannot change anything that matters."""
        if not found.clusters:
            return False
        lead, whole = found.clusters[0], found.total + pending
        others = found.total - lead.weight if self.may_merge else _second(found)
        is_won = lead.weight > others + pending + 1e-9
        if is_won and lead.sources >= self.sources and self.reaches(lead.weight / whole):
            return True
        if self.may_merge or self.needs_all:
            return False
        is_hopeless = not self.reaches((lead.weight + pending) / whole)
        return is_hopeless and (is_won or not self.needs_winner)


def _second(found: Count) -> float:
    return found.clusters[1].weight if len(found.clusters) > 1 else 0.0


def _first_deployment(reply: Reply) -> set[str]:
    return {reply.seat.deployment} - {""} if reply.seat is not None else set()


def _weight_by_source(ballots: Sequence[Ballot]) -> float:
    heaviest: dict[int, float] = {}
    for ballot in ballots:
        heaviest[ballot.source] = max(ballot.weight, heaviest.get(ballot.source, 0.0))
    return round(fsum(heaviest.values()), 9)
