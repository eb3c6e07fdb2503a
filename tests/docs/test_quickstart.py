"""docs/quickstart.md is walked from top to bottom: each command and snippet, in its order, in a fresh folder."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from proxy.config import Source, check, configure
from tests.cli.commands import ROOT, environment
from tests.serving import spawned

PAGE = (ROOT / "docs" / "quickstart.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
SHIPPED = (ROOT / "routing_rules.yaml").read_text()
STARTED_HERE = ("scripts/serve", "export ")  # by the test itself, and in the environment of all that follow
EXPECTED = {  # command -> a part of its output
    "curl": '"content"',
    "proxy ask": "",
    "proxy providers": "openai",
    "proxy models": "auto",
    "proxy check": "0 errors",
    "proxy explain": "short and cheap",
    "proxy keys create": "mmp-",
    "proxy usage": "smollm2-135m",
}


def with_sections() -> str:
    """The shipped file with what the page adds to it."""
    rule, budget = [text for kind, text in BLOCKS if kind == "yaml"]
    ruled = re.sub(r"^rules:.*\n", lambda _: rule, SHIPPED, count=1, flags=re.MULTILINE)
    return re.sub(r"^budget:.*\n(?: .*\n)+", lambda _: budget, ruled, count=1, flags=re.MULTILINE)


def test_the_sections_fit_into_the_shipped_file() -> None:
    """Nothing to warn of, and they say what the page says."""
    config = configure(Source("routing_rules.yaml", with_sections().encode()), None, {"OPENAI_API_KEY": "k"})
    assert config.rules[0].name == "short and cheap" and len(config.rules) > 5
    assert config.budget is not None and config.budget.daily_usd == 5
    assert [*config.budget.per_key] == ["laptop"]
    problems = check(config, date(2026, 11, 29))
    assert [str(each) for each in problems if "short and cheap" in str(each) or "budget" in str(each)] == []


def test_each_command_is_walked() -> None:
    """A new one needs an expectation here."""
    known = (*STARTED_HERE, *EXPECTED)
    assert [line for line in COMMANDS if not line.startswith(known)] == []
    assert YAML(typ="safe").load(SHIPPED)["budget"]["daily_usd"] == 20  # as the page says


@pytest.mark.slow
@pytest.mark.embedded
def test_the_page_works_from_top_to_bottom(tmp_path: Path) -> None:
    """Without keys the bundled model answers; then with keys, which nothing uses."""
    if shutil.which("curl") is None:
        pytest.skip("the page uses curl")
    folder, tools = tmp_path / "checkout", tmp_path / "tools"
    for each in (folder, tools):
        each.mkdir()
    (tools / "proxy").write_text(f'#!/bin/sh\nexec {sys.executable} -m proxy "$@"\n')
    (tools / "proxy").chmod(0o755)
    for name in ("routing_rules.yaml", "pricing.yaml"):
        shutil.copy(ROOT / name, folder / name)
    environ = environment()
    environ["PATH"] = f"{tools}:{environ['PATH']}"
    with spawned(folder / "routing_rules.yaml", "--db", str(folder / "proxy.db")) as server:
        for line in COMMANDS:
            if line.startswith("export ") and "_API_KEY=" in line:
                name, _, value = line.removeprefix("export ").partition("=")
                environ[name] = value
            if line.startswith(STARTED_HERE):
                continue
            if line == "proxy check":
                (folder / "routing_rules.yaml").write_text(with_sections())
            said = output(line.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}"), folder, environ)
            (expected,) = {text for start, text in EXPECTED.items() if line.startswith(start)}
            assert expected in said, f"{line}\n{said}"
            if line.startswith("proxy ask"):
                (snippet,) = [text for kind, text in BLOCKS if kind == "python"]
                snippet = snippet.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
                said = output(
                    f"{sys.executable} -c {shlex.quote(snippet)}", folder, {**environ, "PYTHONPATH": str(ROOT)}
                )
                assert said.startswith("local/smollm2-135m ") and said.rstrip().endswith(" 0.0")


def output(line: str, folder: Path, environ: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout
