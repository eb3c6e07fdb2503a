"""Translates: what is kept of a call beside its row into what its page shows: money by part, votes, rules. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from proxy.metering.pricing import ModelPrice
from proxy.metering.reprice import reprice, tokens_of
from proxy.metering.repricing import price_on
from proxy.routing.decide import rules_tried
from proxy.routing.named import NAMED
from proxy.routing.names import Names
from proxy.routing.rules import RuleTried
from proxy.routing.stored_facts import restored
from proxy.schema.ensembles import EnsembleRecord, SeatRecord
from proxy.schema.queries import StoredAttempt
from proxy.schema.records import NANO_PER_USD as NANO
from proxy.schema.records import Cost, Tokens
from proxy.server.web.words import plain

_PARTS = {
    "fresh input": "input",
    "cache read": "cache_read",
    "cache write": "cache_write",
    "output": "output",
    "searches": "searches",
}
PriceOf = Callable[[str], tuple[ModelPrice | None, str]]


class CostLine(Struct, frozen=True):
    """A part of what an attempt cost. `count` None: a fee for the request."""

    part: str
    count: int | None
    usd: float


class SeatShown(Struct, frozen=True):
    """A member of an ensemble in a call. `vote`: a letter; equal answers share it. `is_final`: the ensemble's own."""

    name: str
    model: str
    state: str
    outcome: str
    vote: str
    is_final: bool
    weight: float
    cost_usd: float | None
    latency_ms: float


def money_of(attempts: list[StoredAttempt], price_of: PriceOf) -> dict[str, list[CostLine]]:
    """The lines of each attempt, by its id. An attempt whose cost no price of today's files gives has none."""
    return {each.id: lines for each in attempts if (lines := _lines(each, price_of))}


def _lines(attempt: StoredAttempt, price_of: PriceOf) -> list[CostLine]:
    day = datetime.fromtimestamp(attempt.opened_ns // NANO, UTC).date().isoformat()
    for on in ("9999-12-31", day):

        def found(model: str, on: str = on) -> ModelPrice | None:
            return price_on(price_of(f"{attempt.provider}/{model}")[0], on)

        cost = reprice(attempt.parts, found(attempt.model), found)
        if cost is not None and cost.total == attempt.cost_nano:
            return _parts_of(cost, tokens_of(attempt.parts))
    return []


def _parts_of(cost: Cost, tokens: Tokens) -> list[CostLine]:
    used = [tokens, *(each for _, each in tokens.others)]
    lines = []
    for part, name in _PARTS.items():
        count = sum(getattr(each, name) for each in used)
        if count:
            lines.append(CostLine(part, count, getattr(cost, name) / NANO))
    return [*lines, CostLine("per request", None, cost.requests / NANO)] if cost.requests else lines


def seats_of(record: EnsembleRecord) -> list[SeatShown]:
    """The members in their order, then the stronger model that was asked after them."""
    seats = [_seat(each, record) for each in record.members]
    return seats if record.escalation is None else [*seats, _seat(record.escalation, record, " (escalation)")]


def _seat(seat: SeatRecord, record: EnsembleRecord, role: str = "") -> SeatShown:
    is_quiet = seat.outcome == "cancelled"
    return SeatShown(
        name=plain(seat.name) + role,
        model=plain(seat.model),
        state="good" if seat.outcome == "ok" else "quiet" if is_quiet else "bad",
        outcome=plain(seat.outcome.replace("_", " ")),
        vote=letter_of(seat.answer),
        is_final=seat.answer is not None and seat.answer == record.answer,
        weight=seat.weight,
        cost_usd=None if seat.cost_nano is None else seat.cost_nano / NANO,
        latency_ms=seat.latency_ms,
    )


def letter_of(answer: int | None) -> str:
    """A to Z for the answers of a call, then numbers."""
    if answer is None:
        return plain(None)
    return chr(ord("A") + answer) if answer < 26 else str(answer + 1)


def rules_of(found: Mapping[str, Any], names: Names, version: str) -> tuple[list[RuleTried], str]:
    """The rules that were tried, with the reason why each did not match; or none, and why they are not known.

    They are tried again on the kept facts, so that they need the configuration that the call ran on.
    """
    decision = found["decision"]
    if decision["step"] is None or decision["step"] == NAMED or decision["facts"] is None:
        return [], ""
    if found["config_version"] != version:
        return [], "The call ran on another configuration than the one of now, so its rules cannot be tried again."
    facts = restored(msgspec.json.encode(decision["facts"]).decode(), found["requested_model"], found["key_id"])
    tried = list(rules_tried(names, facts))
    matched = next((rule.name for rule in tried if rule.matched), None)
    if decision["rule"] not in (matched, None):
        return [], "What is kept of the request does not tell why its rule matched."
    return [RuleTried(plain(rule.name), rule.matched, plain(rule.why, 300)) for rule in tried], ""
