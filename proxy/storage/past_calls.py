"""Performs I/O: reads single calls from SQLite: one with its attempts, and the last ones."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from typing import Any

import msgspec

from proxy.schema.queries import CallDetails
from proxy.schema.records import NANO_PER_USD, PastCall, Tokens
from proxy.storage.ensemble_calls import read_decided
from proxy.storage.feedback import ratings_of
from proxy.storage.repricing import priced_attempts

_CALL = """
    SELECT id, opened_ns, key_id, requested_model, model, provider, stream, task_type, config_version, outcome, status,
        error_code, input_tokens, output_tokens, total_tokens, cached_tokens, cache_write_tokens, reasoning_tokens,
        cost_nano, charged_nano, estimated, latency_ms, first_token_ms, fallback, success, dropped, step, rule,
        strategy, facts, snapshot, candidates, replay_of, prompt, prompt_version, prompt_label, experiment, variant,
        tags, session, agent, parent_agent
    FROM calls WHERE id = :id AND (:key_id IS NULL OR key_id = :key_id)
"""
_ATTEMPTS = """
    SELECT id, parent, seat, provider || '/' || model AS model, outcome, status, error_code AS code,
        error_message AS message,
        input + cache_read + cache_write AS input_tokens, cache_read AS cached_tokens, output AS output_tokens,
        usage_source, cost_nano, duration_ms, first_token_ms, upstream_request_id, price_version
    FROM attempts WHERE call_id = ? ORDER BY seq
"""
_STARTS = """
    SELECT attempts.id, MAX(0, attempts.opened_ns - calls.opened_ns) / 1e6
    FROM attempts JOIN calls ON calls.id = call_id WHERE call_id = ?
"""
_LATEST = """
    SELECT opened_ns, key_id, requested_model, provider || '/' || model, facts,
        input_tokens - cached_tokens - cache_write_tokens, cached_tokens, cache_write_tokens, output_tokens,
        reasoning_tokens
    FROM calls WHERE attempts > 0 AND closed_ns IS NOT NULL ORDER BY opened_ns DESC LIMIT ?
"""
_MONEY = {"cost_nano": "cost_usd", "charged_nano": "charged_usd"}
_BOOLEANS = ("stream", "estimated", "fallback", "success")
_DECISION = ("step", "rule", "strategy", "facts", "snapshot", "candidates")


def read_call(connection: sqlite3.Connection, call_id: str, key_id: str | None) -> dict[str, Any] | None:
    """One call in the shape of `GET /v1/requests/{id}`, except that its attempts are a list of rows with `cost_nano`,
    and the candidates of its decision are in their stored form.

    None if there is none, or it is another key's; `key_id` None: any key.
    """
    connection.row_factory = sqlite3.Row
    connection.execute("BEGIN")
    row = connection.execute(_CALL, {"id": call_id, "key_id": key_id}).fetchone()
    attempts = [] if row is None else connection.execute(_ATTEMPTS, (call_id,)).fetchall()
    ratings = [] if row is None else ratings_of(connection, call_id)
    connection.execute("COMMIT")
    return None if row is None else {**_call_of(dict(row), [dict(each) for each in attempts]), "feedback": ratings}


def read_details(connection: sqlite3.Connection, call_id: str) -> CallDetails:
    """What is kept of a call besides its row; empty if there is none."""
    connection.execute("BEGIN")
    starts = dict(connection.execute(_STARTS, (call_id,)).fetchall())
    found = CallDetails(starts, priced_attempts(connection, [call_id]), read_decided(connection, call_id))
    connection.execute("COMMIT")
    return found


def read_latest(connection: sqlite3.Connection, count: int) -> list[PastCall]:
    """The last calls that reached a provider and have ended, newest first."""
    rows = connection.execute(_LATEST, (count,)).fetchall()
    return [
        PastCall(opened_ns, key_id, requested, model, facts, Tokens(*(max(0, count) for count in counts)))
        for opened_ns, key_id, requested, model, facts, *counts in rows
    ]


def row_of(row: dict[str, Any]) -> dict[str, Any]:
    """The columns of one call in the form and order of the API."""
    opened_ns = row["opened_ns"]
    moment = datetime.fromtimestamp(opened_ns // NANO_PER_USD, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    shown: dict[str, Any] = {}
    for name, value in row.items():
        if name == "opened_ns":
            shown["timestamp"] = f"{moment}.{opened_ns // 1_000_000 % 1000:03d}Z"
        elif name in _MONEY:
            shown[_MONEY[name]] = None if value is None else value / NANO_PER_USD
        elif name == "tags":
            shown["tags"] = msgspec.json.decode(value) if value else []
        else:
            shown[name] = bool(value) if name in _BOOLEANS and value is not None else value
    return shown


def _call_of(row: dict[str, Any], attempts: list[dict[str, Any]]) -> dict[str, Any]:
    dropped = row.pop("dropped")
    decision = {name: row.pop(name) for name in _DECISION}
    if decision["facts"] is not None:
        decision["facts"] = msgspec.json.decode(decision["facts"])
    return {
        **row_of(row),
        "dropped": msgspec.json.decode(dropped) if dropped else [],
        "decision": decision,
        "attempts": attempts,
    }
