"""Performs I/O: reads usage and costs from SQLite, in the shape of `GET /v1/usage`."""

from __future__ import annotations

import sqlite3
from typing import Any

from proxy.schema.errors import BadRequest
from proxy.schema.records import NANO_PER_USD, UsageQuery

# The groupings and their SQL. No text from a caller ever reaches a statement.
_GROUPS = {
    "model": "model",
    "provider": "provider",
    "day": "strftime('%Y-%m-%d', opened_ns / 1000000000, 'unixepoch')",
    "task_type": "task_type",
}
_WHERE = " FROM calls WHERE opened_ns >= :since AND opened_ns < :until AND (:key_id IS NULL OR key_id = :key_id)"
_SUMS = """
    COUNT(*) AS calls,
    SUM(success) AS successes,
    SUM(closed_ns IS NOT NULL AND NOT success) AS errors,
    SUM(input_tokens) AS input_tokens,
    SUM(output_tokens) AS output_tokens,
    SUM(total_tokens) AS total_tokens,
    SUM(cached_tokens) AS cached_tokens,
    SUM(reasoning_tokens) AS reasoning_tokens,
    SUM(cost_nano) AS cost_nano,
    SUM(closed_ns IS NOT NULL AND cost_nano IS NULL) AS unpriced_calls,
    SUM(fallback) AS fallbacks,
    SUM(replay_of IS NOT NULL) AS replays,
    AVG(CASE WHEN attempts > 0 THEN latency_ms END) AS avg_latency_ms
"""
_COUNTERS = (
    *("calls", "successes", "errors", "input_tokens", "output_tokens", "total_tokens", "cached_tokens"),
    *("reasoning_tokens", "unpriced_calls", "fallbacks", "replays"),
)
_END = 2**63 - 1


def read_usage(connection: sqlite3.Connection, query: UsageQuery) -> dict[str, Any]:
    """`total` over the period, and `groups` sorted by key, both from one snapshot.

    `errors` counts ended calls that are not `ok`. Latencies are milliseconds of calls that reached a provider, with
    nearest-rank percentiles. `cost_usd` sums the known costs (null: none is known); `unpriced_calls` counts the rest.
    """
    for name in query.group_by:
        if name not in _GROUPS:
            raise BadRequest(f"Cannot group by {name!r}. Known: {', '.join(_GROUPS)}.", param="group_by")
    connection.execute("BEGIN")
    total = _read(connection, query, ())
    groups = _read(connection, query, query.group_by) if query.group_by else []
    connection.execute("COMMIT")
    return {"total": total[0], "groups": groups}


def _read(connection: sqlite3.Connection, query: UsageQuery, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    numbers = [str(position + 1) for position in range(len(keys))]
    columns = "".join(_GROUPS[key] + " AS key" + number + ", " for key, number in zip(keys, numbers, strict=True))
    names = ", ".join("key" + number for number in numbers)
    parameters = {
        "since": query.since_ns or 0,
        "until": _END if query.until_ns is None else query.until_ns,
        "key_id": query.key_id,
    }
    sums = "SELECT " + columns + _SUMS + _WHERE + (" GROUP BY " + names + " ORDER BY " + names if keys else "")
    cursor = connection.execute(sums, parameters)
    fields = [description[0] for description in cursor.description][len(keys) :]
    latency = _percentiles(connection, parameters, columns, names, "latency_ms")
    first_token = _percentiles(connection, parameters, columns, names, "first_token_ms")
    rows = []
    for row in cursor.fetchall():
        key = row[: len(keys)]
        found = dict(zip(fields, row[len(keys) :], strict=True))
        p50, p95 = latency.get(key, (None, None))
        rows.append(
            dict(zip(keys, key, strict=True)) | _usage_row(found, p50, p95, first_token.get(key, (None, None))[0])
        )
    return rows


def _usage_row(
    found: dict[str, Any], p50: float | None, p95: float | None, first_token: float | None
) -> dict[str, Any]:
    counters = {name: found[name] or 0 for name in _COUNTERS}
    cost_nano = found["cost_nano"]
    if cost_nano is None and not counters["unpriced_calls"]:
        cost_nano = 0
    return counters | {
        "cost_usd": None if cost_nano is None else cost_nano / NANO_PER_USD,
        "avg_latency_ms": found["avg_latency_ms"],
        "p50_latency_ms": p50,
        "p95_latency_ms": p95,
        "p50_first_token_ms": first_token,
        "savings_usd": None,
    }


_RANKED = """
    SELECT {names} MAX(CASE WHEN place = (size * 50 + 99) / 100 THEN value END),
        MAX(CASE WHEN place = (size * 95 + 99) / 100 THEN value END)
    FROM (
        SELECT {names} value, ROW_NUMBER() OVER ({partition} ORDER BY value) AS place,
            COUNT(*) OVER ({partition}) AS size
        FROM (SELECT {columns} {value} AS value {where} AND attempts > 0 AND {value} IS NOT NULL)
    )
"""


def _percentiles(
    connection: sqlite3.Connection, parameters: dict[str, Any], columns: str, names: str, value: str
) -> dict[tuple[Any, ...], tuple[float | None, float | None]]:
    """The 50th and 95th percentile of a column per group, by nearest rank."""
    parts = {
        "{names}": names + ", " if names else "",
        "{partition}": "PARTITION BY " + names if names else "",
        "{columns}": columns,
        "{value}": value,
        "{where}": _WHERE,
    }
    statement = _RANKED + (" GROUP BY " + names if names else "")
    for place, text in parts.items():
        statement = statement.replace(place, text)
    return {row[:-2]: (row[-2], row[-1]) for row in connection.execute(statement, parameters)}
