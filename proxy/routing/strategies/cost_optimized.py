"""Translates: candidates -> the cheapest for this request first; a warm conversation counts at its cached rate."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.routing.decision import Candidate
from proxy.routing.facts import Facts
from proxy.routing.health import State
from proxy.routing.strategies.base import Key, by_key


def rank(candidates: Sequence[Candidate], facts: Facts, state: State) -> list[Candidate]:
    """By expected cost; if equal, the better one. An unknown price comes last."""
    return by_key(candidates, facts.session, _key)


def _key(candidate: Candidate) -> Key | None:
    if candidate.cost_nano is None:
        return None
    price = candidate.deployment.price
    return candidate.cost_nano, -(price.quality or 0.0) if price is not None else 0.0
