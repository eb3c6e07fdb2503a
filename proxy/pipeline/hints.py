"""Translates: routing hints in a request's body, headers or metadata into values.

The body overrides headers, and headers override metadata. Hints are removed: no provider sees them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from proxy.routing.near import NearNames
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import BadRequest

NAMES = (
    *("task", "priority", "latency_critical", "accuracy_critical", "budget_mode", "preferred_model", "strategy"),
    *("fallback", "no_fallback", "max_cost_usd", "deadline_ms", "allow_downgrade", "strict", "trace", "progress"),
    *("ensemble", "experiment", "tags"),
)
HEADER = "x-proxy-"
METADATA = "routing."
_NEAR = NearNames(NAMES)
_KNOWN = ("strict",)
_BOOLEANS = {"true": True, "false": False}


def applied(request: AnyRequest, headers: Mapping[str, str]) -> AnyRequest:
    """The request with its hints applied and removed. Header names are lower case.

    Raises BadRequest for a hint that is unknown, not supported yet, or has an invalid value.
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
    return replace(request, fields=fields, strict=_flag(*found["strict"]))


def _collect(given: Mapping[str, Any], prefix: str) -> dict[str, tuple[Any, str]]:
    """Hint -> its value and its place in the request. Nulls are skipped."""
    hints = {where: value for where, value in given.items() if where.startswith(prefix)}
    known = {_check_name(where.removeprefix(prefix), where): (value, where) for where, value in hints.items()}
    return {name: found for name, found in known.items() if found[0] is not None}


def _check_name(name: str, where: str) -> str:
    if name in _KNOWN:
        return name
    if name in NAMES:
        message = f"The hint {name!r} is not supported by this version. Leave it out."
    else:
        near = _NEAR.find(name, most=2, cutoff=0.5)
        message = f"Unknown hint {name[:64]!r}." + (f" Did you mean {' or '.join(near)}?" if near else "")
    raise BadRequest(message, param=where[:128], code="unsupported_parameter")


def _header_hint(name: str) -> str | None:
    """The hint that a header sets; None for another proxy's header, which resembles no hint."""
    hint = name.removeprefix(HEADER).replace("-", "_")
    if hint not in NAMES and not _NEAR.find(hint, most=1, cutoff=0.7):
        return None
    return _check_name(hint, name)


def _flag(value: Any, where: str) -> bool:
    if isinstance(value, str) and not where.startswith("routing."):
        value = _BOOLEANS.get(value.strip().lower(), value)
    if not isinstance(value, bool):
        raise BadRequest(f"{where}: expected true or false.", param=where)
    return value
