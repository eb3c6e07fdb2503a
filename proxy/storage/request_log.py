"""Performs I/O: reads the list of calls from SQLite, page by page, newest first."""

from __future__ import annotations

import sqlite3
from typing import Any

from proxy.schema.queries import LogQuery
from proxy.storage.past_calls import row_of

_COLUMNS = """
    id, opened_ns, key_id, requested_model, model, provider, stream, task_type, outcome, status, error_code,
    input_tokens, output_tokens, total_tokens, cached_tokens, cache_write_tokens, reasoning_tokens, cost_nano,
    charged_nano, estimated, latency_ms, first_token_ms, attempts, fallback, success, step, rule, strategy, ensemble,
    prompt, prompt_version, prompt_label, experiment, variant, tags, session, agent, parent_agent
"""
# The condition that each filter adds. No text from a caller ever reaches a statement.
_FILTERS = {
    **{name: name + " = :" + name for name in ("provider", "rule", "strategy", "ensemble", "prompt", "session")},
    **{name: name + " = :" + name for name in ("agent", "outcome", "experiment", "variant")},
    "model": "(model = :model OR provider || '/' || model = :model)",
    "key": "key_id = :key",
    "task": "task_type = :task",
    "tag": "EXISTS (SELECT 1 FROM json_each(tags) WHERE value = :tag)",
}
_OTHERS = {
    "since_ns": "opened_ns >= :since_ns",
    "until_ns": "opened_ns < :until_ns",
    "key_id": "key_id = :key_id",
    "status": "status = :status",
    "min_cost_nano": "cost_nano >= :min_cost_nano",
    "min_latency_ms": "latency_ms >= :min_latency_ms",
}
_AFTER = "opened_ns <= :after_ns AND (opened_ns < :after_ns OR id < :after_id)"  # the index on opened_ns serves it


def read_log(connection: sqlite3.Connection, query: LogQuery) -> list[dict[str, Any]]:
    """The calls that match all filters, with `opened_ns` for the cursor; one more than `limit` if there are more."""
    values: dict[str, Any] = {name: getattr(query, name) for name in _OTHERS}
    conditions = [condition for name, condition in _OTHERS.items() if values[name] is not None]
    conditions += [_FILTERS[name] for name in query.filters]
    if query.after is not None:
        conditions.append(_AFTER)
        values["after_ns"], values["after_id"] = query.after
    statement = "SELECT " + _COLUMNS + " FROM calls" + (" WHERE " + " AND ".join(conditions) if conditions else "")
    statement += " ORDER BY opened_ns DESC, id DESC LIMIT " + str(query.limit + 1)
    connection.row_factory = sqlite3.Row
    rows = connection.execute(statement, values | query.filters).fetchall()
    return [{**row_of(dict(row)), "opened_ns": row["opened_ns"]} for row in rows]
