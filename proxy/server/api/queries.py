"""Translates: the parameters of `/v1/usage` and `proxy usage` into a query."""

from __future__ import annotations

from datetime import UTC, datetime

from proxy.schema.errors import BadRequest
from proxy.schema.records import Caller, UsageQuery

_GROUPS = ("model", "provider", "day", "task_type")
_LAST_NS = 2**63 - 1  # the last moment a row can have; years beyond 2262 mean "ever"


def usage_query(parameters: dict[str, str], caller: Caller) -> UsageQuery:
    """`since`, `until` (ISO 8601, UTC by default) and `group_by` (comma-separated). Raises BadRequest."""
    unknown = sorted(set(parameters) - {"since", "until", "group_by"})
    if unknown:
        raise BadRequest(
            f"Unknown parameter {unknown[0][:64]!r}. Known: since, until, group_by.", param=unknown[0][:64]
        )
    groups = tuple(dict.fromkeys(part.strip() for part in parameters.get("group_by", "").split(",") if part.strip()))
    for group in groups:
        if group not in _GROUPS:
            raise BadRequest(f"group_by: unknown group {group[:64]!r}. Known: {', '.join(_GROUPS)}.", param="group_by")
    since, until = (_unix_ns(parameters, name) for name in ("since", "until"))
    return UsageQuery(since, until, None if caller.admin else caller.key_id, groups)


def _unix_ns(parameters: dict[str, str], name: str) -> int | None:
    text = parameters.get(name)
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00").replace(" ", "+"))
    except ValueError:
        raise BadRequest(
            f"{name}: expected a date or time such as 2026-11-22 or 2026-11-22T08:00:00Z.", param=name
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(int(moment.timestamp()) * 1_000_000_000, 0), _LAST_NS)
