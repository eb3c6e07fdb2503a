"""Translates: a panel's asks and its ensemble's decision into the record of its call, without any text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from proxy.ensembles.base import Decided, Reply
from proxy.ensembles.votes import LARGE, size_of, vote_of
from proxy.pipeline.attempt import Attempt
from proxy.pipeline.panel_report import Asked
from proxy.schema.ensembles import EnsembleRecord, SeatRecord

_ESCALATION = "escalation"
_OWN_TEXT = "written"  # `method` of an answer that a judge wrote: no member's answer can be compared with it


class PanelRecord:
    """One panel at work. Before `note` it has not decided, or it failed."""

    def __init__(self, name: str, strategy: str, asked: Sequence[Asked]) -> None:
        self._decided: Decided | None = None
        self._streamed: Reply | None = None
        self._name = name
        self._strategy = strategy
        self._asked = asked

    def note(self, decided: Decided, streamed: Reply | None) -> None:
        """Records the decision. `streamed`: the reply passed on to the client as it arrived, if any."""
        self._decided, self._streamed = decided, streamed

    def record(self, attempts: Sequence[Attempt]) -> EnsembleRecord | None:
        """The record; None: no model was asked. `attempts`: those of the call, all ended."""
        if not any(asked.attempts for asked in self._asked):
            return None
        costs = {attempt.id: None if (cost := attempt.cost()) is None else cost.total for attempt in attempts}
        report = {} if self._decided is None else self._decided.report
        seated = [asked for asked in self._asked if asked.seat is not None]
        numbers = _numbers(seated, report.get("seats") or {})
        confidence = report.get("confidence")
        answer = None if self._decided is None else self._answer(self._decided, seated, numbers)
        after = [_seat(asked, answer, costs) for asked in self._asked if asked.role == _ESCALATION]
        return EnsembleRecord(
            name=self._name,
            strategy=self._strategy,
            members=tuple(_seat(asked, answer, costs) for asked, answer in zip(seated, numbers, strict=True)),
            answer=answer,
            confidence=float(confidence) if isinstance(confidence, int | float) else None,
            agreed=report.get("agreed") is True,
            escalation=after[0] if after else None,
        )

    def _answer(self, decided: Decided, seated: Sequence[Asked], numbers: Sequence[int | None]) -> int | None:
        """The number of the ensemble's answer: that of the member who gave it, else of one who gave an equal answer."""
        used = set(decided.attempts)
        for asked, number in zip(seated, numbers, strict=True):
            if used and used <= set(asked.attempts):
                return number
        if decided.report.get("method") == _OWN_TEXT:
            return None
        final = Reply(response=decided.response) if decided.response is not None else self._streamed
        said = None if final is None else said_by(final)
        if said is None:
            return None
        alike = [number for asked, number in zip(seated, numbers, strict=True) if _said(asked) == said]
        return alike[0] if alike else len({number for number in numbers if number is not None})


def said_by(reply: Reply) -> str | None:
    """A key that is equal for answers that say the same; None for an empty answer, or one too large for the loop."""
    vote = vote_of(reply) if size_of(reply) <= LARGE else None
    return None if vote is None else vote.key


def _said(asked: Asked) -> str | None:
    return None if asked.reply is None or asked.outcome != "ok" else said_by(asked.reply)


def _numbers(seated: Sequence[Asked], votes: Mapping[int, Mapping[str, Any]]) -> list[int | None]:
    """The number of each member's answer. `votes`: seat -> what a strategy that counts votes reports."""
    known: dict[tuple[str, str], int] = {}
    numbers: list[int | None] = []
    for asked in seated:
        vote = votes.get(asked.seat.index, {}).get("vote") if asked.seat is not None else None
        said = None if vote is not None else _said(asked)
        answer = ("vote", str(vote)) if vote is not None else ("said", said or "")
        numbers.append(None if vote is said is None else known.setdefault(answer, len(known)))
    return numbers


def _seat(asked: Asked, answer: int | None, costs: Mapping[str, int | None]) -> SeatRecord:
    """`answer`: the number of its answer, if it gave one."""
    paid = [costs.get(attempt, 0) for attempt in asked.attempts]
    return SeatRecord(
        name=asked.model,
        outcome=asked.outcome,
        answer=answer if asked.outcome == "ok" else None,
        weight=asked.seat.weight if asked.seat is not None else 1.0,
        model=(asked.deployments[-1] if asked.deployments else "") or None,
        cost_nano=None if None in paid else sum(each for each in paid if each is not None),
        latency_ms=round(asked.latency_ms, 1),
    )
