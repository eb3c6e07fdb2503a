"""Runs the snippets of docs/embeddings.md against a real server, with the fake upstream in place of the providers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.providers import PROVIDERS
from proxy.server.formats.embeddings import MAX_INPUTS
from tests.serving import Spawned, spawned, write_files
from tests.upstream import spawn

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "embeddings.md").read_text()
BLOCKS = dict(re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  openai: {{type: openai, base_url: "{upstream}", allow_private: true, price: null}}
  cohere: {{type: cohere, base_url: "{upstream}", api_key_env: null, allow_private: true, price: null}}
"""
PRICING = """
version: 1
models:
  openai/*: {input: 0.02}
  cohere/*: {input: 0, per_search: 0.002, max_searches: 100}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spawned]:
    with spawn() as upstream:
        upstream.set_modes({"text-embedding-3-small": "ok", "rerank-v3.5": "ok"})
        with spawned(write_files(tmp_path_factory.mktemp("page"), upstream.url, ROUTING, PRICING)) as running:
            yield running


def run(command: list[str], text: str, server: Spawned) -> str:
    text = text.replace("http://127.0.0.1:8000/v1", server.base_url)
    done = subprocess.run([*command, text], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_python_snippet_runs_with_the_unmodified_sdk(server: Spawned) -> None:
    """It prints one vector per text, and the cost."""
    lines = run([sys.executable, "-c"], BLOCKS["python"], server).splitlines()
    assert lines == ["0 4", "1 4", "openai/text-embedding-3-small 6 tokens, 1.2e-07 USD"]


@pytest.mark.slow
def test_the_shell_snippet_runs(server: Spawned) -> None:
    """It returns the best document with its text."""
    answer = json.loads(run(["bash", "-c"], BLOCKS["bash"], server))
    assert answer["model"] == "cohere/rerank-v3.5"
    assert [(each["index"], each["document"]) for each in answer["results"]] == [(1, {"text": "the red fox"})]
    assert answer["meta"]["billed_units"] == {"search_units": 1}
    assert answer["usage"]["cost"] == pytest.approx(0.002)


def test_the_facts_on_the_page_match_the_code() -> None:
    """The input limit is the code's, and the models belong to existing providers."""
    assert f"at most {MAX_INPUTS} texts" in PAGE
    assert set(re.findall(r'"?model"?[=:] ?"(\w+)/', PAGE)) <= PROVIDERS.keys()
