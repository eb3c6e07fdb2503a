"""`proxy plan` tries another configuration on the calls in the database."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from tests.cli.commands import proxy
from tests.serving import PRICING, spawned, write_files
from tests.upstream.fake import spawn

ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
models: {{smart: fake/ok}}
router: {{default_model: smart}}
"""


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder after two calls of `smart`, with NEW.yaml beside."""
    folder = tmp_path_factory.mktemp("plan")
    with spawn() as upstream, spawned(write_files(folder, upstream.url, ROUTING)) as server:
        for _ in range(2):
            body = {"model": "smart", "messages": [{"role": "user", "content": "one two"}]}
            httpx.post(f"{server.base_url}/chat/completions", json=body, timeout=30).raise_for_status()
        server.stop()
    (folder / "NEW.yaml").write_text((folder / "routing_rules.yaml").read_text().replace("fake/ok", "fake/ok(tag=b)"))
    return folder


@pytest.mark.slow
def test_json_is_the_answer_of_the_route(used: Path) -> None:
    """No server runs."""
    done = proxy("plan", "NEW.yaml", "--json", cwd=used)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["calls"], told["changed"]) == (2, 2)
    assert told["changes"][0]["after"] == "fake/ok(tag=b)"
    assert told["from"] == json.loads(proxy("check", "--json", cwd=used).stdout)["config_version"]


@pytest.mark.slow
def test_a_table_for_people(used: Path) -> None:
    """What changes, what it costs, and who moves where."""
    lines = proxy("plan", "NEW.yaml", cwd=used).stdout.splitlines()
    assert lines[0].startswith("2 of 2 calls change their model (")
    assert lines[1].endswith("+0.000000")
    assert lines[-1].split()[0:1] + lines[-1].split()[2:5] == ["2", "fake/ok", "fake/ok(tag=b)", "smart"]


def test_other_prices_can_be_tried_too(used: Path) -> None:
    """The same file with dearer models."""
    (used / "dear.yaml").write_text(PRICING.replace("input: 2.00", "input: 20.00"))
    told = json.loads(
        proxy("plan", "routing_rules.yaml", "--new-pricing", "dear.yaml", "--calls", "1", "--json", cwd=used).stdout
    )
    assert (told["calls"], told["changed"]) == (1, 0)
    assert told["cost_usd_per_day"]["difference"] > 0


def test_calls_that_would_be_refused_are_exit_code_1(used: Path) -> None:
    """So that a pipeline stops."""
    text = (used / "routing_rules.yaml").read_text()
    (used / "gone.yaml").write_text(
        text.replace("smart: fake/ok", "dull: fake/ok").replace("model: smart", "model: dull")
    )
    done = proxy("plan", "gone.yaml", cwd=used)
    assert (done.returncode, "404 model_not_found" in done.stdout) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("none.yaml",), "no such file"),
        (("wrong.yaml",), "wrong.yaml:1:1"),
        (("NEW.yaml", "--db", "none.db"), "no database"),
        (("NEW.yaml", "--calls", "0"), "--calls"),
    ],
)
def test_what_cannot_run_is_exit_code_2(used: Path, arguments: tuple[str, ...], text: str) -> None:
    """Nothing on standard output."""
    (used / "wrong.yaml").write_text("nonsense: 1\n")
    done = proxy("plan", *arguments, "--json", cwd=used)
    assert (done.returncode, done.stdout, text in done.stderr) == (2, "", True), done
