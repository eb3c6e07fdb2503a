"""Performs I/O: the SQL that writes a batch, inside the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from proxy.schema.records import NO_NOTES, AttemptEnd, AttemptOpen, CallOpen, Outcome
from proxy.storage.admit import Admitted
from proxy.storage.base import Answers, RowRefused
from proxy.storage.batch import Batch, ClosedCall, EndedAttempt, first_hold
from proxy.storage.ensemble_calls import add_decided
from proxy.storage.spending import book_lost, open_rows, written

TERMS_JOINT = "+"
OTHER_PARTS = ("input", "cache_read", "cache_write", "output", "reasoning", "cache_write_1h", "searches")
_OPEN_CALL = """
    INSERT INTO calls (id, opened_ns, owner, key_id, requested_model, stream, task_type, config_version, provider,
        model, hold_nano, attempts, step, rule, strategy, facts, snapshot, candidates, tags, session, agent,
        parent_agent, charges, replay_of, ensemble, prompt, prompt_version, prompt_label, experiment, variant,
        experiment_unit, outcome)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'open')
    ON CONFLICT (id) DO NOTHING
"""
_IS_OURS = "SELECT 1 FROM calls WHERE id = ? AND owner = ? AND opened_ns = ?"
_OPEN_ATTEMPT = """
    INSERT INTO attempts (call_id, seq, id, provider, model, opened_ns, hold_nano, price_version, parent, seat, charges,
        outcome)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'open') ON CONFLICT (call_id, seq) DO NOTHING
"""
_IS_SAME_ATTEMPT = "SELECT 1 FROM attempts WHERE call_id = ? AND seq = ? AND id = ? AND opened_ns = ?"
_WITHDRAW = "DELETE FROM attempts WHERE call_id = ? AND seq = ? AND id = ? AND closed_ns IS NULL"
_UNOPEN = "DELETE FROM calls WHERE id = ? AND owner = ? AND closed_ns IS NULL"
_HOLD = "UPDATE calls SET hold_nano = ? WHERE id = ? AND closed_ns IS NULL"
# `closed_ns IS NULL`: only the first end of a call or an attempt counts, even if it came from another process's sweep.
_END_ATTEMPT = """
    UPDATE attempts SET closed_ns = ?, outcome = ?, status = ?, error_code = ?, input = ?, cache_read = ?,
        cache_write = ?, output = ?, reasoning = ?, cache_write_1h = ?, searches = ?, usage_source = ?, cost_nano = ?,
        duration_ms = ?, first_token_ms = ?, upstream_request_id = ?
    WHERE call_id = ? AND seq = ? AND closed_ns IS NULL
"""
# Runs before the end of the same attempt. Most attempts have none of this.
_BILLED_PARTS = """
    UPDATE attempts SET input_audio = ?, input_image = ?, cache_read_audio = ?, output_audio = ?, output_image = ?,
        service_tier = ?, answered_model = ?, others = ?, raw_usage = ?, provider_cost_nano = ?,
        price_version = IFNULL(?, price_version), error_message = ?
    WHERE call_id = ? AND seq = ? AND closed_ns IS NULL
"""
# Runs before the end of the same call. Only calls in experiments have any.
_JUDGED = "UPDATE calls SET valid_json = ?, refusal = ? WHERE id = ? AND closed_ns IS NULL"
# `OR FAIL`: otherwise SQLite copies each page that the statement changes, because of the trigger. A batch that fails
# is rolled back as a whole.
_CLOSE_CALL = """
    UPDATE OR FAIL calls SET closed_ns = ?, provider = ?, model = ?, outcome = ?, status = ?, error_code = ?,
        input_tokens = ?, output_tokens = ?, total_tokens = ?, cached_tokens = ?, cache_write_tokens = ?,
        reasoning_tokens = ?, cost_nano = ?, estimated = ?, latency_ms = ?, first_token_ms = ?, fallback = ?,
        attempts = ?, success = ?, dropped = ?, charged_nano = ?, downgraded_from = ?
    WHERE id = ? AND closed_ns IS NULL
"""
# The end of these requests is unknown, so they are charged their holds until reconciled.
_LOSE_ATTEMPTS = """
    UPDATE attempts SET closed_ns = :now, outcome = 'unknown', usage_source = 'none', cost_nano = hold_nano
    WHERE closed_ns IS NULL AND call_id IN (SELECT id FROM calls WHERE closed_ns IS NULL AND {which})
"""
_COST_OF_LOST = """CASE WHEN IFNULL(MAX(cost_nano IS NULL AND (outcome = 'unknown'
    OR input + cache_read + cache_write + output > 0)), 0) = 0 THEN IFNULL(SUM(cost_nano), 0) END"""
_LOSE_CALLS = """
    UPDATE calls SET closed_ns = :now, outcome = 'unknown', estimated = 1, success = 0,
        (attempts, input_tokens, output_tokens, total_tokens, cached_tokens, cache_write_tokens, reasoning_tokens,
            cost_nano, charged_nano) = (
            SELECT COUNT(*), IFNULL(SUM(input + cache_read + cache_write), 0), IFNULL(SUM(output), 0),
                IFNULL(SUM(input + cache_read + cache_write + output), 0), IFNULL(SUM(cache_read), 0),
                IFNULL(SUM(cache_write), 0), IFNULL(SUM(reasoning), 0),
                {cost}, {cost}
            FROM attempts WHERE call_id = calls.id),
        (provider, model) = (SELECT provider, model FROM attempts WHERE call_id = calls.id ORDER BY seq DESC LIMIT 1)
    WHERE closed_ns IS NULL AND {which}
""".replace("{cost}", _COST_OF_LOST)
_BY_OWNER, _BY_ID = "owner = :which", "id = :which"


# The join runs once per id; `IN (SELECT ...)` would first sort the ids into a table of its own.
_STATES = """
    SELECT calls.id, closed_ns, opened_ns, hold_nano, key_id, task_type, rule
    FROM json_each(?) AS named CROSS JOIN calls ON calls.id = named.value
"""


class CallState(NamedTuple):
    """A call's row before a batch changes it. `closed_ns` None: still open."""

    closed_ns: int | None
    opened_ns: int
    hold_nano: int | None
    key_id: str | None
    task_type: str | None
    rule: str | None


def states(db: sqlite3.Connection, call_ids: Iterable[str]) -> dict[str, CallState]:
    """The rows of these calls, by id; calls without a row are left out.

    Read before `put` changes them, they show what this batch changes: an ended call is not ended again, whether the
    same batch was committed before and its answer was lost, or another process's sweep came first.
    """
    rows = db.execute(_STATES, (msgspec.json.encode(list(call_ids)).decode(),))
    return {row[0]: CallState._make(row[1:]) for row in rows}


def put(db: sqlite3.Connection, batch: Batch, owner: str) -> Answers:
    """Writes the batch, except for attempts that do not fit their budgets.

    Idempotent: if an earlier answer was lost, it finds its own rows and changes nothing. Raises RowRefused for a used
    id, sqlite3.Error, and Python's errors for values that no column can take.
    """
    admitted = Admitted(db, batch, states(db, batch.charges)) if batch.has_charges else None
    if admitted is not None and admitted.refused:
        batch = batch.without(admitted.refused, admitted.refused_calls, admitted.holds)
    _write(db, batch, owner)
    spending = {} if admitted is None else admitted.spending.save()
    for call_id, closed_ns in batch.abandoned.items():
        _lose(db, _BY_ID, call_id, closed_ns)
    return Answers({} if admitted is None else {**admitted.refused}, {}, spending)


def _write(db: sqlite3.Connection, batch: Batch, owner: str) -> None:
    if batch.withdrawn:
        keys = [(attempt.call_id, attempt.seq, attempt.id) for attempt in batch.withdrawn.values()]
        db.executemany(_WITHDRAW, keys)
    if batch.unopened:
        db.executemany(_UNOPEN, [(call_id, owner) for call_id in batch.unopened])
    if batch.opened:
        opened = [_open_call_values(call, attempt, owner) for call, attempt in batch.opened.values()]
        if db.executemany(_OPEN_CALL, opened).rowcount < len(opened):
            calls = [call for call, _ in batch.opened.values()]
            _check(db, _IS_OURS, [(call.id, owner, call.opened_ns) for call in calls], "call")
    if batch.intents:
        intended = [_open_attempt_values(attempt) for attempt in batch.intents.values()]
        if db.executemany(_OPEN_ATTEMPT, intended).rowcount < len(intended):
            intents = batch.intents.values()
            keys_there = [(each.call_id, each.seq, each.id, each.opened_ns) for each in intents]
            _check(db, _IS_SAME_ATTEMPT, keys_there, "attempt of call")
    if batch.holds:
        db.executemany(_HOLD, [(hold_nano, call_id) for call_id, hold_nano in batch.holds.items()])
    if batch.ended:
        if parts := [_billed_parts(ended) for ended in batch.ended if _has_parts(ended.end)]:
            db.executemany(_BILLED_PARTS, parts)
        db.executemany(_END_ATTEMPT, [_end_attempt_values(ended) for ended in batch.ended])
    if batch.closed:
        add_decided(db, batch.closed.values())
        ends = [closed.end for closed in batch.closed.values() if closed.end.judged is not None]
        if judged := [(*map(int, end.judged or ()), end.call_id) for end in ends]:
            db.executemany(_JUDGED, judged)
        db.executemany(_CLOSE_CALL, [_close_call_values(closed) for closed in batch.closed.values()])


def _check(db: sqlite3.Connection, statement: str, keys: list[tuple[Any, ...]], what: str) -> None:
    """Raises RowRefused if an existing row is not the one to be written."""
    for key in keys:
        if db.execute(statement, key).fetchone() is None:
            raise RowRefused(f"the {what} {key[0]} already exists")


def lose_calls_of(db: sqlite3.Connection, owner: str, now_ns: int) -> int:
    """Closes the open calls of a dead owner as `unknown`; returns their number."""
    return _lose(db, _BY_OWNER, owner, now_ns)


def _lose(db: sqlite3.Connection, where: str, which: str, now_ns: int) -> int:
    parameters = {"now": now_ns, "which": which}
    lost = open_rows(db, where, parameters)
    for statement in (_LOSE_ATTEMPTS, _LOSE_CALLS):
        rows = db.execute(statement.replace("{which}", where), parameters).rowcount
    book_lost(db, lost)
    return rows


# sqlite3 binds exact types fast. A bool or an enum takes its slow adapter look-up, hence `int()` and `str()`. So does
# None, hence `_NULL` in columns that are mostly empty: SQLite stores a NaN as NULL, even in STRICT tables.
_NULL = float("nan")


def _open_call_values(call: CallOpen, attempt: AttemptOpen | None, owner: str) -> tuple[Any, ...]:
    decided, labels, used = call.decided, call.labels, call.used
    return (
        call.id,
        call.opened_ns,
        owner,
        call.key_id or _NULL,
        call.requested_model,
        int(call.stream),
        call.task_type or _NULL,
        call.config_version,
        attempt.provider if attempt else None,
        attempt.model if attempt else None,
        first_hold(call, attempt),
        1 if attempt else 0,
        decided.step or _NULL,
        decided.rule or _NULL,
        decided.strategy or _NULL,
        decided.facts or _NULL,
        decided.snapshot or _NULL,
        decided.candidates or _NULL,
        msgspec.json.encode(labels.tags).decode() if labels.tags else _NULL,
        labels.session or _NULL,
        labels.agent or _NULL,
        labels.parent_agent or _NULL,
        written(call.charges) or _NULL,
        call.replay_of or _NULL,
        decided.ensemble or _NULL,
        used.prompt or _NULL,
        used.version or _NULL,
        used.label or _NULL,
        used.experiment or _NULL,
        used.variant or _NULL,
        used.unit or _NULL,
    )


def _open_attempt_values(attempt: AttemptOpen) -> tuple[Any, ...]:
    return (
        attempt.call_id,
        attempt.seq,
        attempt.id,
        attempt.provider,
        attempt.model,
        attempt.opened_ns,
        attempt.hold_nano,
        attempt.price_version,
        attempt.parent or _NULL,
        attempt.seat,
        written(attempt.charges) or _NULL,
    )


def _end_attempt_values(ended: EndedAttempt) -> tuple[Any, ...]:
    end = ended.end
    tokens = end.tokens
    return (
        ended.closed_ns,
        str(end.outcome),
        end.status,
        end.error_code or _NULL,
        tokens.input,
        tokens.cache_read,
        tokens.cache_write,
        tokens.output,
        tokens.reasoning,
        tokens.cache_write_1h,
        tokens.searches,
        end.usage_source,
        end.cost_nano,
        end.duration_ms,
        _NULL if end.first_token_ms is None else end.first_token_ms,
        end.upstream_request_id,
        end.call_id,
        ended.seq,
    )


def _has_parts(end: AttemptEnd) -> bool:
    tokens = end.tokens
    return end.notes is not NO_NOTES or bool(tokens.terms or tokens.others) or tokens.has_media


def _billed_parts(ended: EndedAttempt) -> tuple[Any, ...]:
    tokens, notes = ended.end.tokens, ended.end.notes
    others = [[model, [getattr(used, part) for part in OTHER_PARTS]] for model, used in tokens.others]
    return (
        tokens.input_audio,
        tokens.input_image,
        tokens.cache_read_audio,
        tokens.output_audio,
        tokens.output_image,
        TERMS_JOINT.join(tokens.terms) or None,
        notes.answered_model,
        msgspec.json.encode(others).decode() if others else None,
        notes.raw_usage,
        notes.provider_cost_nano,
        notes.price_version,
        notes.message,
        ended.end.call_id,
        ended.seq,
    )


def _close_call_values(closed: ClosedCall) -> tuple[Any, ...]:
    end = closed.end
    return (
        closed.closed_ns,
        closed.provider,
        closed.model,
        str(end.outcome),
        end.status,
        end.error_code or _NULL,
        closed.input_tokens,
        closed.output_tokens,
        closed.input_tokens + closed.output_tokens,
        closed.cached_tokens,
        closed.cache_write_tokens,
        closed.reasoning_tokens,
        closed.cost_nano,
        int(closed.estimated),
        end.latency_ms,
        _NULL if end.first_token_ms is None else end.first_token_ms,
        int(end.fallback),
        closed.attempts,
        int(end.outcome is Outcome.OK),
        msgspec.json.encode(end.dropped).decode() if end.dropped else _NULL,
        closed.charged_nano,
        end.downgraded_from or _NULL,
        end.call_id,
    )
