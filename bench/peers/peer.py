"""Translates: what most of the other gateways have in common."""

from __future__ import annotations

from collections.abc import Set

from bench.cases import EACH, FEW, LONG, MANY, ONE, PACED, PICTURE, WHOLE, Case
from bench.load import Target
from bench.process import Measured

OPENAI_SHAPED = frozenset(case.name for case in (WHOLE, FEW, EACH, MANY, ONE, LONG, PICTURE, PACED))


class Peer:
    """Which cases it is measured in, and with what share of their requests."""

    name: str
    share = 1.0
    cases: Set[str] = OPENAI_SHAPED

    def serves(self, case: Case) -> bool:
        return not case.ours and case.name in self.cases


class RunningPeer:
    """It serves, and keeps no ledger that could be compared."""

    def __init__(self, process: Measured, target: Target) -> None:
        self.process = process
        self.target = target

    def check(self, answers: int) -> None:
        """Nothing to compare."""
