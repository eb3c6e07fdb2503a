"""The bench runs, and its figures are of answers that were complete and metered."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.load import Case, WrongAnswer, run
from tests.upstream import FakeUpstream

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_quick_round_prints_a_figure_for_everything():
    """Each row has a median above zero."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick"], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    medians = dict(re.findall(r"^  (\S.*?)  +(\d+\.?\d*) +\d+\.?\d* +\d+\.?\d* +\d+$", done.stdout, re.MULTILINE))
    assert {name.partition(",")[0] for name in medians} == {
        "start to the first /livez",
        "start to the first embedded answer",
        "server",
        "embedded model's process",
        "whole answer",
        "stream of 200 events",
        "the same work in plain Python",
    }
    assert all(float(median) > 0 for median in medians.values()), done.stdout


@pytest.mark.parametrize(
    ("model", "stream"), [("e503", False), ("finish(reason=length)", False), ("e503", True), ("no_done", True)]
)
async def test_an_answer_that_is_not_complete_is_not_measured(model, stream):
    """A figure of errors or of cut answers would look better than the truth."""
    async with FakeUpstream() as upstream:
        with pytest.raises(ExceptionGroup) as raised:
            await run(upstream.port, Case("broken", model, stream, 1), connections=1)
    assert raised.group_contains(WrongAnswer)
