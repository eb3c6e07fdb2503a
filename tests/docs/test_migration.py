"""docs/migration.md is run: its import prints what it shows, its files load, its commands and its snippet work."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from proxy.cli.import_litellm import import_litellm
from proxy.config import Source, check, configure
from proxy.config.tree import parse
from tests.cli.commands import ROOT, environment
from tests.serving import spawned, write_files
from tests.upstream import spawn

PAGE = ROOT / "docs" / "migration.md"
TEXT = PAGE.read_text()
REWRITE = "WRITE_DOCS=1 scripts/test tests/docs/test_migration.py"
GENERATED = re.compile(r"<!-- (findings|result): begin -->\n```(\w*)\n(.*?)```\n<!-- \1: end -->", re.DOTALL)
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  openai: {{base_url: "{upstream}", allow_private: true, price: null}}
  anthropic: {{type: openai, base_url: "{upstream}", allow_private: true, price: null}}
router: {{default_model: openai/ok}}
"""
PRICING = "version: 1\nmodels:\n  openai/*: {input: 2, output: 10}\n"
EXPECTED = {  # command -> a part of its output
    "proxy import litellm config.yaml --dir new": "wrote new/routing_rules.yaml",
    "proxy check --config new/routing_rules.yaml": "0 errors",
    'proxy explain --config new/routing_rules.yaml -m gpt-4 "Hello"': "gpt-4 -> ",
    'export PROXY_ADMIN_KEY="$LITELLM_MASTER_KEY"': "",
    "proxy keys create mobile --config new/routing_rules.yaml --models 'smart,fast'": "mmp-",
    "proxy providers --config new/routing_rules.yaml": "azure-smart",
    'proxy explain -m auto:cost "Summarize this page."': "auto:cost -> openai/ok",
    "proxy models": "auto",
    "proxy setup claude-code": "ANTHROPIC_BASE_URL",
    "proxy setup opencode -m auto": "multi-model-proxy/auto",
}


def blocks(language: str) -> list[str]:
    plain = GENERATED.sub("", TEXT)
    return re.findall(rf"^```{language}\n(.*?)^```", plain, re.DOTALL | re.MULTILINE)


def test_the_import_prints_what_the_page_shows() -> None:
    """The findings and the new file, word for word."""
    tree = parse(blocks("yaml")[0].encode(), "config.yaml", [], merge_keys=True)
    assert tree is not None
    made = import_litellm([tree])
    text = made.text("config.yaml")
    configure(Source("routing_rules.yaml", text.encode()), None, {})
    new = {"findings": "".join(f"{finding}\n" for finding in made.findings), "result": text}
    if os.environ.get("WRITE_DOCS"):
        PAGE.write_text(
            GENERATED.sub(
                lambda found: (
                    f"<!-- {found[1]}: begin -->\n```{found[2]}\n{new[found[1]]}```\n<!-- {found[1]}: end -->"
                ),
                TEXT,
            )
        )
        return
    shown = {name: body for name, _, body in GENERATED.findall(TEXT)}
    assert shown == new, f"docs/migration.md is out of date; regenerate it with: {REWRITE}"


def test_the_other_file_loads() -> None:
    """OpenRouter beside a vendor."""
    _, text = blocks("yaml")
    environ = {"OPENAI_API_KEY": "any", "OPENROUTER_API_KEY": "any"}
    config = configure(Source("routing_rules.yaml", text.encode()), None, environ)
    assert (list(config.providers), config.disabled) == (["openai", "openrouter"], {})
    assert check(config, date(2026, 11, 29)) == []


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str], str]]:
    """A folder with the page's first file, an environment with every key, and the address of a server."""
    folder, files = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("files")
    (folder / "config.yaml").write_text(blocks("yaml")[0])
    scripts = files / "bin"
    scripts.mkdir()
    (scripts / "proxy").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m proxy "$@"\n')
    (scripts / "proxy").chmod(0o755)
    keys = dict.fromkeys(("AZURE_API_KEY", "ANTHROPIC_API_KEY", "GROQ_API_KEY", "LITELLM_MASTER_KEY"), "x" * 20)
    with spawn() as upstream:
        routing = write_files(files, upstream.url, ROUTING)
        (files / "pricing.yaml").write_text(PRICING)
        variables = {"PROXY_CONFIG": str(routing), "PROXY_PRICING": str(files / "pricing.yaml"), "HOME": str(folder)}
        with spawned(routing) as server:
            path = f"{scripts}:{os.environ['PATH']}"
            yield folder, environment(PATH=path, **keys, **variables), server.base_url
            server.stop()


@pytest.mark.slow
def test_the_commands_run(place: tuple[Path, dict[str, str], str]) -> None:
    """Each block as it stands, one after the other."""
    folder, environ, _ = place
    written = [line for block in blocks("bash") for line in block.splitlines()]
    assert written == list(EXPECTED)
    for block in blocks("bash"):
        done = subprocess.run(
            ["bash", "-ec", block], cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        for line in block.splitlines():
            assert EXPECTED[line] in done.stdout, f"{line}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
def test_the_snippet_runs(place: tuple[Path, dict[str, str], str]) -> None:
    """With the address of the test's server, and a model that its upstream has."""
    (code,) = blocks("python")
    code = code.replace("http://127.0.0.1:8000/v1", place[2]).replace("openai/gpt-6-luna", "openai/ok")
    done = subprocess.run(
        [sys.executable, "-c", code], env=place[1], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"openai/ok 0\.\d+\n", done.stdout), done.stdout
