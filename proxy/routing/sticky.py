"""Translates: a conversation and the warm prompt caches -> the deployment that it stays on.

A vendor reads the beginning of a prompt that it has seen before from its cache, at a fraction of the price. A
conversation that moves pays for its whole history again.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from proxy.routing.decision import Candidate, Decision
from proxy.routing.facts import Facts
from proxy.routing.health import State
from proxy.routing.settings import Sticky


def keep_warm(ranked: Sequence[Candidate], facts: Facts, state: State, sticky: Sticky) -> list[Candidate]:
    """The candidates with the warm one first, unless moving to the best one is cheaper.

    It moves if the best one costs less than `max_switch_cost_ratio` of what the warm one costs at its cached rate. A
    candidate that is incapable, rejected or resting is not among `ranked`. An unknown price never moves a conversation.
    """
    where = warm_at(ranked, facts, state)
    if where is None or _is_cheaper(ranked[0], ranked[where], sticky.max_switch_cost_ratio):
        return list(ranked)
    return [ranked[where], *ranked[:where], *ranked[where + 1 :]]


def warm_at(ranked: Sequence[Candidate], facts: Facts, state: State) -> int | None:
    """The position of the candidate that has this conversation in its cache."""
    warm = state.warm.get(facts.session) if facts.session else None
    if warm is None:
        return None
    return next((place for place, each in enumerate(ranked) if each.deployment.name == warm[0]), None)


def _is_cheaper(best: Candidate, warm: Candidate, ratio: float) -> bool:
    return best.cost_nano is not None and warm.cost_nano is not None and best.cost_nano < warm.cost_nano * ratio


def is_home(decision: Decision, name: str) -> bool:
    """True if every worker would choose this deployment for the conversation if it were warm nowhere."""
    first = decision.route.candidates[0]
    return name == first.name and decision.is_shared and not any(each.rests for each in decision.candidates)


def rendezvous(session: str, name: str) -> bytes:
    """Orders equal candidates for one session: the lowest wins. Every worker computes the same order, and if one
    candidate disappears, only its own sessions move.
    """
    return blake2b(f"{session}\0{name}".encode("utf-8", "surrogatepass"), digest_size=8).digest()


def draw(session: str, seed: float) -> float:
    """The draw in [0, 1) among `weighted` names: the same for all turns of a conversation, on every worker."""
    return int.from_bytes(rendezvous(session, "")[:6]) / 2**48 if session else seed
