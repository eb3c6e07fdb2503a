"""Translates: rows of calls into what the list of requests and the page of one show. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from msgspec import Struct

from proxy.metering.ledger import LedgerState
from proxy.routing.attempt_tree import attempt_tree
from proxy.routing.explain import shown_candidates
from proxy.routing.named import NAMED
from proxy.routing.stored_facts import restored_candidates
from proxy.schema.records import NANO_PER_USD as NANO
from proxy.schema.records import Outcome
from proxy.server.web.words import NOTHING, ago, count, milliseconds, percent, plain, usd
from proxy.storage.retention import StorageState

OUTCOMES = tuple(Outcome)
_WAITS = (Outcome.OPEN, Outcome.UNKNOWN)
_QUIET = (Outcome.CANCELLED, Outcome.CLIENT_CLOSED)


class Row(Struct, frozen=True):
    """A line of the list. `state`: good, bad, quiet or open, for its colour; `at` and `day` its time in the zone."""

    id: str
    day: str
    at: str
    timestamp: str
    state: str
    outcome: str
    model: str
    requested: str
    key: str
    why: str
    tokens: str
    cost: str
    latency: str
    first_token: str
    attempts: int
    marks: list[str]


def row_shown(row: Mapping[str, Any], tz: str) -> Row:
    """A row of `GET /v1/requests`."""
    at = datetime.fromisoformat(row["timestamp"].replace("Z", "+00:00")).astimezone(ZoneInfo(tz))
    marks = ["stream"] if row["stream"] else []
    marks += ["fallback"] if row["fallback"] else []
    marks += ["estimated"] if row["estimated"] else []
    marks += ["ensemble"] if row["ensemble"] else []
    return Row(
        id=row["id"],
        day=f"{at.day} {at:%b}",
        at=f"{at:%H:%M:%S}",
        timestamp=row["timestamp"],
        state=state_of(row["outcome"]),
        outcome=said_outcome(row["outcome"], row["status"], row["error_code"]),
        model=model_name(row),
        requested=plain(row["requested_model"]),
        key=plain(row["key_id"]),
        why=plain(row["rule"] or row["task_type"]),
        tokens=f"{count(row['input_tokens'])} / {count(row['output_tokens'])}",
        cost=usd(row["cost_usd"]),
        latency=milliseconds(row["latency_ms"]),
        first_token=milliseconds(row["first_token_ms"]),
        attempts=row["attempts"] or 0,
        marks=marks,
    )


def state_of(outcome: str) -> str:
    if outcome == Outcome.OK:
        return "good"
    return "open" if outcome in _WAITS else "quiet" if outcome in _QUIET else "bad"


def said_outcome(outcome: str, status: int | None, code: str | None) -> str:
    """The outcome in words, with what the client got."""
    if outcome == Outcome.OK:
        return "ok"
    words = outcome.replace("_", " ")
    return " · ".join([words, *([str(status)] if status else []), *([plain(code)] if code else [])])


def model_name(row: Mapping[str, Any]) -> str:
    """`provider/model`, or a dash where no model was asked."""
    return plain("/".join(part for part in (row["provider"], row["model"]) if part))


class Step(Struct, frozen=True):
    """An attempt, or a group of attempts of which one caused the others. `depth`: how far it is inside others."""

    depth: int
    is_group: bool
    figures: Mapping[str, Any]
    state: str
    outcome: str


def steps(nodes: Sequence[Mapping[str, Any]], depth: int = 0) -> Iterator[Step]:
    """The tree in order, each node before those inside it."""
    for node in nodes:
        if "attempts" in node:
            yield Step(depth, True, node, "quiet", "")
            yield from steps(node["attempts"], depth + 1)
        else:
            said = said_outcome(node["outcome"], node["status"], node["code"])
            yield Step(depth, False, node, state_of(node["outcome"]), said)


def detail(found: Mapping[str, Any], started_ms: Mapping[str, float], tz: str) -> dict[str, Any]:
    """The values of the page of one request, from `Store.call`. `started_ms`: of its attempts, by their ids."""
    decision = found["decision"]
    kept = shown_candidates(restored_candidates(decision["candidates"]), names_all=True)
    attempts = attempt_tree(found["attempts"])
    ends = (started_ms.get(each["id"], 0) + (each["duration_ms"] or 0) for each in found["attempts"])
    at = datetime.fromisoformat(found["timestamp"].replace("Z", "+00:00")).astimezone(ZoneInfo(tz))
    return {
        "call": found,
        "at": f"{at:%a} {at.day} {at:%b} {at.year}, {at:%H:%M:%S}",
        "tz": tz,
        "state": state_of(found["outcome"]),
        "outcome": said_outcome(found["outcome"], found["status"], found["error_code"]),
        "model": model_name(found),
        "decision": decision,
        "is_named": decision["step"] == NAMED,
        "facts": [(name.replace("_", " "), _fact(value)) for name, value in (decision["facts"] or {}).items()],
        "candidates": kept["candidates"],
        "not_allowed": kept["not_allowed"],
        "steps": list(steps(attempts)),
        "started_ms": started_ms,
        "whole_ms": max(ends, default=0) or 1,
        "fresh": max(0, found["input_tokens"] - found["cached_tokens"] - found["cache_write_tokens"]),
        "is_unknown": found["cost_usd"] is None,
        "is_failed": any(each["code"] for each in found["attempts"]),
    }


def _fact(value: Any) -> str:
    if value is None or value == [] or value == {} or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return percent(value) if 0 <= value <= 1 else f"{value:g}"
    if isinstance(value, int):
        return count(value)
    if isinstance(value, list | tuple):
        return plain(", ".join(str(each) for each in value))
    if isinstance(value, dict):
        return plain(", ".join(f"{name}: {each}" for name, each in value.items()))
    return plain(value)


class StorageShown(Struct, frozen=True):
    """The card of the database."""

    calls: int
    oldest: str
    file_bytes: int
    wal_bytes: int
    next_clean_up: str


def storage_shown(state: StorageState, now_ns: int, tz: str) -> StorageShown:
    due_s = (state.next_clean_up_ns - now_ns) / NANO
    oldest = NOTHING
    if state.oldest_ns is not None:
        at = datetime.fromtimestamp(state.oldest_ns // NANO, UTC).astimezone(ZoneInfo(tz))
        oldest = f"{at.day} {at:%b} {at.year} ({ago((now_ns - state.oldest_ns) / NANO)})"
    due = "now" if due_s < 60 else f"in {due_s / 60:.0f} min"
    return StorageShown(state.calls, oldest, state.file_bytes, state.wal_bytes, due)


def database_state(ledger: LedgerState | None) -> str:
    """Whether calls can be written down."""
    if ledger is None or ledger.is_dead:
        return "not running"
    return "cannot be written" if ledger.degraded else "ok"
