"""Progress of long commands: on standard error, on a terminal only, gone at the end."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

from proxy.cli.progress import Counted, Progress
from tests.cli.commands import PATIENCE_S, environment

SCRIPT = """
from proxy.cli.progress import Counted, Progress
with Progress("calls tried", 3) as progress:
    items = Counted([1, 2, 3])
    items.progress = progress
    assert sum(items) == 6 and len(items) == 3
print("result")
"""


def test_a_terminal_sees_how_far_it_is(tmp_path):
    """Standard output has the result alone."""
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=theirs,
            timeout=PATIENCE_S,
            check=True,
        )
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(theirs)
        os.close(ours)
    assert done.stdout == b"result\n"
    assert shown.startswith("\r\rcalls tried: 1 of 3")
    assert shown.endswith("\r")


def test_a_pipe_sees_nothing(capsys):
    """Nor a log."""
    with Progress("calls tried") as progress:
        items = Counted([1, 2])
        items.progress = progress
        assert list(items) == [1, 2]
    assert capsys.readouterr() == ("", "")
