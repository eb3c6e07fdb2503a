"""Translates: what a panel asked, and what its ensemble decided, into the record of its call. It holds no text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from proxy.ensembles.base import Decided, Reply
from proxy.pipeline.attempt import Attempt
from proxy.pipeline.panel_report import Asked
from proxy.schema.ensembles import EnsembleRecord, SeatRecord
from proxy.schema.json import encode

_LONG = 64 * 1024  # characters; longer texts are compared as they are, which takes no time
_OWN_TEXT = "written"  # `method` of an answer that a judge wrote, which nobody's can be compared with


class PanelRecord:
    """One panel at work. `decided` None: it has not decided, or it failed."""

    def __init__(self, name: str, strategy: str, asked: Sequence[Asked]) -> None:
        self.decided: Decided | None = None
        self._name = name
        self._strategy = strategy
        self._asked = asked

    def record(self, attempts: Sequence[Attempt]) -> EnsembleRecord | None:
        """None: nobody was asked. `attempts`: those of the call, all ended."""
        if not any(asked.attempts for asked in self._asked):
            return None
        costs = {attempt.id: None if (cost := attempt.cost()) is None else cost.total for attempt in attempts}
        report = self.decided.report if self.decided is not None else {}
        seated = [asked for asked in self._asked if asked.seat is not None]
        numbers = _numbers(seated, report.get("seats") or {})
        confidence = report.get("confidence")
        return EnsembleRecord(
            name=self._name,
            strategy=self._strategy,
            members=tuple(_seat(asked, answer, costs) for asked, answer in zip(seated, numbers, strict=True)),
            answer=None if self.decided is None else self._answer(self.decided, seated, numbers),
            confidence=float(confidence) if isinstance(confidence, int | float) else None,
            agreed=report.get("agreed") is True,
            escalated=any(asked.role == "escalation" for asked in self._asked),
        )

    def _answer(self, decided: Decided, seated: Sequence[Asked], numbers: Sequence[int | None]) -> int | None:
        """The number of the ensemble's answer: that of the member whose it is, else of one that says the same."""
        used = set(decided.attempts)
        for asked, number in zip(seated, numbers, strict=True):
            if used and used <= set(asked.attempts):
                return number
        if decided.report.get("method") == _OWN_TEXT:
            return None
        final = Reply(response=decided.response) if decided.response is not None else self._streamed(used)
        said = None if final is None else said_by(final)
        if said is None:
            return None
        alike = [number for asked, number in zip(seated, numbers, strict=True) if _said(asked) == said]
        return alike[0] if alike else len({number for number in numbers if number is not None})

    def _streamed(self, attempts: set[str]) -> Reply | None:
        """The reply that went to the client as it came."""
        return next((asked.reply for asked in self._asked if attempts and attempts <= set(asked.attempts)), None)


def said_by(reply: Reply) -> str | None:
    """Equal for answers that say the same; None for an answer that says nothing."""
    calls = [call.get("function") for call in reply.message.get("tool_calls") or ()]
    text = reply.text
    if len(text) <= _LONG:
        text = " ".join(text.split()).casefold()
    return f"{text}\0{encode(calls).decode()}" if text or calls else None


def _said(asked: Asked) -> str | None:
    return None if asked.reply is None or asked.outcome != "ok" else said_by(asked.reply)


def _numbers(seated: Sequence[Asked], votes: Mapping[int, Mapping[str, Any]]) -> list[int | None]:
    """The number of each member's answer. `votes`: what a strategy that counts votes says of them, by seat."""
    known: dict[tuple[bool, str], int] = {}
    numbers: list[int | None] = []
    for asked in seated:
        vote = votes.get(asked.seat.index, {}).get("vote") if asked.seat is not None else None
        said = vote if isinstance(vote, str) else _said(asked)
        numbers.append(None if said is None else known.setdefault((said is vote, said), len(known)))
    return numbers


def _seat(asked: Asked, answer: int | None, costs: Mapping[str, int | None]) -> SeatRecord:
    paid = [costs.get(attempt, 0) for attempt in asked.attempts]
    return SeatRecord(
        name=asked.model,
        outcome=asked.outcome,
        answer=answer,
        weight=asked.seat.weight if asked.seat is not None else 1.0,
        model=(asked.deployments[-1] if asked.deployments else "") or None,
        cost_nano=None if None in paid else sum(each for each in paid if each is not None),
        latency_ms=round(asked.latency_ms, 1),
    )
