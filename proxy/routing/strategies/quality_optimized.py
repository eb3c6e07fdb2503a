"""Translates: candidates -> the best by `quality` in pricing.yaml first."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.routing.decision import Candidate
from proxy.routing.facts import Facts
from proxy.routing.health import State
from proxy.routing.strategies.base import Key, by_key


def rank(candidates: Sequence[Candidate], facts: Facts, state: State) -> list[Candidate]:
    """By quality; if equal, the cheaper one. An unknown quality comes last."""
    return by_key(candidates, facts.session, _key)


def _key(candidate: Candidate) -> Key | None:
    price = candidate.deployment.price
    if price is None or price.quality is None:
        return None
    return -price.quality, float("inf") if candidate.cost_nano is None else candidate.cost_nano
