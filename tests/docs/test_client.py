"""Runs the snippets of docs/client.md and the programs in examples/, with the fake upstream in place of all vendors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from inspect import signature
from pathlib import Path

import pytest

from proxy import APISettings, MultiModelAPI, SyncMultiModelAPI
from proxy.client import errors
from proxy.client.asking import AskOptions, EnsembleOptions
from proxy.client.older_names import RULES
from proxy.client.sending import MOST_WAIT_S
from tests.serving import Spawned, spawned, write_files
from tests.upstream import spawn
from tests.upstream.modes import says

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "client.md").read_text()
SERVED, ALONE, STRATEGIES, SETTINGS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
ASKING = [path for path in EXAMPLES if "BASE_URL" in path.read_text()]
VENDORS = ("openai", "groq", "google", "anthropic")
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
""" + "".join(
    f'  {name}: {{{{type: openai, base_url: "{{upstream}}", allow_private: true, price: null}}}}\n' for name in VENDORS
)
ROUTING += """
aliases: {{claude-3-5-sonnet: anthropic/claude-sonnet-5-5, gpt-4o-mini: openai/gpt-4o-mini}}
router: {{default_model: openai/gpt-6-luna}}
"""
MODES = {
    "gpt-4o-mini": says("$49.99"),
    "gpt-6-luna": "actor",
    "gpt-oss-20b": "actor",
    "openai/gpt-oss-20b": "actor",
    "claude-sonnet-5-5": says("1, 2, 3"),
    "claude-haiku-5-5": says('{"correct": true, "complete": true, "confidence": 0.9, "issues": []}'),
    "gemini-3.5-flash-lite": "ok",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spawned]:
    with spawn() as upstream:
        upstream.set_modes(MODES)
        with spawned(write_files(tmp_path_factory.mktemp("page"), upstream.url, ROUTING)) as running:
            yield running


def run(program: list[str], folder: Path, **environ: str) -> list[str]:
    """The lines that a program prints, in a folder of its own; it prints nothing on standard error."""
    clean = {name: value for name, value in os.environ.items() if not re.search(r"_API_KEY$|^PROXY_", name)}
    command = [sys.executable, "-X", "dev", "-W", "error", *program]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**clean, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]  # a busy machine
    assert (done.returncode, said) == (0, []), done.stderr
    return done.stdout.splitlines()


def at(server: Spawned, text: str) -> str:
    return text.replace("http://localhost:8000", f"http://127.0.0.1:{server.port}")


@pytest.mark.slow
def test_the_snippet_with_a_server_runs(server: Spawned, tmp_path: Path) -> None:
    lines = run(["-c", at(server, SERVED)], tmp_path)
    assert lines[0].startswith("$49.99 openai/gpt-4o-mini ")
    assert lines[1].endswith("None") and lines[2].startswith("1, 2, 3")


@pytest.mark.slow
def test_the_snippet_on_ensembles_runs(server: Spawned, tmp_path: Path) -> None:
    vote, ranking, chosen = run(["-c", at(server, STRATEGIES)], tmp_path)
    assert vote.startswith("ok, I read 1 0.66") and ranking.startswith("[('") and "/" in chosen


def test_the_snippet_on_settings_runs(tmp_path: Path) -> None:
    (shown,) = run(["-c", SETTINGS], tmp_path)
    assert "sk-..." not in shown and "'api_key': '***'" in shown
    assert "sk-..." not in (tmp_path / "routing_rules.yaml").read_text()


@pytest.mark.embedded
def test_the_snippet_without_a_server_runs(tmp_path: Path) -> None:
    """Without any key the bundled model answers, for nothing."""
    *_, cost = run(["-c", ALONE], tmp_path)
    assert cost == "0.0"


# --- examples ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("path", ASKING, ids=lambda path: path.stem)
def test_the_examples_with_a_server_run(server: Spawned, path: Path, tmp_path: Path) -> None:
    lines = run([str(path)], tmp_path, PROXY_BASE_URL=f"http://127.0.0.1:{server.port}")
    assert lines and "no answer" not in "".join(lines)


@pytest.mark.embedded
def test_the_example_without_a_server_runs(tmp_path: Path) -> None:
    (path,) = [path for path in EXAMPLES if path not in ASKING]
    lines = run([str(path)], tmp_path)
    assert lines[0].startswith("local/smollm2-135m said:") and lines[-1].endswith(" 1 calls, 0.0 USD")


def test_each_example_says_what_it_needs() -> None:
    assert len(EXAMPLES) >= 3
    for path in EXAMPLES:
        assert path.read_text().startswith('"""') and path.name[:-3].replace("_", "").isalpha()


# --- the tables -------------------------------------------------------------------------------------------------------


def table(heading: str) -> str:
    """The text below a heading, up to the next one."""
    return PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def test_every_option_is_on_the_page() -> None:
    text = table("Options")
    options = [*AskOptions.__annotations__, *EnsembleOptions.__annotations__]
    assert [name for name in options if f"`{name}`" not in text] == []


def test_every_setting_and_its_default_is_on_the_page() -> None:
    text = table("APISettings")
    fields = [name for name in APISettings.__struct_fields__ if name not in ("base", "file")]
    assert [name for name in fields if f"`{name}`" not in text] == []
    settings = APISettings()
    for name in ("alert_threshold", "max_requests_per_minute", "max_retries", "retry_delay_seconds"):
        assert f"| `{name}` | {getattr(settings, name)} |" in text
    assert f"| `default_model` | `{settings.default_model}` |" in text
    assert f"| `daily_budget_usd` | {settings.daily_budget_usd:.2f} |" in text
    assert [name for name in RULES if f"`{name}`" not in text] == []


def test_every_error_is_on_the_page_and_in_the_drawing() -> None:
    kinds = [
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.MultiModelError) and name != "AnswerError"
    ]
    assert [name for name in kinds if f"`{name}`" not in table("Errors")] == []
    assert [name for name in kinds if name not in (errors.__doc__ or "")] == []
    assert f"more than {MOST_WAIT_S:.0f} s is left" in PAGE


def test_both_classes_have_the_same_methods() -> None:
    """With the same arguments."""
    for name in ("generate", "generate_ensemble", "generate_stream", "explain", "usage", "feedback"):
        one, other = (signature(getattr(kind, name)).parameters for kind in (MultiModelAPI, SyncMultiModelAPI))
        assert [*one.values()] == [*other.values()], name
    assert signature(MultiModelAPI).parameters == signature(SyncMultiModelAPI).parameters
