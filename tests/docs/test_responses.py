"""Runs the snippet of docs/responses.md against a real server, with the fake upstream in place of the provider."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.config import Source, configure
from proxy.server.formats.responses import RESPONSES
from tests.serving import spawned, write_files
from tests.upstream import spawn

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "responses.md").read_text()
BLOCKS = dict(re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  anthropic: {{type: anthropic, base_url: "{upstream}", api_key_env: null, allow_private: true, price: null}}
"""
PRICING = """
version: 1
models:
  anthropic/*: {input: 2, output: 10, max_output: 4096}
"""


@pytest.mark.slow
def test_the_python_snippet_runs_with_the_unmodified_sdk(tmp_path: Path) -> None:
    """It calls the tool, goes on with its result, and prints the answer and the cost."""
    with spawn() as upstream:
        upstream.set_modes({"claude-sonnet-5-5": "actor"})
        with spawned(write_files(tmp_path, upstream.url, ROUTING, PRICING)) as server:
            text = BLOCKS["python"].replace("http://127.0.0.1:8000/v1", server.base_url)
            done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The tools say: 12:00")
    assert done.stdout.endswith(" USD\n")


def test_the_aliases_load() -> None:
    """Beside the shipped file's own."""
    text = "version: 1\nproviders:\n  openai: {api_key_env: null}\n" + BLOCKS["yaml"]
    prices = Source("pricing.yaml", b"version: 1\nmodels: {openai/gpt-6-sol: {input: 1, output: 2}}\n")
    assert configure(Source("routing_rules.yaml", text.encode()), prices, {}).aliases["gpt-6-luna"] == "auto:cost"


def test_the_page_names_the_paths_of_the_code() -> None:
    """And says which fields are refused."""
    assert f"`POST {RESPONSES.paths[0]}`" in PAGE
