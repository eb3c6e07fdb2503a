"""Translates: routing hints in a request's body, headers or metadata into values.

The body overrides headers, and headers override metadata. Hints are removed: no provider sees them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import isfinite
from typing import Any

from msgspec.structs import replace

from proxy.routing.near import NearNames
from proxy.routing.settings import STRATEGIES, TASKS
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import BadRequest
from proxy.schema.hints import PRIORITIES, Hints
from proxy.schema.request import OWN_METADATA

HEADER = "x-proxy-"
METADATA = OWN_METADATA
_MAX_NAME = 200  # characters of a model name
_MAX_TAG = 64
_MAX_ITEMS = 16  # of a list
_MAX_DEADLINE_MS = 86_400_000
_BOOLEANS = {"true": True, "false": False}


def applied(request: AnyRequest, headers: Mapping[str, str]) -> AnyRequest:
    """The request with its hints as values, and removed from its fields. Header names are lower case.

    Raises BadRequest for a hint that is unknown or has an invalid value.
    """
    fields = request.fields
    metadata = fields.get("metadata")
    found: dict[str, tuple[Any, str]] = {}
    if isinstance(metadata, dict) and any(name.startswith(METADATA) for name in metadata):
        found |= _collect({f"metadata.{name}": value for name, value in metadata.items()}, f"metadata.{METADATA}")
        rest = {name: value for name, value in metadata.items() if not name.startswith(METADATA)}
        fields = {name: value for name, value in fields.items() if name != "metadata"}
        if rest:
            fields["metadata"] = rest
    if HEADER in "\n".join(headers):
        for name, value in headers.items():
            if name.startswith(HEADER) and (hint := _header_hint(name)) is not None:
                found[hint] = (value, name)
    if "routing" in fields:
        body = fields["routing"]
        if not isinstance(body, dict | None):
            raise BadRequest("routing: expected an object.", param="routing")
        found |= _collect({f"routing.{name}": value for name, value in (body or {}).items()}, "routing.")
        fields = {name: value for name, value in fields.items() if name != "routing"}
    if not found:
        return request if fields is request.fields else replace(request, fields=fields)
    values = {name: _READ[name](value, where) for name, (value, where) in found.items()}
    return replace(request, fields=fields, hints=Hints(**values))


def _collect(given: Mapping[str, Any], prefix: str) -> dict[str, tuple[Any, str]]:
    """Hint -> its value and its place in the request. Nulls are skipped."""
    hints = {where: value for where, value in given.items() if where.startswith(prefix)}
    known = {_check_name(where.removeprefix(prefix), where): (value, where) for where, value in hints.items()}
    return {name: found for name, found in known.items() if found[0] is not None}


def _check_name(name: str, where: str) -> str:
    if name in _READ:
        return name
    near = _NEAR.find(name, most=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    message = f"Unknown hint {name[:64]!r}.{hint} Hints: {', '.join(_READ)}."
    raise BadRequest(message, param=where[:128], code="unsupported_parameter")


def _header_hint(name: str) -> str | None:
    """The hint that a header sets; None for another proxy's header that resembles no hint."""
    hint = name.removeprefix(HEADER).replace("-", "_")
    if hint not in NAMES and not _NEAR.find(hint, most=1, cutoff=0.7):
        return None
    return _check_name(hint, name)


# --- values: JSON in the body, texts elsewhere ------------------------------------------------------------------------


def _is_text(where: str) -> bool:
    return not where.startswith("routing.")


def _flag(value: Any, where: str) -> bool:
    if isinstance(value, str) and _is_text(where):
        value = _BOOLEANS.get(value.strip().lower(), value)
    if not isinstance(value, bool):
        raise BadRequest(f"{where}: expected true or false.", param=where)
    return value


def _one_of(allowed: tuple[str, ...], value: Any, where: str) -> str:
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in allowed:
        return word
    near = NearNames(allowed).find(word, most=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise BadRequest(f"{where}: expected {', '.join(allowed[:-1])} or {allowed[-1]}.{hint}", param=where)


def _text(most: int, value: Any, where: str) -> str:
    text = value.strip() if isinstance(value, str) else ""
    if not 0 < len(text) <= most or not text.isprintable():
        raise BadRequest(f"{where}: expected 1 to {most} printable characters.", param=where)
    return text


def _texts(most: int, value: Any, where: str) -> tuple[str, ...]:
    """A list of texts; outside the body they are separated by commas."""
    if isinstance(value, str) and _is_text(where):
        value = value.split(",") if value.strip() else []
    if not isinstance(value, list) or len(value) > _MAX_ITEMS:
        raise BadRequest(f"{where}: expected a list of at most {_MAX_ITEMS} names.", param=where)
    return tuple(dict.fromkeys(_text(most, item, where) for item in value))


def _number(value: Any, where: str) -> float:
    if isinstance(value, str) and _is_text(where):
        try:
            value = float(value)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < 0:
        raise BadRequest(f"{where}: expected a number of at least 0.", param=where)
    return float(value)


def _milliseconds(value: Any, where: str) -> int:
    number = _number(value, where)
    if number != int(number) or not 1 <= number <= _MAX_DEADLINE_MS:
        raise BadRequest(f"{where}: expected a whole number from 1 to {_MAX_DEADLINE_MS}.", param=where)
    return int(number)


def _section(value: Any, where: str) -> dict[str, Any]:
    """Keys and values, which only the body can hold; `ensembles/given.py` checks them."""
    if not isinstance(value, dict) or _is_text(where):
        raise BadRequest(f"{where}: expected an object, in the body.", param=where)
    return value


_READ: dict[str, Callable[[Any, str], Any]] = {
    "task": partial(_one_of, TASKS),
    "priority": partial(_one_of, PRIORITIES),
    "latency_critical": _flag,
    "accuracy_critical": _flag,
    "budget_mode": _flag,
    "preferred_model": partial(_text, _MAX_NAME),
    "strategy": partial(_one_of, STRATEGIES),
    "fallback": partial(_texts, _MAX_NAME),
    "no_fallback": _flag,
    "max_cost_usd": _number,
    "deadline_ms": _milliseconds,
    "strict": _flag,
    "trace": _flag,
    "tags": partial(_texts, _MAX_TAG),
    "allow_downgrade": _flag,
    "progress": _flag,
    "ensemble": _section,
    "experiment": partial(_text, _MAX_TAG),
}
NAMES = tuple(_READ)
_NEAR = NearNames(NAMES)
