"""Every command and snippet of README, CONTRIBUTING and docs/ has a test; those without one elsewhere have it here."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import click
import pytest
from ruamel.yaml import YAML

from proxy.cli import Deferred, main
from proxy.config import Source, check, configure
from proxy.config.server import ServerConfig

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
PAGES = {
    str(page.relative_to(ROOT)): page.read_text()
    for page in sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
HERE = "docs/test_snippets.py"

# page -> language of its fenced blocks -> the test that runs them, or compares them with the code
TESTED = {
    "README.md": {"bash": "docs/test_readme.py", "python": "docs/test_readme.py"},
    "CONTRIBUTING.md": {"": HERE},
    "docs/architecture.md": {"": "docs/test_architecture.py"},
    "docs/budgets.md": dict.fromkeys(("yaml", "json"), "docs/test_budgets.py"),
    "docs/client.md": {"python": "docs/test_client.py"},
    "docs/cli.md": {"bash": "cli/test_document.py"},
    "docs/configuration.md": {"yaml": "config/test_document.py", "": HERE},
    "docs/dashboard.md": {"yaml": "docs/test_dashboard.py"},
    "docs/deployment.md": {"bash": "docs/test_deployment.py"},
    "docs/completions.md": {"python": "docs/test_completions.py"},
    "docs/embeddings.md": {"python": "docs/test_embeddings.py", "bash": "docs/test_embeddings.py"},
    "docs/ensembles.md": {"yaml": "docs/test_ensembles.py"},
    "docs/experiments.md": dict.fromkeys(("json", "python"), "docs/test_experiments.py"),
    "docs/messages.md": dict.fromkeys(("python", "bash", "yaml"), "docs/test_messages.py"),
    "docs/metering.md": dict.fromkeys(("bash", "yaml"), "docs/test_metering.py"),
    "docs/migration.md": dict.fromkeys(("", "bash", "python", "yaml"), "docs/test_migration.py"),
    "docs/operation.md": {"bash": "docs/test_operation.py", "yaml": HERE},
    "docs/performance.md": {"": HERE},
    "docs/pricing.md": {"yaml": "docs/test_pricing.py"},
    "docs/prompts.md": dict.fromkeys(("python", "bash", "yaml"), "docs/test_prompts.py"),
    "docs/quickstart.md": dict.fromkeys(("bash", "python", "yaml"), "docs/test_quickstart.py"),
    "docs/resilience.md": dict.fromkeys(("yaml", "json"), "docs/test_resilience.py"),
    "docs/responses.md": dict.fromkeys(("python", "yaml"), "docs/test_responses.py"),
    "docs/retries.md": {"python": "docs/test_retries.py"},
    "docs/routing.md": dict.fromkeys(("yaml", "python", "text", "bash"), "docs/test_routing.py"),
    "docs/security.md": dict.fromkeys(("bash", "yaml"), "docs/test_security.py"),
    "docs/sites.md": dict.fromkeys(("bash", "python", "yaml"), "docs/test_sites.py"),
    "docs/strategies.md": {"yaml": "docs/test_strategies.py"},
    "docs/telemetry.md": dict.fromkeys(("bash", "yaml"), "docs/test_telemetry.py"),
}


def blocks(page: str, language: str) -> list[str]:
    return [text for kind, text in FENCE.findall(PAGES[page]) if kind == language]


def inline_commands() -> Iterator[tuple[str, str]]:
    """Page and command, for each command inside a sentence."""
    command = re.compile(r"`((?:proxy|mmproxy|docker|pip|scripts/\w+|\.ci/run) [^`]+|scripts/\w+|\.ci/run)`")
    for page, text in PAGES.items():
        for found in command.findall(FENCE.sub("", text)):
            yield page, found


@pytest.mark.parametrize("page", PAGES)
def test_every_snippet_has_a_test(page: str) -> None:
    """A new kind of snippet needs an entry in the table, and the test that it names."""
    found = {language for language, _ in FENCE.findall(PAGES[page])}
    named = TESTED.get(page, {})
    if page == "CONTRIBUTING.md":  # the worked example of a provider has a test that reads it from the page
        example = {"python", "yaml"} & found
        readers = [path for path in TESTS.rglob("test_*.py") if "CONTRIBUTING.md" in path.read_text()]
        assert not example or any(path.name != Path(HERE).name for path in readers)
        found -= example
    assert found == set(named)
    assert [test for test in named.values() if not (TESTS / test).is_file()] == []


# --- commands inside sentences ----------------------------------------------------------------------------------------


def check_proxy(words: list[str]) -> None:
    """The command exists and has these options; words in capitals stand for a value."""
    command: click.Command = main
    while words and isinstance(command, click.Group) and words[0] in command.commands:
        found = command.commands[words.pop(0)]
        command = found.loaded() if isinstance(found, Deferred) else found
    if isinstance(command, click.Group):
        assert all(word.isupper() or word == "--help" for word in words), words
        return
    options = {name for parameter in command.params for name in parameter.opts}
    assert [word for word in words if word.startswith("-") and word not in options] == []


def check_pip(words: list[str]) -> None:
    """What it installs is a requirement of ours, or the SDK that users have."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = {f"{project['project']['name']}[{extra}]" for extra in project["project"]["optional-dependencies"]}
    groups = {name for group in project["dependency-groups"].values() for name in group}
    known = extras | groups | {"requirements.lock", ":all:", "install", "check"}
    assert [word for word in words if not word.startswith("-") and word not in known] == []
    if "-r" in words:
        assert f"-m pip {shlex.join(words)}\n" in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize(("page", "line"), sorted(set(inline_commands())))
def test_a_command_in_a_sentence_exists(page: str, line: str) -> None:
    """With its options, so that a renamed flag does not stay in the text."""
    program, *words = shlex.split(line.partition(" | ")[0])
    if program in ("proxy", "mmproxy", "scripts/proxy"):
        check_proxy(words)
    elif program == "scripts/serve":
        check_proxy(["serve", *words])
    elif program == "pip":
        check_pip(words)
    elif program == "docker":
        assert (ROOT / words[words.index("-f") + 1]).is_file(), page
    if "/" in program:
        assert os.access(ROOT / program, os.X_OK), page


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    """Also those inside a page and to a heading of another one."""
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", PAGES[page])):
        target, _, heading = link.partition("#")
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), link
        headings = (
            {anchor(title) for title in re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)} if heading else {""}
        )
        assert heading in headings, link


def anchor(title: str) -> str:
    """The anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


# --- snippets that no other test runs ---------------------------------------------------------------------------------


SCRIPTS = [text for text in blocks("CONTRIBUTING.md", "") if text.startswith("scripts/")]


@pytest.mark.parametrize("line", [line for text in SCRIPTS for line in text.splitlines()])
def test_a_command_for_contributors_is_a_script(line: str) -> None:
    """scripts/lock asks a package index, so it is not run here. Each flag is in the script's own text."""
    for part in line.partition("#")[0].split("&&"):
        program, *words = shlex.split(part)
        assert os.access(ROOT / program, os.X_OK)
        flags = [word for word in words if word.startswith("-")]
        assert [flag for flag in flags if flag not in (ROOT / program).read_text()] == []


def test_the_commands_of_the_bench_are_its_own() -> None:
    """tests/bench runs a quick round of it, and seconds of the soak; here only the flags are looked up."""
    (text,) = blocks("docs/performance.md", "")
    usage = subprocess.run(
        [sys.executable, "-m", "bench", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for program, *words in [shlex.split(line, comments=True) for line in text.splitlines()]:
        assert program in ("scripts/bench", "scripts/soak")
        assert os.access(ROOT / program, os.X_OK)
        flags = [word for word in words if word.startswith("-")]
        assert [flag for flag in flags if flag not in usage or program != "scripts/bench"] == []


def test_the_scrape_configuration_fits_the_server() -> None:
    """The target is the port that the server listens on; the role asked for is a value of `server.metrics`."""
    (text,) = blocks("docs/operation.md", "yaml")
    (job,) = YAML(typ="safe").load(text)["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"127.0.0.1:{ServerConfig().port}"]}]
    assert "server.metrics is admin" in job["authorization"]["credentials"]


def test_the_example_of_a_warning_is_what_check_prints() -> None:
    """For a name in line 7 that leads to a model with a successor."""
    (expected,) = blocks("docs/configuration.md", "")
    routing = b"version: 1\nproviders:\n  openai: {}\n\n# names of our own\nmodels:\n  smart: openai/gpt-5\n"
    rows = b"{openai/gpt-5: {retires: 2026-12-11, successor: openai/gpt-6-sol}, openai/gpt-6-sol: {}}"
    pricing = b"version: 1\nmodels: " + rows
    config = configure(Source("routing_rules.yaml", routing), Source("pricing.yaml", pricing), {})
    assert "\n".join(map(str, check(config, date(2026, 11, 22)))) + "\n" == expected
