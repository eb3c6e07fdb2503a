"""Labelled pairs of instructions and assets: which site and which task a person would choose."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

HERE = Path(__file__).parent


class Pair(Struct, frozen=True):
    """`expected`: `site/task`; None: no site fits."""

    instructions: str
    assets: list[str]
    expected: str | None


def read_pairs(name: str) -> list[Pair]:
    lines = (HERE / f"{name}.tsv").read_text().splitlines()
    fields = [line.split("\t") for line in lines if not line.startswith("#")]
    return [Pair(text, assets.split(), None if label == "-" else label) for text, assets, label in fields]
