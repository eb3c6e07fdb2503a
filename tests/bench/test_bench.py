"""The bench runs, and its figures are of answers that were complete and metered."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace

from bench import page
from bench.answers import WrongAnswer, check_stream, dechunked, looks_streamed, writes
from bench.bars import drawing
from bench.cases import CASES, PACED, WHOLE, Case
from bench.direct import NAME as NO_GATEWAY
from bench.direct import Direct
from bench.goals import OURS, Run
from bench.load import Target, request, run
from bench.pacing import run_paced
from bench.page import goals
from bench.peers import peers
from bench.peers.portkey import Portkey
from bench.peers.tensorzero import TensorZero
from bench.peers.unavailable import Unavailable
from bench.process import NotServed
from bench.report import lines
from bench.states import IDLE, READY
from bench.trials import Plan, Results, Trial, measure
from bench.upstream import upstream
from tests.upstream import FakeUpstream

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^  (\S.*?)  +(-?\d+\.?\d*) +-?\d+\.?\d* +-?\d+\.?\d* +\d+$", re.MULTILINE)


def bench(*arguments: str, **environ: str) -> str:
    """What it printed."""
    command = [sys.executable, "-m", "bench", "--quick", *arguments]
    env = {**os.environ, **environ}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, env=env) as run:
        try:
            said, errors = run.communicate(timeout=400)
        finally:
            run.terminate()  # if it still runs: with it end the processes that it started
    assert run.returncode == 0, errors
    return said


@pytest.mark.slow
def test_a_quick_round_prints_a_figure_for_everything():
    """Each case has a median above zero, and so has each goal that needs no other gateway."""
    printed = bench()
    cpu, _, rest = printed.partition("\nrequests per second")
    assert {name for name, _ in ROW.findall(cpu)} == {
        *(f"{case.name} · this product" for case in CASES),
        "whole answer · this product, 2 workers",
    }
    assert "start to the first /readyz, s" in dict(ROW.findall(rest))
    assert all(float(median) > 0 for _, median in ROW.findall(cpu)), printed
    judged = dict(re.findall(r"^  (\S.*?)  +-?[\d.]+ ?\S* +(met|passed|not met|machine busy)  ", rest, re.MULTILINE))
    assert judged.keys() == {
        "128 streams at 50 events/s: added to the first event, p99",
        "128 streams at 50 events/s: added to a gap, p99",
        "prompt of 100 kB: added, p50",
        "image of 5 MB: added, p50",
        "`ensemble:voting` of 3: CPU beside one call's",
        "memory, idle",
        "memory at 1,000 open streams",
        "start to ready",
        "CPU per whole answer, 2 workers beside one",
        "`/v1/usage` of 10,000 calls",
    }
    assert "errors: none; each answer was complete" in printed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("peer", "why"),
    [
        (TensorZero(), "^it cannot be installed: .*tensorzero==2026.6.0"),
        (Portkey(), "^it needs Node.js, which is not installed$"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_peer_that_cannot_be_installed_says_why(peer, why, tmp_path, monkeypatch):
    """Without an index of packages, and without programs."""
    for name, value in {"XDG_CACHE_HOME": str(tmp_path), "PIP_NO_INDEX": "1", "PATH": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(NotServed, match=why), peer.serving(tmp_path, "http://127.0.0.1:1/v1", set()):
        pass


def test_no_peer_has_the_name_of_another():
    """Each has its own rows."""
    names = [peer.name for peer in peers()]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize(
    ("model", "stream"), [("e503", False), ("finish(reason=length)", False), ("e503", True), ("no_done", True)]
)
async def test_an_answer_that_is_not_complete_is_not_measured(model, stream):
    """A figure of errors or of cut answers would look better than the truth."""
    async with FakeUpstream() as fake:
        with pytest.raises(WrongAnswer):
            await run(Target(fake.port), Case("broken", model, stream, 1, connections=1))


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
        done = await run(
            Target(int(url.split(":")[2].split("/")[0])), Case("", model, model != "whole", 50, connections=4)
        )
    assert done.requests == 50
    assert 0 < done.percentile_ms(0.5) <= done.percentile_ms(0.99)


class Fake(Direct):
    """A gateway that is not there, with a name and a clock. `prefix`: what is asked for instead of the right model."""

    def __init__(self, name: str, prefix: str = "", share: float = 1.0, only: str = "") -> None:
        super().__init__()
        self.name, self.share = name, share
        self._only = only
        self.checked: list[int] = []
        self._prefix = prefix

    @contextmanager
    def serving(self, folder: Path, upstream_url: str, cores: set[int]) -> Iterator[Fake]:
        with super().serving(folder, upstream_url, cores):
            self.target = replace(self.target, prefix=self._prefix)
            yield self

    def serves(self, case: Case) -> bool:
        return self._only in ("", case.name)

    def check(self, answers: int) -> None:
        self.checked.append(answers)

    def cpu_s(self) -> float:
        return time.monotonic()

    def memory_mb(self) -> float:
        return 1.0


def planned(*cases: Case, rounds: int) -> Plan:
    return Plan(cases, rounds, at_least=rounds, until=0, core=set(), others=set())


def test_a_gateway_without_right_answers_has_a_reason_and_no_figures(tmp_path):
    """The others are measured beside it, as often as planned, and asked whether they metered everything."""
    ours, peer, wrong = Fake("ours"), Fake("peer"), Fake("wrong", prefix="no-such-")
    plan = planned(Case("whole", "whole", False, 8), Case("stream", "few", True, 4), rounds=3)
    results = measure(tmp_path, [ours, peer, wrong, Unavailable("absent", "no such wheel")], plan)
    assert {(case, name): len(trials) for case, found in results.trials.items() for name, trials in found.items()} == {
        ("whole", "ours"): 3,
        ("whole", "peer"): 3,
        ("stream", "ours"): 3,
        ("stream", "peer"): 3,
    }
    assert ours.checked == peer.checked == [4 * (8 + 4)]
    assert wrong.checked == []
    printed = "\n".join(lines(Run("today", "here", "0", results)))
    assert re.search(r"^  whole · peer  +\d", printed, re.MULTILINE)
    assert "absent  served: false  no such wheel" in printed
    assert re.search("^errors: wrong, whole: WrongAnswer.*404", printed, re.MULTILINE)


def test_a_slow_gateway_gets_a_share_of_the_requests_but_no_connection_is_left_without_one(tmp_path):
    """And a case that one gateway does not serve is measured at the others."""
    slow, other = Fake("slow", share=0.25), Fake("other", share=0.05, only="whole")
    measure(
        tmp_path, [slow, other], planned(Case("whole", "whole", False, 40, 4), Case("few", "few", True, 8, 2), rounds=1)
    )
    assert slow.checked == [(4 + 2) + (10 + 2)]  # the round that warms, and one
    assert other.checked == [4 + 4]


@pytest.mark.slow
def test_paced_streams_are_timed_event_by_event(tmp_path):
    """All 200 events of each, in the four seconds they take; a case marked so runs in one round only."""
    fake = Fake("ours")
    case = Case("paced", "paced", True, 3, 3, paced=True, spread_s=0.1, once=True)
    trials = measure(tmp_path, [fake], planned(case, rounds=2)).trials["paced"]["ours"]
    assert fake.checked == [3]
    assert [trial.open_mb for trial in trials] == [1.0]
    assert trials[0].gap_p99_ms is not None
    assert 0 < trials[0].p50_ms <= trials[0].p99_ms
    assert trials[0].per_second < 3 / 3.98


@pytest.mark.parametrize(("model", "why"), [("cut_fin(k=3)", "after 0 of 200 events"), ("e503", "503")])
async def test_paced_streams_that_lose_events_are_not_measured(model, why):
    """None may be missing, whatever the others took."""
    async with FakeUpstream() as fake:
        case = Case("broken", "paced", True, 1, 1, paced=True, spread_s=0)
        with pytest.raises(WrongAnswer, match=why):
            await run_paced(Target(fake.port, named={"paced": model}), case, lambda: None)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_request_names_the_model_and_has_its_content(case):
    """Under the name that the gateway has for it, if it has one."""
    head, _, body = request(Target(1, prefix="fake/", named={"claude": "claude/x"}, key="k"), case).partition(
        b"\r\n\r\n"
    )
    asked = json.loads(body)
    assert f"content-length: {len(body)}".encode() in head
    assert b"authorization: Bearer k" in head
    assert asked["model"] == case.ours or {"claude": "claude/x"}.get(case.model, f"fake/{case.model}") == asked["model"]
    assert asked["stream"] == case.stream
    size = {"long": 100_000, "picture": 5_000_000}.get(case.content, 200)
    assert len(body) == pytest.approx(size, rel=0.2) or size == 200


# --- goals and the page -----------------------------------------------------------------------------------------------


def trial(cpu_us: float, **more: float) -> Trial:
    return replace(Trial(cpu_us, 1000, 1, 2, 90, 1000), **more)


def a_run(**states: list[float]) -> Run:
    """Two rounds: the machine was twice as slow in the second, for both."""
    whole = {OURS: [trial(200), trial(400)], TensorZero.name: [trial(100), trial(200)], NO_GATEWAY: [trial(0)] * 2}
    paced = {
        OURS: [trial(900, p99_ms=5, gap_p99_ms=2.5, open_mb=150)],
        NO_GATEWAY: [trial(0, p99_ms=3, gap_p99_ms=2.0)],
    }
    results = Results({WHOLE.name: whole, PACED.name: paced}, not_served={"absent": "no such wheel"})
    results.fixed_work_ms = [8.0, 16.0]
    return Run("30 November 2026", "a machine", "0.1", results, states, {"10000": [1.0, 2.0, 3.0]})


def judged(run: Run) -> dict[str, tuple[str, str]]:
    return {goal.what: (median, verdict) for goal, median, _, verdict in goals(run)}


def test_a_ratio_is_of_one_round():
    """So the slow round does not show in it."""
    found = judged(a_run())
    assert found["CPU per whole answer, a named model"] == ("2.00 ×", "**not met**")  # noqa: RUF001
    assert found["requests/s on one core, 32 connections"] == ("1.00 ×", "met")  # noqa: RUF001
    assert found["128 streams at 50 events/s: added to the first event, p99"] == ("2.0 ms", "met")
    assert found["128 streams at 50 events/s: added to a gap, p99"] == ("0.5 ms", "met")
    assert found["`/v1/usage` of 10,000 calls"] == ("2.0 ms", "met")
    assert found["CPU per translated stream (Anthropic to OpenAI)"] == ("-", "not measured")


@pytest.mark.parametrize(("mb", "verdict"), [(110, "met"), (110.1, "passed"), (120, "passed"), (120.1, "**not met**")])
def test_a_goal_is_met_or_passed_up_to_its_figure(mb, verdict):
    """Both figures are the last that will do."""
    assert judged(a_run(**{IDLE: [mb]}))["memory, idle"][1] == verdict


def test_times_by_the_clock_on_the_wall_are_not_judged_on_a_busy_machine():
    """Where the product had 60 % of its core, others had the rest; ratios of CPU hold."""
    run = a_run(**{READY: [0.5], IDLE: [100.0]})
    busy = [replace(each, busy_percent=60) for each in run.results.trials[WHOLE.name][OURS]]
    run.results.trials[WHOLE.name][OURS] = busy
    found = judged(run)
    assert found["start to ready"] == ("0.50 s", "machine busy")
    assert found["requests/s on one core, 32 connections"][1] == "machine busy"
    assert found["memory, idle"][1] == "met"
    assert found["CPU per whole answer, a named model"][1] == "**not met**"
    assert "60 % busy" in page.figures(run)


def test_a_written_run_is_what_the_page_and_the_plot_show(tmp_path):
    """Written twice it is the same; the text around the figures stays."""
    text = "# Top\n\n<!-- figures by scripts/bench -->\nold\n<!-- end of the figures -->\nrest\n"
    (tmp_path / page.PAGE).write_text(text)
    page.write(a_run(**{IDLE: [100.0]}), tmp_path)
    written = {each.name: each.read_text() for each in tmp_path.iterdir()}
    assert sorted(written) == [page.FILE, page.PAGE, page.PLOT]
    assert "| whole answer | tensorzero 2026.6.0 | 150 | 1,000 | 1.0 | 2.0 |" in written[page.PAGE]
    assert "| whole answer | no gateway | - | 1,000 | 1.0 | 2.0 |" in written[page.PAGE]
    assert "- absent: `served: false`, no such wheel" in written[page.PAGE]
    assert written[page.PAGE].startswith("# Top\n\n<!--") and written[page.PAGE].endswith("-->\nrest\n")
    assert "old" not in written[page.PAGE]
    page.write(page.read(tmp_path), tmp_path)
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == written


def test_bars_are_as_long_as_the_logarithm_of_their_figures():
    """Each power of ten takes the same width."""
    drawn = drawing({"a & b": {"one": 10.0, "two": 100.0}, "c": {"two": 1000.0}}, "µs")
    root = ElementTree.fromstring(drawn)
    widths = [float(each.get("width", "0")) for each in root.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert widths == pytest.approx([1, 220, 440], abs=0.2)
    assert "a & b" in [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]


def test_the_page_shows_the_run_that_is_kept():
    """`scripts/bench --peers --write` renews all three."""
    run = page.read()
    assert page.figures(run) in (page.DOCS / page.PAGE).read_text()
    assert (page.DOCS / page.PLOT).read_text() == page.plot(run)
