"""Exit codes of every command: 0 done, 1 it ran and found a problem, 2 it could not run. `--json` of each result."""

from __future__ import annotations

import os
import re

import click
import pytest
from click.testing import CliRunner

from proxy.cli import main
from tests.cli.commands import proxy
from tests.cli.test_document import PAGE, commands

ALL = dict(commands())
ARGUMENTS = {  # of commands that need some
    "config rollback": ["0"],
    "config show": ["0"],
    "conformance": ["-m", "groq/x"],
    "completion": ["bash"],
    "ensembles report": ["voting"],
    "explain": ["hi"],
    "ask": ["hi"],
    "experiments create": ["new.json"],
    "experiments delete": ["x"],
    "experiments promote": ["x"],
    "experiments replace": ["x", "new.json"],
    "experiments results": ["x"],
    "experiments revert": ["x"],
    "experiments show": ["x"],
    "experiments start": ["x"],
    "experiments stop": ["x"],
    "experiments track": ["x", "a", "--success"],
    "experiments variant": ["x", "ann"],
    "feedback": ["x", "--success"],
    "import litellm": ["config.yaml"],
    "keys create": ["app"],
    "keys revoke": ["app"],
    "plan": ["new.yaml"],
    "prompts archive": ["x"],
    "prompts diff": ["x", "1", "2"],
    "prompts import": ["new.yaml"],
    "prompts label": ["x", "production", "1"],
    "prompts labels": ["x"],
    "prompts render": ["x"],
    "prompts save": ["x", "-"],
    "prompts show": ["x"],
    "prompts versions": ["x"],
    "schema": ["routing"],
    "setup": ["codex"],
    "sites match": ["x"],
    "sites show": ["reddit"],
    "usage reconcile": ["invoice.csv"],
    "usage reprice": ["--since", "2026-11-01"],
}
WITHOUT_JSON = {"completion", "schema", "serve"}  # a script, a schema that is JSON, and no result
NO_CONFIGURATION = {"completion", "schema", "init", "import litellm"}  # read neither of the two files
BROKEN = "version: 1\nproviders: {groq: {retrys: 1}}\n"


def ids(command: str) -> str:
    return command.replace(" ", "-")


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ALL, ids=ids)
def test_an_unknown_option_is_2(tmp_path, monkeypatch, name):
    """Nothing runs, nothing is written, and standard output is empty."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, [*name.split(), *ARGUMENTS.get(name, []), "--frob"])
    assert (done.exit_code, done.stdout, "--frob" in done.stderr) == (2, "", True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in ALL if name not in NO_CONFIGURATION], ids=ids)
@pytest.mark.slow
def test_files_that_do_not_load_are_2(tmp_path, monkeypatch, name):
    """Each mistake is one line on standard error. `config list` and its siblings work on stored versions too."""
    (tmp_path / "routing_rules.yaml").write_text(BROKEN)
    for file in ("new.yaml", "invoice.csv"):
        (tmp_path / file).write_text("")
    monkeypatch.chdir(tmp_path)
    variables = {name: None for name in os.environ if name.startswith("PROXY_")}
    done = CliRunner(env=variables).invoke(main, [*name.split(), *ARGUMENTS.get(name, [])])
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    assert done.stderr.strip()


@pytest.mark.parametrize("name", ALL, ids=ids)
def test_every_result_can_be_had_as_json(name):
    """And every command with `--json` says so in the same words."""
    options = {option: each for each in ALL[name].params for option in each.opts}
    assert ("--json" in options) == (name not in WITHOUT_JSON)
    if name not in WITHOUT_JSON:
        option = options["--json"]
        assert isinstance(option, click.Option)
        assert option.help == "Print only JSON on standard output."


PROBLEMS = {  # what a command finds, without calling any model: 1
    "check": ["--strict"],
    "ensembles report": ["none"],
    "explain": ["-m", "nobody/none", "hi"],
    "experiments create": ["config.yaml"],
    "experiments delete": ["none"],
    "experiments promote": ["none"],
    "experiments replace": ["none", "config.yaml"],
    "experiments results": ["none"],
    "experiments revert": ["none"],
    "experiments show": ["none"],
    "experiments start": ["none"],
    "experiments stop": ["none"],
    "experiments track": ["none", "a", "--success"],
    "experiments variant": ["none", "ann"],
    "feedback": ["chatcmpl-0661640e3cbcdb1a2d4436eb39", "--success"],
    "import litellm": ["config.yaml", "--strict", "--dir", "new"],
    "keys revoke": ["nobody"],
    "prompts archive": ["none"],
    "prompts diff": ["none", "1", "2"],
    "prompts export": ["none"],
    "prompts import": ["config.yaml"],
    "prompts label": ["none", "production", "1"],
    "prompts labels": ["none"],
    "prompts render": ["none"],
    "prompts save": ["x", "config.yaml", "--label", "latest"],
    "prompts show": ["none"],
    "prompts versions": ["none"],
    "sites match": ["write a poem"],
    "sites show": ["nowhere"],
}


@pytest.mark.parametrize("name", PROBLEMS, ids=ids)
@pytest.mark.slow
def test_a_problem_that_a_command_finds_is_1(tmp_path, name):
    """With one line on standard error."""
    warned = "version: 1\nproviders: {groq: {}}\naliases: {a: openai/x}\n".replace(
        "openai/x", "groq/llama-3.1-8b-instant"
    )
    (tmp_path / "routing_rules.yaml").write_text(warned)
    (tmp_path / "config.yaml").write_text("model_list: []\nguardrails: []\n")
    assert proxy("keys", "create", "app", cwd=tmp_path).returncode == 0  # there is a database
    done = proxy(*name.split(), *PROBLEMS[name], cwd=tmp_path)
    assert (done.returncode, bool(done.stderr.strip())) == (1, True), done


IN_THEIR_OWN_TESTS = {"providers", "prices", "ask", "plan", "conformance", "serve"}  # they need models or prices


def test_the_manual_lists_the_commands_that_have_other_codes() -> None:
    """Each is tested here or with its command."""
    listed = re.findall(r"^\| `([a-z ]+)` \| 1 \|", PAGE.read_text().partition("## Exit codes")[2], re.MULTILINE)
    assert sorted(listed) == sorted({*PROBLEMS, *IN_THEIR_OWN_TESTS})
