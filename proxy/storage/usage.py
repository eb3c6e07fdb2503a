"""Performs I/O: reads usage and costs from SQLite, in the shape of `GET /v1/usage`.

Groups that the rollups distinguish are read from them: from the row of each whole UTC day in the period, of each
remaining hour, and from single calls in the partial hours at both ends. Everything else is read from single calls.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from msgspec import Struct

from proxy.schema.dimensions import DIMENSIONS
from proxy.schema.errors import BadRequest
from proxy.schema.queries import TokenRates, UsageQuery
from proxy.schema.records import NANO_PER_USD
from proxy.storage.histograms import percentiles, unpack
from proxy.storage.rollups import DAY_S, HOUR_S, KEPT, KEY, LISTED, SUMS, TIMED, TIMES, prepare

MAX_GROUPS = 5_000
_HOUR_NS = HOUR_S * NANO_PER_USD
_DAY_H = DAY_S // HOUR_S
_QUARTER_S = 900
_PICO_PER_NANO = 1_000
_END = 2**63 - 1
# The dimensions and their SQL. No text from a caller ever reaches a statement.
_COLUMNS = {
    **{name: name for name in ("model", "provider", "rule", "strategy", "ensemble", "session", "agent")},
    **{name: name for name in ("prompt", "experiment", "variant")},
    "key": "key_id",
    "task": "task_type",
    "tag": "tag.value",
    "hour": "hour_of(start_s)",
    "day": "day_of(start_s)",
}
_MINE = " AND (:key_id IS NULL OR key_id = :key_id)"
_OF_CALL = ", ".join(
    [
        "opened_ns / 1000000000 AS start_s",
        *KEY,
        *(value + " AS " + name for name, value in SUMS.items()),
        *(TIMED.replace("{}", column) + " AS " + name for name, column in TIMES.items()),
    ]
)
_OF_ROLLUP = "SELECT " + ", ".join(["start_s", *KEY, *SUMS, *TIMES]) + " FROM rollups WHERE kept = :kept AND span_s = "
_ENDED = "closed_ns IS NOT NULL AND opened_ns >= :{from} AND opened_ns < :{to}" + _MINE
_CALLS = "SELECT " + _OF_CALL + " FROM calls WHERE " + _ENDED
_SOURCES = " UNION ALL ".join(
    [
        _OF_ROLLUP + str(DAY_S) + " AND start_s >= :day AND start_s < :last_day" + _MINE,
        _OF_ROLLUP + str(HOUR_S) + " AND start_s >= :hour AND start_s < :day" + _MINE,
        _OF_ROLLUP + str(HOUR_S) + " AND start_s >= :last_day AND start_s < :last_hour" + _MINE,
        _CALLS.replace("{from}", "since").replace("{to}", "hour_ns"),
        _CALLS.replace("{from}", "last_hour_ns").replace("{to}", "until"),
        "SELECT "
        + _OF_CALL
        + " FROM "
        + LISTED
        + " WHERE "
        + _ENDED.replace("{from}", "hour_ns").replace("{to}", "last_hour_ns"),
    ]
)
_SINGLE_CALLS = (
    "SELECT "
    + _OF_CALL
    + ", strategy, ensemble, prompt, experiment, variant, session, agent, tags FROM calls WHERE "
    + _ENDED.replace("{from}", "since").replace("{to}", "until")
)


class Sums(Struct, frozen=True):
    """One group: its key and its sums by name, and its two histograms."""

    key: dict[str, str | None]
    values: dict[str, Any]
    latencies: int
    first_tokens: int


def read_usage(connection: sqlite3.Connection, query: UsageQuery) -> dict[str, Any]:
    """`total` over the period, and `groups` sorted by key, both from one snapshot. Neither includes calls in flight.

    Latencies are milliseconds of calls that reached a provider; percentiles are off by at most `histograms.ERROR`.
    `cost_usd` and `charged_usd` sum the known costs, and the parts that keys pay (null: none is known);
    `unpriced_calls` counts the rest. Raises BadRequest.
    """
    for name in query.group_by:
        if name not in DIMENSIONS:
            raise BadRequest(f"Cannot group by {name!r}. Known: {', '.join(DIMENSIONS)}.", param="group_by")
    prepare(connection)
    _add_labels(connection, query.tz)
    connection.execute("BEGIN")
    (total,) = _read(connection, query, ())
    groups = _read(connection, query, query.group_by) if query.group_by else []
    connection.execute("COMMIT")
    return {
        "total": _shown(total, query.baseline),
        "groups": [_shown(group, query.baseline) for group in groups],
    }


def _read(connection: sqlite3.Connection, query: UsageQuery, keys: tuple[str, ...]) -> list[Sums]:
    is_by_call = query.by_call or not all(DIMENSIONS[key].in_rollups for key in keys)
    source = "(" + (_SINGLE_CALLS if keys and is_by_call else _SOURCES) + ") AS used"
    if "tag" in keys:
        source += " LEFT JOIN json_each(used.tags) AS tag"
    names = ["key" + str(number) for number in range(len(keys))]
    columns = ["IFNULL(" + _COLUMNS[key] + ", '') AS " + name for key, name in zip(keys, names, strict=True)]
    columns += ["IFNULL(SUM(" + name + "), 0)" for name in SUMS] + ["histogram(" + name + ")" for name in TIMES]
    statement = "SELECT " + ", ".join(columns) + " FROM " + source
    if keys:
        order = ", ".join(names)
        statement += " GROUP BY " + order + " ORDER BY " + order + " LIMIT " + str(MAX_GROUPS + 1)
    rows = connection.execute(statement, _parameters(query, keys)).fetchall()
    if len(rows) > MAX_GROUPS:
        raise BadRequest(
            f"group_by: more than {MAX_GROUPS} groups. Ask for a shorter time (since, until) or group by less.",
            param="group_by",
        )
    return [
        Sums(
            dict(zip(keys, (value or None for value in row), strict=False)),
            dict(zip(SUMS, row[len(keys) :], strict=False)),
            unpack(row[-2]),
            unpack(row[-1]),
        )
        for row in rows
    ]


def _parameters(query: UsageQuery, keys: tuple[str, ...]) -> dict[str, Any]:
    """The period in parts: `since` to `hour` and `last_hour` to `until` in single calls, hours between, days inside."""
    since, until = query.since_ns or 0, _END if query.until_ns is None else query.until_ns
    hour, last_hour = -(-since // _HOUR_NS), until // _HOUR_NS
    hour_ns, last_hour_ns = hour * _HOUR_NS, last_hour * _HOUR_NS
    if hour >= last_hour:  # no whole hour
        hour, hour_ns, last_hour_ns = last_hour, until, until
    day, last_day = -(-hour // _DAY_H) * _DAY_H, last_hour // _DAY_H * _DAY_H
    if day >= last_day or "hour" in keys or ("day" in keys and query.tz != "UTC"):
        day = last_day = last_hour
    needed = {_COLUMNS[key] for key in keys} | ({"key_id"} if query.key_id is not None else set())
    return {
        "kept": next((kept for kept, names in KEPT.items() if needed.intersection(KEY) <= set(names)), None),
        "key_id": query.key_id,
        "since": since,
        "hour_ns": hour_ns,
        "hour": hour * HOUR_S,
        "day": day * HOUR_S,
        "last_day": last_day * HOUR_S,
        "last_hour": last_hour * HOUR_S,
        "last_hour_ns": last_hour_ns,
        "until": until,
    }


def _add_labels(connection: sqlite3.Connection, tz: str) -> None:
    """Registers the SQL functions `hour_of` and `day_of`. Time zone offsets are multiples of a quarter of an hour."""
    zone = ZoneInfo(tz)

    @lru_cache(4_096)
    def hour(quarter: int) -> str:
        start = datetime.fromtimestamp(quarter * _QUARTER_S // HOUR_S * HOUR_S, zone)
        return start.isoformat().replace("+00:00", "Z")

    @lru_cache(4_096)
    def day(quarter: int) -> str:
        return datetime.fromtimestamp(quarter * _QUARTER_S, zone).date().isoformat()

    connection.create_function("hour_of", 1, lambda start_s: hour(start_s // _QUARTER_S), deterministic=True)
    connection.create_function("day_of", 1, lambda start_s: day(start_s // _QUARTER_S), deterministic=True)


def _savings_usd(found: dict[str, Any], baseline: TokenRates | None) -> float | None:
    """The additional cost of the same tokens at the baseline's prices; None: a price is unknown."""
    if baseline is None or found["unpriced_calls"]:
        return None
    read, written = found["cached_tokens"], found["cache_write_tokens"]
    pico: int = (found["input_tokens"] - read - written) * baseline.input + read * baseline.cache_read
    pico += written * baseline.cache_write + found["output_tokens"] * baseline.output
    saved_nano: float = pico / _PICO_PER_NANO - found["cost_nano"]
    return saved_nano / NANO_PER_USD


def _shown(sums: Sums, baseline: TokenRates | None) -> dict[str, Any]:
    found = sums.values
    p50, p95 = percentiles(sums.latencies, 50, 95)
    (first_token,) = percentiles(sums.first_tokens, 50)
    is_unknown = found["unpriced_calls"] == found["calls"] > 0
    return {
        **sums.key,
        "calls": found["calls"],
        "successes": found["successes"],
        "errors": found["calls"] - found["successes"],
        "input_tokens": found["input_tokens"],
        "output_tokens": found["output_tokens"],
        "total_tokens": found["input_tokens"] + found["output_tokens"],
        "cached_tokens": found["cached_tokens"],
        "cache_write_tokens": found["cache_write_tokens"],
        "reasoning_tokens": found["reasoning_tokens"],
        "cost_usd": None if is_unknown else found["cost_nano"] / NANO_PER_USD,
        "charged_usd": None if is_unknown else found["charged_nano"] / NANO_PER_USD,
        "unpriced_calls": found["unpriced_calls"],
        "fallbacks": found["fallbacks"],
        "replays": found["replays"],
        "avg_latency_ms": round(found["latency_ms"] / found["timed_calls"], 3) if found["timed_calls"] else None,
        "p50_latency_ms": p50,
        "p95_latency_ms": p95,
        "p50_first_token_ms": first_token,
        "savings_usd": _savings_usd(found, baseline),
    }
