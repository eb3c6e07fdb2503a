"""`proxy completion`: with the script loaded, a shell completes commands, options and values."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.cli.commands import environment, proxy


def words(line, cwd, **variables):
    """What click offers for the last word of a line, as the scripts ask for it."""
    parts = line.split(" ")
    asked = {"_PROXY_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(parts) - 1)}
    script = "import sys; sys.argv[0] = 'proxy'; from proxy.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=cwd,
        env=environment(**asked, **variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return [item.partition(",")[2] for item in done.stdout.splitlines() if item]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("proxy c", ["check", "completion", "config", "conformance"]),
        ("proxy keys ", ["create", "list", "revoke"]),
        ("proxy i", ["import", "init"]),
        ("proxy import ", ["litellm"]),
        ("proxy setup co", ["codex"]),
        ("proxy check --j", ["--json"]),
        ("proxy schema r", ["routing"]),
        ("proxy completion ", ["bash", "zsh", "fish"]),
        ("proxy prices --", ["--diff", "--update", "--json", "--config", "--pricing", "--db", "--help"]),
    ],
)
@pytest.mark.slow
def test_words_are_completed(tmp_path, line, expected):
    """Commands, subcommands, options and values."""
    assert words(line, tmp_path) == expected


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "command", ["ask", *(pytest.param(each, marks=pytest.mark.slow) for each in ("setup codex", "conformance"))]
)
def test_names_of_models_are_completed(tmp_path, command):
    """Those of the files, wherever they are; none if the files do not load."""
    file = tmp_path / "routing_rules.yaml"
    file.write_text("version: 1\nproviders: {groq: {}}\nmodels: {smart: groq/a, small: groq/b}\n")
    assert words(f"proxy {command} -m sm", tmp_path, GROQ_API_KEY="any") == ["smart", "small"]
    file.write_text("version: 1\n")
    assert words(f"proxy {command} -m sm", tmp_path) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_calls_this_command(tmp_path, shell):
    """It uses the name that people type."""
    done = proxy("completion", shell, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "_PROXY_COMPLETE=" in done.stdout
    assert "python" not in done.stdout


def test_the_script_of_the_second_name_calls_that_name(tmp_path):
    """For environments where another package owns the first."""
    script = "import sys; sys.argv = ['mmproxy', 'completion', 'zsh']; from proxy.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("#compdef mmproxy\n")
    assert "_MMPROXY_COMPLETE=" in done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_accepts_the_script(tmp_path):
    """With the line from the manual."""
    script = proxy("completion", "bash", cwd=tmp_path).stdout
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{script}\ncomplete -p proxy"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "_proxy_completion proxy" in done.stdout


def test_another_shell_is_refused(tmp_path):
    """The error lists the known shells."""
    done = proxy("completion", "tcsh", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "bash" in done.stderr and "fish" in done.stderr
