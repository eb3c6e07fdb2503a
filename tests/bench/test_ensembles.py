"""The simulation of ensembles: it agrees with theory, with the server, and with the page that shows it."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.crowd import Crowd, cascade, expected, plurality
from bench.ensembles import CASCADE, CASES, MAX_SIGMAS, VOTE, SimulatedPanel, measure, questions
from tests.ensembles.test_voting_served import report_of
from tests.serving import ROUTING, serving, write_files
from tests.upstream import FakeUpstream
from tests.upstream.modes import says

ROOT = Path(__file__).parents[2]
ENSEMBLES = """
ensembles:
  vote: {{strategy: voting, members: [fake/m0, fake/m1, fake/m2]}}
  cascade: {{strategy: voting, members: [fake/m0, fake/m1], min_agreement: 1, below: escalate, escalate_to: fake/m2}}
"""


def test_the_theory_is_the_binomial_of_condorcet() -> None:
    """For independent members and two answers; for more answers and shared mistakes, cases computed by hand."""
    for members, accuracy in ((1, 0.6), (3, 0.7), (5, 0.7), (5, 0.55)):
        binomial = sum(
            math.comb(members, right) * accuracy**right * (1 - accuracy) ** (members - right)
            for right in range(members // 2 + 1, members + 1)
        )
        assert expected(Crowd((accuracy,) * members, options=2), plurality) == pytest.approx(binomial)
    assert expected(Crowd((0.5,) * 3, options=3), plurality) == pytest.approx(4 / 8 + 3 / 8 * (1 / 2) * (1 / 3))
    assert expected(Crowd((0.8,) * 3, shared=1.0), plurality) == pytest.approx(0.8)
    assert expected(Crowd((0.5, 0.5, 0.9), options=2), cascade) == pytest.approx(0.25 + 0.5 * 0.9)
    assert sum(Crowd((0.6, 0.7, 0.9), shared=0.3).outcomes().values()) == pytest.approx(1)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_the_strategy_does_what_theory_expects(case) -> None:
    """Within four standard deviations, on 100 of the 2,000 questions. An early stop never changes the answer."""
    result = await measure(case, 100)
    assert max(result.sigmas()) < MAX_SIGMAS
    assert result.vote.right == result.early.right
    assert sum(result.early.calls) < sum(result.vote.calls)


@pytest.mark.parametrize("count", [10, pytest.param(200, marks=pytest.mark.slow)])
async def test_the_server_gives_the_simulated_answers(tmp_path: Path, count: int) -> None:
    """The same questions over real sockets, through the whole product: the same answer, votes and confidence."""
    crowd = CASES[3].crowd
    equal = 0
    async with (
        FakeUpstream() as upstream,
        serving(write_files(tmp_path, upstream.url, ROUTING + ENSEMBLES)) as server,
    ):
        for texts, _, _ in questions(crowd, "served", count):
            upstream.modes |= {f"m{place}": says(text) for place, text in enumerate(texts)}
            for name, voting in (("vote", VOTE), ("cascade", CASCADE)):
                panel = SimulatedPanel(texts if name == "cascade" else [*texts, ""], [1.0, 1.0, 1.0, 1.0])
                simulated = await voting.decide(panel)
                message: Any = [{"role": "user", "content": "?"}]
                answer = await server.client.chat.completions.create(model=f"ensemble:{name}", messages=message)
                assert simulated.response is not None
                wanted = simulated.response["choices"][0]["message"]["content"]
                report, expected_report = report_of(answer), simulated.report
                assert answer.choices[0].message.content == wanted
                for key in ("votes", "confidence", "agreed", "decided_by"):
                    assert report[key] == expected_report[key], key
                equal += 1
    print(f"{equal} of {2 * count} answers through the server are those of the simulation")


@pytest.mark.slow
def test_the_page_shows_what_the_simulation_gives() -> None:
    """All 2,000 questions of each case."""
    command = [sys.executable, "-m", "bench.ensembles", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
