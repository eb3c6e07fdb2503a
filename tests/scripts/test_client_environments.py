"""What scripts/client_environments.py makes of a report, and what it does about an environment that cannot be made."""

from __future__ import annotations

import re
from pathlib import Path

from scripts.client_environments import PINS, table

ROOT = Path(__file__).parents[2]


def test_the_table_has_one_line_for_each_client():
    """POST is not repeated; other methods are named."""
    row = {"client": "a", "version": "1", "endpoints": ["GET /v1/models", "POST /v1/messages"], "wires": ["openai"]}
    lines = table([{**row, "calls": 3, "checks": 2, "passed": 1}]).splitlines()
    assert lines[2:] == ["| a | 1 | `GET /v1/models`, `/v1/messages` | openai | 3 | 1 of 2 |"]


def test_every_environment_a_client_names_has_pins():
    """`project` is this one."""
    programs = [*ROOT.glob("tests/clients/on_python/*.py"), *ROOT.glob("tests/clients/on_node/[a-z]*.mjs")]
    named = {re.findall(r"environment: ([\w-]+)", path.read_text())[0] for path in programs}
    assert named - {"project"} | {"browser"} == {path.stem for path in PINS.glob("*.txt")} | {"node"}


def test_pins_are_exact_and_name_no_registry():
    """Python's have hashes, npm's integrity."""
    for path in PINS.glob("*.txt"):
        text = path.read_text()
        assert text.count("==") > 0 and "--hash=sha256:" in text and "://" not in text
    lock = (PINS / "node" / "package-lock.json").read_text()
    assert '"resolved"' not in lock and '"integrity"' in lock
