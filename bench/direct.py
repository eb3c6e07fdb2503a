"""Translates: no gateway at all: requests go to the upstream itself. What is added is measured against this."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.cases import Case
from bench.load import Target
from bench.peers.peer import OPENAI_SHAPED

NAME = "no gateway"


class Direct:
    """It takes no time of any processor and no memory."""

    name = NAME
    share = 1.0

    def __init__(self) -> None:
        self.process = self

    def serves(self, case: Case) -> bool:
        return not case.ours and case.name in OPENAI_SHAPED

    @contextmanager
    def serving(self, folder: Path, upstream_url: str, cores: set[int]) -> Iterator[Direct]:
        self.target = Target(int(upstream_url.split(":")[2].split("/")[0]))
        yield self

    def cpu_s(self) -> float:
        return 0.0

    def memory_mb(self) -> float:
        return 0.0

    def check(self, answers: int) -> None:
        """Nothing to compare."""
