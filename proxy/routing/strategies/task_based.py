"""Translates: candidates -> the order of the file. What suits a task is written in `rules:` and `tasks:`."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.routing.decision import Candidate
from proxy.routing.facts import Facts
from proxy.routing.health import State


def rank(candidates: Sequence[Candidate], facts: Facts, state: State) -> list[Candidate]:
    """The candidates as they are."""
    return list(candidates)
