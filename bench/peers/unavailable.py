"""Translates: a gateway that is not to be had as an ordinary package into a reason on the page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.cases import Case
from bench.process import NotServed
from bench.trials import Running


class Unavailable:
    """It has a line with the reason, so that nobody looks for its figures."""

    share = 1.0

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self._reason = reason

    def serves(self, case: Case) -> bool:
        return False

    @contextmanager
    def serving(self, folder: Path, upstream_url: str, cores: set[int]) -> Iterator[Running]:
        raise NotServed(self._reason)
        yield
