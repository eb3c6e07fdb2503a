"""Translates: the constraints in a key's type into error messages for values, and into JSON Schema.

`schema/constraints.py` lists the constraints. They apply to scalars, and in a list or mapping to every element.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from msgspec import inspect

from proxy.config.problems import near


class Constrained(NamedTuple):
    """A type without its metadata, and that metadata."""

    kind: inspect.Type
    extra: Mapping[str, Any]
    schema: Mapping[str, Any]


def unwrapped(kind: inspect.Type) -> Constrained:
    extra: dict[str, Any] = {}
    schema: dict[str, Any] = {}
    while isinstance(kind, inspect.Metadata):
        extra, schema = {**(kind.extra or {}), **extra}, {**(kind.extra_json_schema or {}), **schema}
        kind = kind.type
    return Constrained(kind, extra, schema)


def wrong(kind: inspect.Type, extra: Mapping[str, Any], value: object) -> str | None:
    """The error message for a scalar of the type `kind`; None if it is valid."""
    if "one_of" in extra:
        return _not_among(extra["one_of"], value)
    if isinstance(kind, inspect.IntType | inspect.FloatType) and isinstance(value, int | float):
        return _out_of_bounds(kind, value)
    text = str(value)
    fits = "pattern" not in extra or _matches(extra["pattern"], text)
    if fits and "check" in extra:
        return _CHECKS[extra["check"]](text, extra)
    return None if fits else f"must {extra['must']}"


def schema_of(kind: inspect.Type, extra: Mapping[str, Any]) -> dict[str, Any]:
    """The constraints as JSON Schema. It accepts every value that `wrong` accepts."""
    bounds = {
        "minimum": getattr(kind, "ge", None),
        "exclusiveMinimum": getattr(kind, "gt", None),
        "maximum": getattr(kind, "le", None),
    }
    return {word: bound for word, bound in bounds.items() if bound is not None} | dict(extra)


def _not_among(allowed: tuple[object, ...], value: object) -> str | None:
    if value in allowed:
        return None
    names = [str(each).lower() if isinstance(each, bool) else str(each) for each in allowed]
    hint = near(value, names) if isinstance(value, str) else ""
    return f"must be {', '.join(names[:-1])} or {names[-1]}{hint}" if len(names) > 1 else f"must be {names[0]}"


def _out_of_bounds(kind: inspect.IntType | inspect.FloatType, value: float) -> str | None:
    if kind.ge is not None and kind.le is not None:
        return None if kind.ge <= value <= kind.le else f"must be from {kind.ge} to {kind.le}"
    if kind.gt is not None and kind.le is not None:
        return None if kind.gt < value <= kind.le else f"must be greater than {kind.gt} and at most {kind.le}"
    if kind.ge is not None and value < kind.ge:
        return f"must be at least {kind.ge}"
    return f"must be greater than {kind.gt}" if kind.gt is not None and value <= kind.gt else None


def _matches(pattern: str, text: str) -> bool:
    """True if the pattern is found. As in JSON Schema, `$` matches only at the end, not before a final line break."""
    return re.search(re.sub(r"\$$", r"\\Z", pattern), text) is not None


def _day(text: str, extra: Mapping[str, Any]) -> str | None:
    try:
        date.fromisoformat(text)
    except ValueError:
        return f"must {extra['must']}"
    return None


def _time_zone(text: str, extra: Mapping[str, Any]) -> str | None:
    if text == "UTC":  # valid even without time zone data on the machine
        return None
    try:
        ZoneInfo(text)
    except (ValueError, OSError, KeyError):  # KeyError: not found; the others: a directory or another file
        return f"no such time zone; use a name like Europe/Berlin or UTC{near(text, available_timezones())}"
    return None


_CHECKS: dict[str, Callable[[str, Mapping[str, Any]], str | None]] = {"day": _day, "time_zone": _time_zone}
