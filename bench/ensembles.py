"""Performs I/O: `python -m bench.ensembles [--check]` simulates votes and cascades and writes the figures into
docs/ensembles.md and docs/ensembles.svg; with --check it only says whether they are up to date.

The strategy is the product's own. Its members are simulated: accuracy, common mistakes and latency are known, so theory
says what to expect. A part of the questions also goes through a real server to a fake upstream, over sockets. All of it
is the same on every run.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import statistics
import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from msgspec import Struct
from msgspec.structs import replace

from bench.crowd import RIGHT, Answers, Crowd, cascade, disagree, expected, plurality
from bench.curves import Curve, drawing
from proxy.ensembles.base import Reply, Seat
from proxy.ensembles.voting import Voting
from proxy.schema.chat import ChatRequest, ChatResponse, Message

QUESTIONS = 2_000
MAX_SIGMAS = 4.0  # between a measured share and the theory
STRONG_COST = 10.0  # of one answer of the strong model; one of a cheap member costs 1
_MEDIAN_S, _STRONG_MEDIAN_S, _SPREAD = 1.0, 2.5, 0.5  # lognormal latency
_STYLES = ("{}", "{}.", "**{}**", "Answer: {}", "So it must be.\n\nFinal answer: {}")
_DOCS = Path(__file__).parents[1] / "docs"
_MARKERS = re.compile(r"(<!-- figures by bench\.ensembles -->\n).*?(<!-- end of the figures -->)", re.DOTALL)

VOTE = Voting()
EARLY = Voting(early_stop=True)
CASCADE = Voting(min_agreement=1.0, below="escalate", escalate_to="strong")


class Case(Struct, frozen=True):
    """A panel, and the cascade that one could have instead: its cheap members, and the strong one."""

    name: str
    crowd: Crowd
    cheap: tuple[float, ...]
    strong: float

    @property
    def in_cascade(self) -> Crowd:
        return replace(self.crowd, accuracies=(*self.cheap, self.strong))

    def costs(self) -> list[float]:
        """Of one answer of each member; the strong model may be one of them."""
        return [STRONG_COST if accuracy >= self.strong else 1.0 for accuracy in self.crowd.accuracies]

    def delays_s(self, dice: random.Random, accuracies: Sequence[float]) -> list[float]:
        medians = [_STRONG_MEDIAN_S if accuracy >= self.strong else _MEDIAN_S for accuracy in accuracies]
        return [median * dice.lognormvariate(0, _SPREAD) for median in medians]


CASES = (
    Case("three of 0.6, yes or no", Crowd((0.6,) * 3, options=2), (0.6, 0.6), 0.9),
    Case("three of 0.7, yes or no", Crowd((0.7,) * 3, options=2), (0.7, 0.7), 0.9),
    Case("five of 0.7, yes or no", Crowd((0.7,) * 5, options=2), (0.7, 0.7), 0.9),
    Case("three of 0.7", Crowd((0.7,) * 3), (0.7, 0.7), 0.9),
    Case("three of 0.8", Crowd((0.8,) * 3), (0.8, 0.8), 0.9),
    Case("three of 0.9", Crowd((0.9,) * 3), (0.9, 0.9), 0.95),
    Case("three of 0.8 that err together", Crowd((0.8,) * 3, shared=0.7), (0.8, 0.8), 0.9),
    Case("0.6, 0.7 and 0.9: one is best", Crowd((0.6, 0.7, 0.9)), (0.6, 0.7), 0.9),
    Case("the same, and they err together", Crowd((0.6, 0.7, 0.9), shared=0.7), (0.6, 0.7), 0.9),
)


class SimulatedPanel:
    """A panel whose members answer at virtual times. The last text is the strong model's."""

    name = "ensemble:simulated"

    def __init__(self, texts: Sequence[str], delays_s: Sequence[float]) -> None:
        self.request = ChatRequest(model=self.name, messages=[Message("user", "?")], fields={"messages": []})
        names = [f"model/{place}" for place in range(len(texts) - 1)]
        self.seats: Sequence[Seat] = [Seat(place, name, 1.0, name, self.request) for place, name in enumerate(names)]
        self.now_s = 0.0
        self.asked_strong = False
        self._texts, self._delays_s = texts, delays_s

    async def replies(self, seats: Sequence[Seat]) -> AsyncGenerator[Reply, None]:
        for seat in sorted(seats, key=lambda each: self._delays_s[each.index]):
            self.now_s = self._delays_s[seat.index]
            yield Reply(seat, _response(self._texts[seat.index]), deployments=(seat.name,))

    async def ask(self, name: str, request: ChatRequest, role: str) -> Reply:
        self.asked_strong = True
        self.now_s += self._delays_s[-1]
        return Reply(response=_response(self._texts[-1]), deployments=(name,))

    async def stream(self, name: str, request: ChatRequest, role: str) -> Reply:
        return await self.ask(name, request, role)

    def progress(self, text: str) -> None:
        pass


class Tally:
    """What one strategy did with all questions of a case. `costs`: of the members' answers."""

    def __init__(self, costs: Sequence[float]) -> None:
        self.right: list[bool] = []
        self.seconds: list[float] = []
        self.calls: list[int] = []
        self.costs: list[float] = []
        self.escalated: list[bool] = []
        self._costs = costs

    @property
    def accuracy(self) -> float:
        return statistics.mean(self.right)

    async def note(self, voting: Voting, texts: Sequence[str], delays_s: Sequence[float], right: str) -> None:
        panel = SimulatedPanel(texts, delays_s)
        decided = await voting.decide(panel)
        said = cast(ChatResponse, decided.response)["choices"][0]["message"]["content"] or ""
        self.right.append(right in said)
        self.seconds.append(panel.now_s)
        self.calls.append(len(panel.seats) - len(decided.report.get("cancelled", ())))
        self.costs.append(sum(self._costs) + STRONG_COST * panel.asked_strong)
        self.escalated.append(panel.asked_strong)


class Result(Struct, frozen=True):
    """A case as it was measured, and what theory expects of it."""

    case: Case
    vote: Tally
    early: Tally
    cascade: Tally
    vote_expected: float
    cascade_expected: float
    escalated_expected: float

    def sigmas(self) -> Iterator[float]:
        """How far each measured share is from the theory, in standard deviations."""
        for tally, share in (
            (self.vote.right, self.vote_expected),
            (self.early.right, self.vote_expected),
            (self.cascade.right, self.cascade_expected),
            (self.cascade.escalated, self.escalated_expected),
        ):
            deviation = (share * (1 - share) / len(tally)) ** 0.5
            yield abs(statistics.mean(tally) - share) / deviation


def questions(crowd: Crowd, seed: str, count: int) -> Iterator[tuple[list[str], str, Answers]]:
    """For each question the texts of all members, the right answer, and which option each member chose. An answer is a
    number of six digits, so that none is part of another.
    """
    dice = random.Random(seed)
    for _ in range(count):
        options = [str(number) for number in dice.sample(range(100_000, 1_000_000), crowd.options)]
        answers = crowd.answers(dice)
        yield [dice.choice(_STYLES).format(options[each]) for each in answers], options[RIGHT], answers


async def measure(case: Case, count: int = QUESTIONS) -> Result:
    vote, early, cascaded = Tally(case.costs()), Tally(case.costs()), Tally([1.0] * len(case.cheap))
    dice = random.Random(f"latency {case.name}")
    for texts, right, _ in questions(case.crowd, f"vote {case.name}", count):
        delays_s = case.delays_s(dice, case.crowd.accuracies)
        for tally, voting in ((vote, VOTE), (early, EARLY)):
            await tally.note(voting, [*texts, ""], [*delays_s, 0.0], right)
    for texts, right, _ in questions(case.in_cascade, f"cascade {case.name}", count):
        await cascaded.note(CASCADE, texts, case.delays_s(dice, case.in_cascade.accuracies), right)
    return Result(
        case,
        vote,
        early,
        cascaded,
        expected(case.crowd, plurality),
        expected(case.in_cascade, cascade),
        expected(case.in_cascade, disagree),
    )


# --- the page ---------------------------------------------------------------------------------------------------------


def table(results: Sequence[Result]) -> list[str]:
    """Two tables in Markdown: who is right how often, and at what price."""
    lines = [
        "| members | best of them | their vote (theory) | cascade: two, then a strong one | right (theory) |",
        "|---|---|---|---|---|",
    ]
    for result in results:
        case = result.case
        vote = _measured(result.vote.accuracy, result.vote_expected)
        lines.append(
            f"| {case.name} | {max(case.crowd.accuracies):.3f} | {vote} | {case.cheap[0]:g} + {case.cheap[1]:g}, then "
            f"{case.strong:g} | {_measured(result.cascade.accuracy, result.cascade_expected)} |"
        )
    lines += [
        "",
        "| members | vote: cost, time | early stop: time, calls saved | cascade: cost, time, asks the strong one |",
        "|---|---|---|---|",
    ]
    for result in results:
        saved = 1 - sum(result.early.calls) / sum(result.vote.calls)
        lines.append(
            f"| {result.case.name} | {_price(result.vote)} | {_median(result.early)}, {saved:.0%} "
            f"| {_price(result.cascade)}, {statistics.mean(result.cascade.escalated):.0%} |"
        )
    return lines


def _price(tally: Tally) -> str:
    return f"{statistics.mean(tally.costs) / STRONG_COST:.2f}, {_median(tally)}"


def _measured(share: float, theory: float) -> str:
    return f"{share:.3f} ({theory:.3f})"


def _median(tally: Tally) -> str:
    return f"{statistics.median(tally.seconds):.1f} s"


async def plot(count: int = QUESTIONS) -> str:
    """Accuracy against the members' accuracy: theory as lines, measured shares as dots."""
    steps = [0.5 + step / 50 for step in range(24)]
    dots = [0.6, 0.7, 0.8, 0.9]
    curves = [Curve("one member alone", "#888888", [(step, step) for step in steps], [])]
    for name, colour, shared in (
        ("vote of three", "#1f77b4", 0.0),
        ("vote of three that err together", "#9467bd", 0.7),
    ):
        line = [(step, expected(Crowd((step,) * 3, shared=shared), plurality)) for step in steps]
        points = [(dot, (await measure(_plotted(dot, shared), count)).vote.accuracy) for dot in dots]
        curves.append(Curve(name, colour, line, points))
    line = [(step, expected(Crowd((step, step, 0.95)), cascade)) for step in steps]
    points = [(dot, (await measure(_plotted(dot, 0.0), count)).cascade.accuracy) for dot in dots]
    curves.append(Curve("cascade: two, then one of 0.95", "#d62728", line, points))
    return drawing(curves, "accuracy of each member", "accuracy of the answer")


def _plotted(accuracy: float, shared: float) -> Case:
    return Case(f"plot {accuracy} {shared}", Crowd((accuracy,) * 3, shared=shared), (accuracy, accuracy), 0.95)


def _response(text: str) -> ChatResponse:
    choice: Any = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"id": "x", "choices": [choice]}


def replaced(page: str, figures: Sequence[str]) -> str:
    """The page with other figures between its markers."""
    text = "\n".join(figures)
    found, count = _MARKERS.subn(lambda match: f"{match[1]}{text}\n{match[2]}", page)
    if count != 1:
        raise SystemExit("docs/ensembles.md has no place for the figures: its two markers are missing")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.ensembles", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the figures are not up to date")
    options = parser.parse_args()
    results = [asyncio.run(measure(case)) for case in CASES]
    figures = table(results)
    print("\n".join(figures))
    worst = max(sigma for result in results for sigma in result.sigmas())
    print(f"\nfurthest from the theory: {worst:.1f} standard deviations")
    page, image = _DOCS / "ensembles.md", _DOCS / "ensembles.svg"
    wanted = {page: replaced(page.read_text(), figures), image: asyncio.run(plot())}
    stale = [path.name for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if options.check:
        print(f"not up to date: {', '.join(stale)}" if stale else "docs: up to date")
        return 1 if stale or worst > MAX_SIGMAS else 0
    for path, text in wanted.items():
        path.write_text(text)
    return 1 if worst > MAX_SIGMAS else 0


if __name__ == "__main__":
    sys.exit(main())
