"""Runs the snippet of docs/completions.md against a real server, with the fake upstream in place of the providers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.server.formats.chat import MAX_CHOICES
from proxy.server.formats.completions import OF_CHATS, CompletionBody
from tests.serving import spawned, write_files
from tests.upstream import spawn

PAGE = (Path(__file__).parents[2] / "docs" / "completions.md").read_text()
BLOCKS = dict(re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))


@pytest.mark.slow
def test_the_snippet_runs_with_the_unmodified_sdk(tmp_path: Path) -> None:
    """Whole and streamed."""
    with spawn() as upstream, spawned(write_files(tmp_path, upstream.url)) as server:
        code = BLOCKS["python"].replace("http://127.0.0.1:8000/v1", server.base_url)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    ten = " ".join(f"tok{place}" for place in range(10))
    assert (done.stdout.splitlines(), done.stderr) == ([f"{ten} 13 tokens", ten], "")


def test_the_facts_on_the_page_match_the_code() -> None:
    """The limit is the code's, and what is refused is what the code refuses."""
    assert f"at most {MAX_CHOICES}" in PAGE
    (refused,) = re.findall(r"So do (.*?) and\s+the other fields", PAGE, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", refused)) <= set(OF_CHATS)
    assert {"echo", "suffix", "logprobs", "best_of"} <= set(CompletionBody.__struct_fields__)
