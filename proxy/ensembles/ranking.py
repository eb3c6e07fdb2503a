"""Orchestrates: `strategy: ranking`: all members answer, all answers get a score, the best one is the answer.

A judge scores the answers without knowing whose they are, and does so twice: the second time in reverse order, because
judges prefer answers by their position. The two scores are averaged. Without a judge, or if nothing it wrote is
readable, the offline scorer decides. Ties: weight, then a hash of the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Struct

from proxy.ensembles.base import Decided, Ensemble, Panel, Reply
from proxy.ensembles.gathering import Gathered, distinct, error_of, gather
from proxy.ensembles.judge import LABELS, MAX_TOKENS, comparison
from proxy.ensembles.scores import WEIGHTS, asked_for, offline_scores
from proxy.ensembles.verdict import read_scores
from proxy.schema.constraints import NotBlank, one_of

_ROLE = "judge"


class _Scored(Struct, frozen=True):
    """One answer and its score; `measures` are the parts of an offline one."""

    answer: Gathered
    score: float
    measures: dict[str, float] = {}


class Ranking(Ensemble, frozen=True, kw_only=True, tag="ranking"):
    """`judge` null: the offline scorer. `return_all`: the report contains all answers, not only their scores."""

    quality_metric: Annotated[str, one_of(*WEIGHTS)] = "accuracy"
    judge: NotBlank | None = None
    return_all: bool = False

    def followers(self) -> list[str]:
        return [self.judge] * 2 if self.judge else []

    def output_limit(self, follower: str) -> int | None:
        return MAX_TOKENS

    async def decide(self, panel: Panel) -> Decided:
        replies = await gather(panel, self.quorum(len(panel.seats)))
        answers = await asyncio.to_thread(distinct, replies)
        judged, judge = await self._judged(panel, answers)
        scored = judged or await asyncio.to_thread(self._offline, panel, answers)
        scored.sort(key=lambda each: (-each.score, -each.answer.weight, each.answer.digest))
        best = scored[0]
        report: dict[str, Any] = {
            "quality_metric": self.quality_metric,
            "scored_by": "judge" if judged else "offline",
            "scores": [self._line(rank, each) for rank, each in enumerate(scored, 1)],
            "confidence": best.score if judged else None,
        }
        if judge:
            report["judge"] = judge
        return Decided(best.answer.reply.response, report, best.answer.reply.attempts)

    async def _judged(self, panel: Panel, answers: Sequence[Gathered]) -> tuple[list[_Scored], dict[str, Any]]:
        """The judge's scores, and its entry in the report. No scores: nothing to judge, or unreadable."""
        real = [each for each in answers if not each.is_empty]
        if self.judge is None:
            return [], {}
        if len(real) < 2:
            return [], {"model": self.judge, "rounds": 0, "note": "Not asked: there is only one answer to judge."}
        order = sorted(real, key=lambda each: each.digest)
        orders = [order, order[::-1]]
        panel.progress(f"{self.judge} compares {len(real)} answers.")
        replies = await self._both(panel, orders)
        rounds = [_read(reply, order) for reply, order in zip(replies, orders, strict=True)]
        readable = [scores for scores in rounds if scores is not None]
        about: dict[str, Any] = {"model": self.judge, "rounds": len(readable)}
        errors = [error_of(reply) for reply in replies if reply.error is not None]
        if errors:
            about["error"] = errors[0]
        if len(readable) < len(rounds):
            about["note"] = (
                "One of two rounds was unreadable: position bias is not cancelled."
                if readable
                else "No score was readable: the offline scorer decided."
            )
        if not readable:
            return [], about
        means = {each.digest: sum(scores[each.digest] for scores in readable) / len(readable) for each in real}
        return [_Scored(each, round(means.get(each.digest, 0.0), 4)) for each in answers], about

    async def _both(self, panel: Panel, orders: Sequence[Sequence[Gathered]]) -> list[Reply]:
        """Asks the judge once for each order, at the same time."""
        judge = self.judge or ""
        asks = [
            comparison(judge, panel.request, [each.reply.message for each in order], self.quality_metric)
            for order in orders
        ]
        tasks = [asyncio.ensure_future(panel.ask(judge, ask, _ROLE)) for ask in asks]
        try:
            return [await task for task in tasks]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _offline(self, panel: Panel, answers: Sequence[Gathered]) -> list[_Scored]:
        replies = [each.reply for each in answers]
        measured = offline_scores(replies, asked_for(panel.request, replies), self.quality_metric)
        return [_Scored(each, found.pop("score"), found) for each, found in zip(answers, measured, strict=True)]

    def _line(self, rank: int, each: _Scored) -> dict[str, Any]:
        line: dict[str, Any] = {"rank": rank, "score": each.score, "models": each.answer.models}
        if each.measures:
            line["measures"] = each.measures
        if self.return_all:
            line["message"] = each.answer.reply.message
        return line


def _read(reply: Reply, order: Sequence[Gathered]) -> dict[str, float] | None:
    """Digest -> score from one round of the judge."""
    scores = read_scores(reply.text, LABELS[: len(order)]) if reply.response is not None else None
    return {each.digest: scores[label] for label, each in zip(LABELS, order, strict=False)} if scores else None
