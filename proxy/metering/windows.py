"""Translates: a moment into the budget windows that contain it. Pure.

Calendar windows start at the calendar's boundaries in the operator's time zone, even on days when the clock changes.
A sliding window is a row of short buckets: it covers the last 24 hours and the rest of the oldest bucket, so that no 24
hours ever hold more than the limit.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from msgspec import Struct

_SECOND = 1_000_000_000
BUCKET_S = 600  # of a sliding window
FOREVER_NS = 2**63 - 1
WINDOWS = ("minute", "hour", "daily", "weekly", "monthly", "total", "last_24h")
_SLIDING_S = {"last_24h": 86_400}


class Window(Struct, frozen=True):
    """One window at one moment. Spending is booked at `start_ns`; amounts booked from `since_ns` on count.

    `until_ns`: the first moment of the next one. `resets_ns`: when nothing
    spent so far counts any more (None: never).
    """

    start_ns: int
    since_ns: int
    until_ns: int
    resets_ns: int | None


def window_at(kind: str, now_ns: int, zone: ZoneInfo) -> Window:
    """The window of this kind (one of WINDOWS) that contains the moment."""
    if kind == "total":
        return Window(0, 0, FOREVER_NS, None)
    if kind in _SLIDING_S:
        bucket_ns = BUCKET_S * _SECOND
        start_ns = now_ns - now_ns % bucket_ns
        since_ns = start_ns - _SLIDING_S[kind] * _SECOND
        until_ns = start_ns + bucket_ns
        return Window(start_ns, since_ns, until_ns, until_ns + _SLIDING_S[kind] * _SECOND)
    start, end = _calendar(kind, datetime.fromtimestamp(now_ns // _SECOND, UTC), zone)
    start_ns, end_ns = _ns(start), _ns(end)
    return Window(start_ns, start_ns, end_ns, end_ns)


def _calendar(kind: str, now: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    local = now.astimezone(zone)
    if kind in ("minute", "hour"):
        # In an hour that the clock repeats, local time is ambiguous: count in UTC.
        length = timedelta(minutes=1) if kind == "minute" else timedelta(hours=1)
        into = timedelta(seconds=local.second, minutes=local.minute if kind == "hour" else 0)
        start = now - into
        return start, start + length
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if kind == "daily":
        return midnight, midnight + timedelta(days=1)
    if kind == "weekly":
        monday = midnight - timedelta(days=local.weekday())
        return monday, monday + timedelta(days=7)
    first = midnight.replace(day=1)
    return first, (first + timedelta(days=32)).replace(day=1)


def _ns(moment: datetime) -> int:
    """Unix nanoseconds. A local time that the clock skips means the moment of the change."""
    return int(moment.timestamp()) * _SECOND
