"""The map of the layers in pyproject.toml is enforced, not only drawn."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

FORBIDDEN = """
import aiohttp
import litestar
import sqlite3
from ruamel.yaml import YAML
import proxy.storage
"""


def test_every_contract_fires(tmp_path):
    """In a copy, a low module imports what it may not, and a module has no place: each contract breaks."""
    shutil.copytree(ROOT / "proxy", tmp_path / "proxy", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "proxy" / "schema" / "sse.py").open("a") as file:
        file.write(FORBIDDEN)
    with (tmp_path / "proxy" / "providers" / "google" / "wire.py").open("a") as file:
        file.write("import proxy.providers.cohere\n")
    (tmp_path / "proxy" / "unplaced.py").touch()
    lint = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    done = subprocess.run(
        [sys.executable, "-c", lint, "--no-cache", "--no-logo"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Contracts: 0 kept, 6 broken." in done.stdout
    for finding in (
        "proxy.schema.sse -> aiohttp",
        "proxy.schema.sse -> proxy.storage",
        "- proxy.unplaced",
        "proxy.providers.google.wire -> proxy.providers.cohere",
    ):
        assert finding in done.stdout
