"""docs/prompts.md: its snippets run against a real server, and its tables match the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.config.prompt_file import read_prompts
from proxy.prompts.checked import MAX_OPTIONS
from proxy.prompts.presets import MAX_MESSAGES
from proxy.prompts.templates import MAX_BYTES, MAX_VARIABLES
from proxy.server.api.prompt_bodies import check_usable
from proxy.server.api.prompt_operations import PROMPTS
from proxy.server.api.prompt_steps import MAX_FILE
from proxy.storage.prompt_rows import MAX_PROMPTS, MAX_VERSIONS
from tests.serving import spawned, write_files
from tests.upstream import spawn
from tests.upstream.modes import says

PAGE = (Path(__file__).parents[2] / "docs" / "prompts.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
ANSWER = '{"name": "Mug", "price": 4}'
PRINTED = [
    [ANSWER] * 3,
    [ANSWER, "2 Summarize in {words} words: {text}", "In at most 5 words, what does this say? ..."],
]


@pytest.mark.slow
def test_the_snippets_run(tmp_path: Path) -> None:
    """In their order, against one server."""
    codes = [code for kind, code in BLOCKS if kind == "python"]
    (commands,) = [code for kind, code in BLOCKS if kind == "bash"]
    with spawn() as upstream, spawned(write_files(tmp_path, upstream.url)) as server:
        upstream.set_modes({"ok": says(ANSWER)})
        address = server.base_url.removesuffix("/v1")
        for code, printed in zip(codes, PRINTED, strict=True):
            code = code.replace("http://127.0.0.1:8000", address)
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
            assert (done.stdout.splitlines(), done.stderr) == (printed, "")
        script = commands.replace("http://127.0.0.1:8000", address).replace("curl ", "curl -sS --fail-with-body ")
        done = subprocess.run(["bash", "-e", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"variables_removed":["tone"]' in done.stdout
    assert done.stdout.endswith('"archived_at":null}')
    assert '"labels":{"production":2,"staging":2}' in done.stdout


def test_the_file_is_one_that_import_reads() -> None:
    """As the server reads it."""
    (file,) = [code for kind, code in BLOCKS if kind == "yaml"]
    found = {each.id: each for each in read_prompts(file.encode(), "file", check_usable)}
    assert {name: each.labels for name, each in found.items()} == {
        "short": {"production": 0},
        "long": {"production": 0, "staging": 1},
    }
    assert found["long"].versions[1].variables == ("audience", "topic")


def test_every_route_is_on_the_page() -> None:
    """Those of the OpenAPI document."""
    named = {(method, path.replace("/v1", "", 1)) for method, path in re.findall(r"`([A-Z]+) (/v1/prompts\S*)`", PAGE)}
    served = {(method, path.replace("prompt_id", "id")) for method, path in PROMPTS}
    assert named == served - {("POST", "/prompts/{id}/versions"), ("POST", "/prompts/{id}/restore")}


def test_the_limits_are_on_the_page() -> None:
    """As the code has them."""
    table = PAGE.partition("## Limits")[2]
    for row in (
        f"| texts of one version | {MAX_BYTES // 1024} kB |",
        f"| variables of one version | {MAX_VARIABLES} |",
        f"| messages of one version | {MAX_MESSAGES} |",
        f"| parameters, tools and response format, each as JSON | {MAX_OPTIONS // 1024} kB |",
        f"| a file | {MAX_FILE // 1_000_000} MB |",
        f"| prompts; versions of each | {MAX_PROMPTS:,}; {MAX_VERSIONS:,} |",
    ):
        assert row in table, row
