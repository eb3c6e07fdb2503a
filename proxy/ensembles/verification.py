"""Orchestrates: `strategy: verification`: a generator answers, a validator judges the answer.

Below `min_confidence` the next generator answers, or the same one revises its answer knowing the issues. The answer
with the highest confidence wins. A validator that fails or is unreadable never costs the answer: the confidence is
then null. In a stream the generator's text is passed on at once, so it is judged, but not revised.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar

from msgspec import Meta, Struct
from msgspec.structs import replace

from proxy.ensembles import judge
from proxy.ensembles.base import Decided, Ensemble, Member, Panel, Reply, Seat, missed
from proxy.ensembles.gathering import error_of, one, said_by
from proxy.ensembles.verdict import Verdict, read_verdict
from proxy.schema.constraints import NotBlank, Share

_VALIDATOR, _GENERATOR = "validator", "generator"
_ANY_MODEL = "auto:quality"
_MAX_GENERATORS = 16


class _Round(Struct, frozen=True):
    """One answer, its generator, and the validator's verdict. `error`: why there is no verdict."""

    model: str
    reply: Reply
    verdict: Verdict
    error: dict[str, Any] = {}
    is_revision: bool = False

    def line(self) -> dict[str, Any]:
        line: dict[str, Any] = {"model": self.model, **_shown(self.verdict)}
        if self.is_revision:
            line["is_revision"] = True
        if self.error:
            line["validator_error"] = self.error
        return line


class Verification(Ensemble, frozen=True, kw_only=True, tag="verification"):
    """`generator`: one, or several that answer in turn; null: the members. `validator` null: `auto:quality`."""

    generator: NotBlank | Member | list[NotBlank | Member] | None = None
    validator: NotBlank | None = None
    min_confidence: Share = 0.7
    max_revisions: Annotated[int, Meta(ge=0, le=5)] = 1

    member_keys: ClassVar[tuple[str, ...]] = ("members", "generator")

    def __post_init__(self) -> None:
        if self.generator is not None and self.members:
            raise ValueError("generator and members are synonyms; keep one of them")
        if isinstance(self.generator, list) and not 1 <= len(self.generator) <= _MAX_GENERATORS:
            raise ValueError(f"generator must have 1 to {_MAX_GENERATORS} entries")
        if self.min_answers is not None:
            raise ValueError("min_answers has no meaning here: one answer is enough")

    def panelists(self) -> list[Member]:
        if self.generator is None:
            return super().panelists()
        listed = self.generator if isinstance(self.generator, list) else [self.generator]
        return [each if isinstance(each, Member) else Member(each) for each in listed]

    def followers(self) -> list[str]:
        """The validator for each answer, and the last generator for revisions once no other one is left."""
        generators = [member.use for member in self.panelists()]
        answerers = len(dict.fromkeys(generators)) or self.size
        last = generators[-1] if generators else _ANY_MODEL
        return [*[self.validator_name] * (1 + self.max_revisions), *[last] * max(0, 1 + self.max_revisions - answerers)]

    @property
    def validator_name(self) -> str:
        return self.validator or _ANY_MODEL

    def output_limit(self, follower: str) -> int | None:
        return None if follower in [member.use for member in self.panelists()] else judge.MAX_TOKENS

    def quorum(self, seats: int) -> int:
        return 1

    async def decide(self, panel: Panel) -> Decided:
        if panel.request.stream:
            return await self._streamed(panel)
        seats = _one_of_each(panel.seats)
        failed: list[Reply] = []
        rounds: list[_Round] = []
        while len(rounds) <= self.max_revisions:
            found = await self._next(panel, seats, rounds, failed)
            if found is None:
                break
            rounds.append(found)
            if found.verdict.accepts(self.min_confidence):
                break
        if not rounds:
            raise missed(panel, failed, 1)
        best = max(reversed(rounds), key=lambda each: each.verdict.rank(self.min_confidence))
        return Decided(best.reply.response, self._report(best, rounds), best.reply.attempts)

    async def _next(
        self, panel: Panel, seats: Iterator[Seat], rounds: Sequence[_Round], failed: list[Reply]
    ) -> _Round | None:
        """The next answer with its verdict: from the next generator, else a revision. None: there is none."""
        for seat in seats:
            reply = await one(panel, seat)
            if reply.error is None:
                return await self._validated(panel, seat.name, reply)
            failed.append(reply)
        if not rounds:
            return None
        last = rounds[-1]
        seat = next(each for each in reversed(panel.seats) if each.name == last.model)
        panel.progress(f"{last.model} revises its answer.")
        request = judge.revision(seat.request, last.reply.message, last.verdict.issues)
        reply = await panel.ask(last.model, request, _GENERATOR)
        if reply.error is not None:
            failed.append(reply)
            return None
        if said_by(reply.message) == said_by(last.reply.message):
            return None
        return await self._validated(panel, last.model, reply, is_revision=True)

    async def _streamed(self, panel: Panel) -> Decided:
        """The first generator that begins to answer gets the stream."""
        failed: list[Reply] = []
        for seat in _one_of_each(panel.seats):
            reply = replace(await panel.stream(seat.name, seat.request, _GENERATOR), seat=seat)
            if reply.error is not None:
                failed.append(reply)
                continue
            found = await self._validated(panel, seat.name, reply)
            report = self._report(found, [found])
            if not found.verdict.accepts(self.min_confidence):
                report["note"] = "The answer was streamed as it arrived, so it was not revised."
            return Decided(reply.response, report, reply.attempts)
        raise missed(panel, failed, 1)

    async def _validated(self, panel: Panel, model: str, reply: Reply, *, is_revision: bool = False) -> _Round:
        name = self.validator_name
        panel.progress(f"{model} answered; {name} is checking the answer.")
        checked = await panel.ask(name, judge.validation(name, panel.request, reply.message), _VALIDATOR)
        verdict = Verdict() if checked.error is not None else read_verdict(checked.text)
        if verdict.confidence is not None:
            panel.progress(f"The confidence is {verdict.confidence:g}.")
        return _Round(model, reply, verdict, error_of(checked), is_revision)

    def _report(self, best: _Round, rounds: Sequence[_Round]) -> dict[str, Any]:
        verdict = best.verdict
        report: dict[str, Any] = {
            "confidence": verdict.confidence,
            "agreed": None if verdict.confidence is None else verdict.accepts(self.min_confidence),
            "verdict": {"validator": self.validator_name, "min_confidence": self.min_confidence, **_shown(verdict)},
            "rounds": [each.line() for each in rounds],
        }
        if best.error:
            report["verdict"]["error"] = best.error
        elif verdict.confidence is None:
            report["verdict"]["error"] = {"code": "unreadable_verdict", "message": "The verdict has no confidence."}
        return report


def _one_of_each(seats: Sequence[Seat]) -> Iterator[Seat]:
    """One seat of each model, in order: a model that answers again gets the issues instead."""
    return iter({seat.name: seat for seat in reversed(seats)}[name] for name in dict.fromkeys(s.name for s in seats))


def _shown(verdict: Verdict) -> dict[str, Any]:
    return {
        "correct": verdict.correct,
        "complete": verdict.complete,
        "confidence": verdict.confidence,
        "issues": list(verdict.issues),
    }
