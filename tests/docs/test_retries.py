"""Runs the snippet of docs/retries.md against a real server, and compares its numbers with the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.pipeline.idempotency import MAX_ANSWER_BYTES
from proxy.pipeline.sharing import FRESH_S, MAX_CACHE_S, MAX_KEY
from proxy.storage.kept_answers import AnswerLimits
from tests.serving import spawned, write_files
from tests.upstream import spawn

PAGE = (Path(__file__).parents[2] / "docs" / "retries.md").read_text()
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  openai: {{type: openai, base_url: "{upstream}", allow_private: true, price: null}}
"""


@pytest.mark.slow
def test_the_snippet_runs_with_the_unmodified_sdk_and_is_paid_once(tmp_path: Path) -> None:
    """Run again, it prints the same answer."""
    (snippet,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    with spawn() as upstream, spawned(write_files(tmp_path, upstream.url, ROUTING)) as server:
        upstream.set_modes({"gpt-6-luna": "ok"})
        text = snippet.replace("http://127.0.0.1:8000/v1", server.base_url)
        runs = [
            subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False)
            for _ in range(2)
        ]
        assert len(upstream.ledger()) == 1
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr
    assert runs[0].stdout == runs[1].stdout != ""


def test_the_numbers_are_those_of_the_code() -> None:
    """Sizes, counts and times."""
    limits = AnswerLimits()
    page = " ".join(PAGE.split())
    for text in (
        f"1 to {MAX_KEY} printable characters",
        f"more than {MAX_ANSWER_BYTES // 2**20} MB",
        f"within {FRESH_S / 60:.0f} minutes",
        f"at most {MAX_CACHE_S / 86400:.0f} days",
        f"{limits.caller_answers} answers and {limits.caller_bytes // 2**20} MB are kept",
        f"{limits.all_answers} and {limits.all_bytes // 2**20} MB in",
    ):
        assert text in page, text
