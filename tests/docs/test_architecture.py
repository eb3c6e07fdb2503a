"""docs/architecture.md is true: its drawing matches the folders and the layers, and the modules it names exist."""

from __future__ import annotations

import re
import tomllib
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "proxy"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
(LAYERS,) = [contract["layers"] for contract in CONTRACTS if contract.get("containers") == ["proxy"]]


def floors(drawing: str) -> list[list[str]]:
    """The rooms on each floor, from the top down: the first word of each cell, in the first line below a border."""
    lines = drawing.splitlines()
    tops = [below for border, below in pairwise(lines) if border[0] in "┌├" and below[0] == "│"]
    return [[cell.split()[0] for cell in line.strip("│").split("│")] for line in tops]


def drawn() -> list[list[str]]:
    block = r"^<!-- rooms: begin -->\n```\n(.*?)^```\n<!-- rooms: end -->"
    (drawing,) = re.findall(block, PAGE, re.DOTALL | re.MULTILINE)
    return floors(drawing)


def folders() -> set[str]:
    """The rooms that exist: packages and modules at the root of `proxy`."""
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    return packages | {path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"}


def test_the_drawing_has_the_layers_of_the_import_linter() -> None:
    """Floor by floor, siblings in the same order."""
    assert drawn() == [layer.split(" | ") for layer in LAYERS]


def test_the_drawing_has_exactly_the_rooms_that_exist() -> None:
    """Rooms in brackets are the ones that do not exist yet."""
    names = [name for floor in drawn() for name in floor]
    assert {name for name in names if not name.startswith("(")} == folders()
    assert {name.strip("()") for name in names if name.startswith("(")}.isdisjoint(folders())


def test_the_lines_of_the_drawing_are_equally_long() -> None:
    """So that the right side of the box is straight."""
    lines = PAGE.partition("<!-- rooms: begin -->\n```\n")[2].partition("```")[0].splitlines()
    assert {len(line) for line in lines} == {len(lines[0])}


def test_the_modules_on_the_page_exist() -> None:
    """Every path that begins with a room, in the drawings and in the text."""
    rooms = "|".join(sorted(folders()))
    paths = set(re.findall(rf"(?<![\w/.])(?:{rooms})/[\w/]+(?:\.py)?", PAGE))
    assert len(paths) >= 10
    missing = [p for p in paths if not (PACKAGE / p).exists() and not (PACKAGE / f"{p}.py").exists()]
    assert sorted(missing) == []
