"""Translates: times as clients write them, in a time zone, to nanoseconds and back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

from proxy.config.problems import near
from proxy.schema.errors import BadRequest
from proxy.schema.records import NANO_PER_USD as NANO

LAST_NS = 2**63 - 1  # the last moment a row can have; years beyond 2262 mean "ever"
_FIRST_YEAR = 2025  # no call is older
_HOUR = timedelta(hours=1)


def zone_of(parameters: Mapping[str, str]) -> str:
    """The name of the time zone in `tz`, UTC by default. Raises BadRequest."""
    name = parameters.get("tz") or "UTC"
    if name == "UTC":  # valid even without time zone data on the machine
        return name
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # KeyError: not found; the others: a directory or another file
        close = near(name, available_timezones())
        raise BadRequest(f"tz: no such time zone; use a name like Europe/Berlin or UTC{close}.", param="tz") from None
    return name


def unix_ns(parameters: Mapping[str, str], name: str, tz: str) -> int | None:
    """The time in this parameter (ISO 8601, in `tz` unless it names an offset); None without one. Raises BadRequest."""
    text = parameters.get(name)
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00").replace(" ", "+"))
    except ValueError:
        raise BadRequest(
            f"{name}: expected a date or time such as 2026-11-22 or 2026-11-22T08:00:00Z.", param=name
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(tz))
    try:
        seconds = int(moment.timestamp())
    except OverflowError:  # the first or the last day of the calendar, in another zone
        seconds = 0 if moment.year < _FIRST_YEAR else LAST_NS
    return min(max(seconds * NANO + moment.microsecond * 1000, 0), LAST_NS)


def period(parameters: Mapping[str, str], tz: str) -> tuple[int | None, int | None]:
    """The times in `since` and `until`. Raises BadRequest, also for an end before the beginning."""
    since, until = unix_ns(parameters, "since", tz), unix_ns(parameters, "until", tz)
    if since is not None and until is not None and until < since:
        raise BadRequest("until: must not be before `since`.", param="until")
    return since, until


def iso(moment_ns: int | None, tz: str) -> str | None:
    """The time in this zone, to the second; None for None, and for a time beyond the calendar."""
    if moment_ns is None or moment_ns == LAST_NS:
        return None
    return datetime.fromtimestamp(moment_ns // NANO, ZoneInfo(tz)).isoformat().replace("+00:00", "Z")


def has_whole_hours(tz: str, since_ns: int | None, until_ns: int) -> bool:
    """True if the zone's offset is whole hours throughout a period, so that its days are whole hours of UTC."""
    zone = ZoneInfo(tz)
    month = max(datetime.fromtimestamp((since_ns or 0) // NANO, zone), datetime(_FIRST_YEAR, 1, 1, tzinfo=zone))
    end = datetime.fromtimestamp(min(until_ns // NANO, 2**32), zone)
    while True:
        if (month.utcoffset() or timedelta()) % _HOUR:
            return False
        if month >= end:
            return True
        month = min((month.replace(day=1) + timedelta(days=32)).replace(day=1), end)
