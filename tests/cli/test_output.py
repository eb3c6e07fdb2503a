"""Command output: tables that can be piped, colours for terminals only, pure JSON."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys

import pytest

from proxy.cli.output import format_cell, print_table
from tests.cli.commands import environment, proxy

WIDE = "version: 1\nproviders: {" + ", ".join(f"p{'-x' * 30}{n}: {{type: groq}}" for n in range(3)) + "}\n"


def on_a_terminal(arguments, cwd, **variables):
    """What a command prints to a terminal of 40 columns."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "proxy", *arguments],
            cwd=cwd,
            env=environment(COLUMNS="40", **variables),
            stdout=theirs,
        )
        os.close(theirs)
        pieces = []
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            pieces.append(piece)
        process.wait(timeout=30)
        return b"".join(pieces).decode()
    finally:
        os.close(ours)


def test_a_terminal_gets_colours(tmp_path):
    """A pipe gets none."""
    assert "\x1b[32mon" in on_a_terminal(["providers"], tmp_path)
    assert "\x1b" not in proxy("providers", cwd=tmp_path).stdout


@pytest.mark.slow
def test_no_color_turns_them_off(tmp_path):
    """https://no-color.org: any value except an empty one."""
    assert "\x1b" not in on_a_terminal(["providers"], tmp_path, NO_COLOR="1")
    assert "\x1b[32mon" in on_a_terminal(["providers"], tmp_path, NO_COLOR="")


def test_json_has_no_colours_on_a_terminal_either(tmp_path):
    """So that it can be copied."""
    assert "\x1b" not in on_a_terminal(["providers", "--json"], tmp_path)


def test_lines_are_never_wrapped(tmp_path):
    """One provider is one line, however wide."""
    (tmp_path / "routing_rules.yaml").write_text(WIDE)
    for output in (proxy("providers", cwd=tmp_path).stdout, on_a_terminal(["providers"], tmp_path)):
        assert len(output.splitlines()) == 4
        assert len(re.findall(r"set GROQ_API_KEY to enable it\r?$", output, re.MULTILINE)) == 3


def test_a_pipe_that_closes_early_gives_no_traceback(tmp_path):
    """`proxy models | head -1`."""
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m proxy schema routing | head -1"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("{\n", "")


@pytest.mark.parametrize(
    "arguments", [["check"], ["providers"], ["models"], ["usage"], ["prices"], ["keys", "list"], ["ask", "hello"]]
)
@pytest.mark.sampled(3)
def test_files_that_do_not_load_leave_standard_output_empty(tmp_path, arguments):
    """Except for `check`, whose report is the requested result."""
    (tmp_path / "routing_rules.yaml").write_text("version: 1\nproviders: {groq: {retrys: 1}}\n")
    done = proxy(*arguments, "--json", cwd=tmp_path)
    assert done.returncode == 2
    if arguments == ["check"]:
        assert done.stderr == ""
        assert [problem["path"] for problem in json.loads(done.stdout)["problems"]] == ["providers.groq.retrys"]
    else:
        assert done.stdout == ""
        assert "providers.groq.retrys: unknown key" in done.stderr


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("", "-"),
        (0, "0"),
        (0.0, "0"),
        (2.50, "2.5"),
        (0.0000014, "0.0000014"),
        ("a\x1b[31m\nb", "a\\u001b[31m\\u000ab"),
        (True, "True"),
    ],
)
def test_a_cell_is_one_line_without_terminal_escapes(value, text):
    """Names come from servers."""
    assert format_cell(value) == text


def test_columns_are_as_wide_as_their_widest_cell(capsys):
    """Numbers are right-aligned, and no line ends with spaces."""
    print_table(("NAME", "N", "WHY"), [("a", 1, None), ("bbbbbb", 1000, "two words"), ("c", None, "x")])
    assert capsys.readouterr().out == (
        "NAME       N  WHY\n"
        "a          1  -\n"
        "bbbbbb  1000  two words\n"
        "c          -  x\n"
    )  # fmt: skip
