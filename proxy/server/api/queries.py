"""Translates: the parameters of `/v1/usage`, `/v1/requests` and `proxy usage` into queries, and their answers back."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any

from proxy.config.problems import near
from proxy.schema.dimensions import DIMENSIONS
from proxy.schema.errors import BadRequest
from proxy.schema.queries import LogQuery, TokenRates, UsageQuery
from proxy.schema.records import NANO_PER_USD, Caller, Outcome
from proxy.server.api.periods import LAST_NS, has_whole_hours, iso, period, zone_of
from proxy.server.api.shapes import UsageSums

DAY_NS = 86_400 * NANO_PER_USD
DEFAULT_DAYS, MOST_DAYS = 7, 31  # of a query that reads single calls
DEFAULT_ROWS, MOST_ROWS = 100, 1_000
FORMATS = ("json", "csv")
USAGE = {
    "since": "Start of the period, inclusive: ISO 8601, in `tz` unless it names an offset.",
    "until": "End of the period, exclusive.",
    "tz": "Time zone of days and of times without an offset, like Europe/Berlin. Default: UTC.",
    "group_by": f"Comma-separated: {', '.join(DIMENSIONS)}.",
    "format": "json or csv. Default: json.",
}
FILTERS = {name: dimension.about for name, dimension in DIMENSIONS.items() if name not in ("hour", "day")}
REQUESTS = {
    **{name: USAGE[name] for name in ("since", "until", "tz")},
    **{name: f"Only calls with this {name}: {about[0].lower()}{about[1:]}" for name, about in FILTERS.items()},
    "outcome": f"Only calls that ended like this: {', '.join(Outcome)}.",
    "status": "Only calls with this HTTP status.",
    "min_cost_usd": "Only calls that cost at least this much.",
    "min_latency_ms": "Only calls that took at least this long.",
    "limit": f"Rows of one page, at most {MOST_ROWS}. Default: {DEFAULT_ROWS}.",
    "cursor": "The page after another: its `next_cursor`.",
    "format": USAGE["format"],
}


def parameters_of(items: Iterable[tuple[str, str]], known: Mapping[str, str]) -> dict[str, str]:
    """The parameters by name. Raises BadRequest for an unknown one, or one given twice."""
    found: dict[str, str] = {}
    for name, value in items:
        if name not in known:
            raise BadRequest(
                f"Unknown parameter {name[:64]!r}. Known: {', '.join(known)}{near(name, known) or '.'}", param=name[:64]
            )
        if name in found:
            raise BadRequest(f"{name}: given twice.", param=name)
        found[name] = value
    one_of(found, "format", FORMATS)
    return found


def usage_query(
    parameters: Mapping[str, str], caller: Caller, now_ns: int, baseline: TokenRates | None = None
) -> UsageQuery:
    """The query of `/v1/usage`. One that reads single calls has a bounded period. Raises BadRequest."""
    tz = zone_of(parameters)
    parts = (part.strip() for part in parameters.get("group_by", "").split(","))
    groups = tuple(dict.fromkeys(part for part in parts if part))
    for group in groups:
        if group not in DIMENSIONS:
            close = near(group, DIMENSIONS) or "."
            message = f"group_by: unknown group {group[:64]!r}. Known: {', '.join(DIMENSIONS)}{close}"
            raise BadRequest(message, param="group_by")
    since, until = period(parameters, tz)
    by_call = [group for group in groups if not DIMENSIONS[group].in_rollups]
    if "day" in groups and not has_whole_hours(tz, since, now_ns if until is None else until):
        by_call.append("day")
    if by_call:
        why = f"grouping by {by_call[0]} reads single calls"
        since = bounded_since(since, now_ns if until is None else min(until, now_ns), why)
    return UsageQuery(since, until, own_key(caller), groups, tz, bool(by_call), baseline)


def usage_answer(query: UsageQuery, found: Mapping[str, Any], budget: Mapping[str, Any] | None) -> dict[str, Any]:
    """The body of `/v1/usage`."""
    period = {"since": iso(query.since_ns, query.tz), "until": iso(query.until_ns, query.tz)}
    return {**period, **found, "budget": budget}


def usage_columns(query: UsageQuery) -> tuple[str, ...]:
    """The columns of usage as a table: the keys of its groups, then the figures."""
    return (*query.group_by, *(name for name in UsageSums.__annotations__ if name not in DIMENSIONS))


def log_query(parameters: Mapping[str, str], caller: Caller) -> LogQuery:
    """The query of `/v1/requests`. Raises BadRequest."""
    tz = zone_of(parameters)
    one_of(parameters, "outcome", tuple(Outcome))
    since, until = period(parameters, tz)
    least_usd = _number(parameters, "min_cost_usd", 0, 1e9)
    status, limit = _number(parameters, "status", 100, 599), _number(parameters, "limit", 1, MOST_ROWS)
    return LogQuery(
        since_ns=since,
        until_ns=until,
        key_id=own_key(caller),
        filters={name: value for name in (*FILTERS, "outcome") if (value := parameters.get(name))},
        status=None if status is None else int(status),
        min_cost_nano=None if least_usd is None else round(least_usd * NANO_PER_USD),
        min_latency_ms=_number(parameters, "min_latency_ms", 0, 1e12),
        limit=DEFAULT_ROWS if limit is None else int(limit),
        after=_position(parameters),
    )


def log_answer(query: LogQuery, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The body of `/v1/requests`. `rows` has one row beyond the page if there are more."""
    page, has_more = rows[: query.limit], len(rows) > query.limit
    cursor = None
    if has_more:
        last = f"{page[-1]['opened_ns']}:{page[-1]['id']}"
        cursor = base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")
    data = [{name: value for name, value in row.items() if name != "opened_ns"} for row in page]
    return {"object": "list", "data": data, "has_more": has_more, "next_cursor": cursor}


def own_key(caller: Caller) -> str | None:
    """The key whose rows a caller may read; None: all."""
    return None if caller.admin else caller.key_id or ""


def bounded_since(since_ns: int | None, until_ns: int, why: str) -> int:
    """The beginning of a period of bounded length; by default some days before its end. Raises BadRequest."""
    if since_ns is None:
        return max(0, until_ns - DEFAULT_DAYS * DAY_NS)
    if until_ns - since_ns > MOST_DAYS * DAY_NS:
        raise BadRequest(f"since: {why}, so the period may have {MOST_DAYS} days at most.", param="since")
    return since_ns


def one_of(parameters: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> None:
    """Raises BadRequest if the parameter has another value."""
    value = parameters.get(name)
    if value and value not in allowed:
        raise BadRequest(
            f"{name}: unknown value {value[:64]!r}. Known: {', '.join(allowed)}{near(value, allowed) or '.'}",
            param=name,
        )


def _number(parameters: Mapping[str, str], name: str, least: float, most: float) -> float | None:
    text = parameters.get(name)
    if not text:
        return None
    try:
        value = float(text)
        is_whole = name not in ("status", "limit") or value == int(value)
    except (ValueError, OverflowError):
        value, is_whole = float("nan"), False
    if not (is_whole and least <= value <= most):
        raise BadRequest(f"{name}: expected a number from {least:g} to {most:g}.", param=name)
    return value


def _position(parameters: Mapping[str, str]) -> tuple[int, str] | None:
    cursor = parameters.get("cursor")
    if not cursor:
        return None
    try:
        opened_ns, separator, call_id = (
            base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode().partition(":")
        )
        if not (separator and call_id and opened_ns.isdecimal() and opened_ns.isascii() and int(opened_ns) <= LAST_NS):
            raise ValueError
    except (ValueError, binascii.Error):
        raise BadRequest("cursor: expected the `next_cursor` of another page.", param="cursor") from None
    return int(opened_ns), call_id
