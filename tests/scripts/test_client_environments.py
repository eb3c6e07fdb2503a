"""What scripts/client_environments.py makes of a report, and what it does about an environment that cannot be made."""

from __future__ import annotations

import re
from pathlib import Path

from scripts.client_environments import PINS, settings, summary, table

ROOT = Path(__file__).parents[2]


def test_the_table_has_one_line_for_each_client():
    """POST is not repeated; other methods are named."""
    row = {"client": "a", "version": "1", "endpoints": ["GET /v1/models", "POST /v1/messages"], "wires": ["openai"]}
    lines = table([{**row, "calls": 3, "checks": 2, "passed": 1}]).splitlines()
    assert lines[2:] == ["| a | 1 | `GET /v1/models`, `/v1/messages` | openai | 3 | 1 of 2 |"]


def test_a_client_at_two_endpoints_is_two_set_ups():
    """And each client says what a user sets."""
    row = {"client": "a", "endpoints": ["x", "y"], "calls": 3, "checks": 2, "passed": 1, "set": "`b`"}
    told = summary([row, {**row, "client": "@c", "endpoints": ["x"], "passed": 2}])
    assert told == "2 clients in 3 set-ups, 6 calls, 3 of 4 checks passed."
    assert settings([{"client": "@b", "set": "`c`"}, row]).splitlines()[2:] == ["| a | `b` |", "| @b | `c` |"]


def test_the_readme_has_the_figures_of_the_last_run():
    """They are those of docs/clients.md, which the run writes."""
    page, readme = ((ROOT / name).read_text() for name in ("docs/clients.md", "README.md"))
    clients, passed = re.findall(r"^(\d+ clients) .*calls, (\d+ of \d+ checks) passed\.$", page, re.MULTILINE)[0]
    assert f"{clients}, {passed}" in readme


def test_every_environment_a_client_names_has_pins():
    """`project` is this one."""
    programs = [*ROOT.glob("tests/clients/on_python/*.py"), *ROOT.glob("tests/clients/on_node/[a-z]*.mjs")]
    named = {re.findall(r"environment: ([\w-]+)", path.read_text())[0] for path in programs}
    locked = {path.parent.name for path in PINS.glob("*/package-lock.json")}
    assert named - {"project"} | {"browser"} == {path.stem for path in PINS.glob("*.txt")} | locked


def test_pins_are_exact_and_name_no_registry():
    """Python's have hashes, npm's integrity."""
    for path in PINS.glob("*.txt"):
        text = path.read_text()
        assert text.count("==") > 0 and "--hash=sha256:" in text and "://" not in text
    for path in PINS.glob("*/package-lock.json"):
        lock = path.read_text()
        assert '"resolved"' not in lock and '"integrity"' in lock
