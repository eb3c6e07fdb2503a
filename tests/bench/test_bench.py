"""The bench runs, and its figures are of answers that were complete and metered."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.answers import Case, WrongAnswer, check_stream, dechunked, looks_streamed, writes
from bench.load import Target, run
from bench.process import NotServed
from bench.report import lines
from bench.trials import Plan, measure
from bench.upstream import upstream
from tests.upstream import FakeUpstream

ROOT = Path(__file__).parents[2]


def bench(*arguments: str, **environ: str) -> str:
    """What it printed."""
    command = [sys.executable, "-m", "bench", "--quick", *arguments]
    env = {**os.environ, **environ}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_quick_round_prints_a_figure_for_everything():
    """Each row has a median above zero."""
    printed = bench()
    medians = dict(re.findall(r"^  (\S.*?)  +(\d+\.?\d*) +\d+\.?\d* +\d+\.?\d* +\d+$", printed, re.MULTILINE))
    assert {re.split("[,·]", name)[0].strip() for name in medians} == {
        "start to the first /livez",
        "start to the first embedded answer",
        "server",
        "embedded model's process",
        "whole answer",
        "stream of 200 events",
        "this product",
        "the same work in plain Python",
    }
    assert all(float(median) > 0 for median in medians.values()), printed


@pytest.mark.slow
def test_a_peer_that_cannot_be_installed_has_its_row(tmp_path):
    """The product is measured all the same."""
    printed = bench("--peers", XDG_CACHE_HOME=str(tmp_path), PIP_NO_INDEX="1", PIP_FIND_LINKS="")
    assert re.search(r"^tensorzero \S+  served: false  it cannot be installed: .+", printed, re.MULTILINE)
    assert re.search(r"^  whole answer, 1 kB  +\d", printed, re.MULTILINE)
    assert "ratio" not in printed


@pytest.mark.parametrize(
    ("model", "stream"), [("e503", False), ("finish(reason=length)", False), ("e503", True), ("no_done", True)]
)
async def test_an_answer_that_is_not_complete_is_not_measured(model, stream):
    """A figure of errors or of cut answers would look better than the truth."""
    async with FakeUpstream() as fake:
        with pytest.raises(WrongAnswer):
            await run(Target(fake.port), Case("broken", model, stream, 1), connections=1)


@pytest.mark.parametrize("model", ["few", "each"])
def test_a_stream_with_an_event_too_few_or_too_many_is_not_complete(model):
    """Also without its end marker, and cut inside a chunk."""
    body = b"".join(writes(model)[1:])
    check_stream(body)
    assert looks_streamed(body) or model == "few"  # where the edge of a chunk cuts a word
    text = dechunked(body)
    events = text.split(b"\n\n")
    for wrong in (events[:50] + events[51:], events[:50] + events[49:], [*events[:-2], b""]):
        joined = b"\n\n".join(wrong)
        with pytest.raises(WrongAnswer):
            check_stream(b"%x\r\n%s\r\n0\r\n\r\n" % (len(joined), joined))
    with pytest.raises(WrongAnswer):
        check_stream(body[: len(body) // 2])


@pytest.mark.parametrize("model", ["whole", "few", "each"])
async def test_the_upstream_answers_each_of_many_requests_in_full(model):
    """On connections that are used again; the client checks each answer."""
    with upstream() as url:
        done = await run(Target(int(url.split(":")[2].split("/")[0])), Case("", model, model != "whole", 50), 4)
    assert done.requests == 50
    assert 0 < done.percentile_ms(0.5) <= done.percentile_ms(0.99)


class Direct:
    """A gateway that is not there: requests go to the upstream itself. `model`: what is asked for instead."""

    def __init__(self, name: str, prefix: str = "") -> None:
        self.name = name
        self.process = self
        self.checked: list[int] = []
        self._prefix = prefix

    @contextmanager
    def serving(self, folder: Path, upstream_url: str, cores: set[int]) -> Iterator[Direct]:
        self.target = Target(int(upstream_url.split(":")[2].split("/")[0]), prefix=self._prefix)
        yield self

    def check(self, answers: int) -> None:
        self.checked.append(answers)

    def cpu_s(self) -> float:
        return time.monotonic()

    def rss_mb(self) -> float:
        return 1.0


class Absent:
    """A gateway that cannot be started."""

    name = "absent"

    @contextmanager
    def serving(self, folder: Path, upstream_url: str, cores: set[int]) -> Iterator[Direct]:
        raise NotServed("no such wheel")
        yield


def test_a_gateway_without_right_answers_has_a_reason_and_no_figures(tmp_path):
    """The others are measured beside it, as often as planned, and asked whether they metered everything."""
    cases = [Case("whole", "whole", False, 8), Case("stream", "few", True, 4)]
    plan = Plan(cases, rounds=3, at_least=3, until=0, core=set(), others=set())
    ours, peer = Direct("ours"), Direct("peer")
    results = measure(tmp_path, [ours, peer, Direct("wrong", prefix="no-such-"), Absent()], plan)
    assert {key: len(trials) for key, trials in results.trials.items()} == {
        ("whole", "ours"): 3,
        ("whole", "peer"): 3,
        ("stream", "ours"): 3,
        ("stream", "peer"): 3,
    }
    assert ours.checked == peer.checked == [4 * (8 + 4)]
    printed = "\n".join(lines(results, "ours"))
    assert re.search(r"^  whole · ours / peer  +\d", printed, re.MULTILINE)
    assert "absent  served: false  no such wheel" in printed
    assert re.search("^errors: wrong, whole: WrongAnswer.*404", printed, re.MULTILINE)
