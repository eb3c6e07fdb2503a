"""Performs I/O: shows the progress of a long command on standard error, only on a terminal, and clears it at
the end.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TypeVar

import click

_AGAIN_S = 0.1
_Item = TypeVar("_Item")


class Progress:
    """One line, `what: 1,500 of 10,000`, rewritten at most ten times a second."""

    def __init__(self, what: str, total: int | None = None) -> None:
        self._what = what
        self._of = "" if total is None else f" of {total:,}"
        self._is_shown = sys.stderr.isatty()
        self._count = 0
        self._next = 0.0
        self._width = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._show("")

    def add(self, count: int = 1) -> None:
        self._count += count
        if self._is_shown and time.monotonic() >= self._next:
            self._show(f"{self._what}: {self._count:,}{self._of}")
            self._next = time.monotonic() + _AGAIN_S

    def _show(self, text: str) -> None:
        if self._is_shown and (text or self._width):
            click.echo(f"\r{' ' * self._width}\r{text}", nl=False, err=True)
            self._width = len(text)


class Counted(list[_Item]):
    """A list that reports progress as it is iterated."""

    progress: Progress

    def __iter__(self) -> Iterator[_Item]:
        for item in super().__iter__():
            yield item
            self.progress.add()
