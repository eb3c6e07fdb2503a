"""Runs the snippets of docs/messages.md against a real server, and compares its facts with the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from proxy.server.api.replies import HEADERS_AFTER_S, PING_S
from proxy.server.formats.messages.conversation import MARK
from proxy.server.formats.messages.request import MAX_USER, PASSED
from proxy.server.formats.messages.tools import Translated, add_thinking
from tests.serving import ROUTING, spawned, write_files
from tests.upstream import spawn

PAGE = (Path(__file__).parents[2] / "docs" / "messages.md").read_text()
BLOCKS = dict(re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))


@pytest.mark.slow
def test_the_python_snippet_runs_with_the_unmodified_sdk(tmp_path: Path) -> None:
    """It prints the answer of the model that `auto` picks."""
    with spawn() as upstream, spawned(write_files(tmp_path, upstream.url, ROUTING)) as server:
        text = BLOCKS["python"].replace("http://127.0.0.1:8000", server.base_url.removesuffix("/v1"))
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("tok9 10 tokens\n")


def test_the_variables_of_claude_code_are_set() -> None:
    """The shell reads them, and the key is the server's."""
    command = [*("bash", "-c"), BLOCKS["bash"] + "env"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True, env={**os.environ, "PROXY_API_KEY": "k"}
    )
    assert "ANTHROPIC_BASE_URL=http://127.0.0.1:8000\n" in done.stdout
    assert "ANTHROPIC_AUTH_TOKEN=k\n" in done.stdout


def test_the_alias_begins_as_claude_code_wants_it() -> None:
    """Its list leaves out other names."""
    (name,) = YAML(typ="safe").load(BLOCKS["yaml"])["aliases"]
    assert name.startswith("claude")


def test_the_facts_on_the_page_match_the_code() -> None:
    """Headers, efforts, times and limits."""
    assert all(f"`{name}`" in PAGE for name in PASSED)
    assert f"`{MARK}`" in PAGE
    text = " ".join(PAGE.split())
    assert f"more than {MAX_USER} characters" in text
    assert f"after {HEADERS_AFTER_S:g} s and then every {PING_S} s" in text
    said = re.findall(r"(?:budget of |, )(\d+) (?:tokens )?`(\w+)`", text)
    assert len(said) == 5
    for budget, effort in said:
        found = Translated()
        add_thinking(found, {"type": "enabled", "budget_tokens": int(budget)}, {})
        assert found.fields["reasoning_effort"] == effort
