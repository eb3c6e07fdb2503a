"""Translates: `routing.ensemble` of a request, over a configured ensemble or none, into the Ensemble that answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from proxy.ensembles.base import Ensemble
from proxy.routing.near import NearNames
from proxy.schema.errors import BadRequest

WHERE = "routing.ensemble"
MAX_MEMBERS = 16
_SHARED = frozenset(field.name for field in msgspec.structs.fields(Ensemble))
_AT = re.compile(r"^(?P<why>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)


def overridden(
    base: Ensemble | None, given: Mapping[str, Any], strategies: Mapping[str, type[Ensemble]], name: str
) -> Ensemble:
    """The ensemble with the client's keys applied; `models` is a synonym for `members`. With another strategy it keeps
    only the keys that all strategies have. `base` None: the request names the model `name`, which takes all seats
    unless it names members. A configured cost limit still applies.

    Raises BadRequest, which names the key.
    """
    given = {key: value for key, value in given.items() if value is not None}
    if "models" in given:
        if "members" in given:
            raise _bad("models", "is a synonym for members; keep one of them.")
        given["members"] = given.pop("models")
        try:
            return overridden(base, given, strategies, name)
        except BadRequest as error:
            raise _as_models(error) from None
    strategy = given.pop("strategy", None if base is None else _tag(type(base)))
    kind = _kind(strategy, strategies)
    known = [*kind.__struct_fields__, "strategy", "models"]
    for key in given:
        if key not in known:
            near = NearNames(known).find(key, most=2, cutoff=0.5)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise _bad(key[:64], f"is not a key of {strategy}.{hint} Keys: {', '.join(known)}.")
    kept: dict[str, Any] = {} if base is None else msgspec.to_builtins(base)
    if not isinstance(base, kind):
        kept = {key: value for key, value in kept.items() if key in _SHARED}
    if any(key in given for key in kind.member_keys):
        kept = {key: value for key, value in kept.items() if key not in kind.member_keys}
    elif base is None and name:
        given["members"] = [name] * _size(given.get("size"), kind)
    found = _read(kind, {**kept, **given, "strategy": strategy})
    if len(found.members) > MAX_MEMBERS:
        raise _bad("members", f"has {len(found.members)} names; at most {MAX_MEMBERS} are allowed.")
    if base is not None and base.max_cost_usd is not None:
        most = base.max_cost_usd if found.max_cost_usd is None else min(found.max_cost_usd, base.max_cost_usd)
        found = msgspec.structs.replace(found, max_cost_usd=most)
    return found


def _size(given: Any, kind: type[Ensemble]) -> int:
    """The number of seats; an invalid value is refused when all keys are read."""
    return given if isinstance(given, int) and 1 <= given <= MAX_MEMBERS else kind().size


def _kind(strategy: Any, strategies: Mapping[str, type[Ensemble]]) -> type[Ensemble]:
    known = ", ".join(strategies)
    if strategy is None:
        raise _bad("strategy", f"is missing; name one, or ask an ensemble:<name>. Strategies: {known}.")
    if isinstance(strategy, str) and strategy in strategies:
        return strategies[strategy]
    near = NearNames(strategies).find(strategy, most=1, cutoff=0.5) if isinstance(strategy, str) else []
    hint = f" Did you mean {near[0]}?" if near else ""
    raise _bad("strategy", f"expected one of {known}.{hint}")


def _read(kind: type[Ensemble], values: dict[str, Any]) -> Ensemble:
    for key, (allowed, is_text) in _rules(kind).items():
        value = values.get(key)
        if allowed is not None and value is not None and value not in allowed:
            near = NearNames(map(str, allowed)).find(str(value), most=1, cutoff=0.5)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise _bad(key, f"expected {' or '.join(map(str, allowed))}.{hint}")
        if is_text and isinstance(value, str) and not value.strip():
            raise _bad(key, "must not be empty.")
    for place, member in enumerate(values.get("members") or []):
        use = member.get("use") if isinstance(member, dict) else member
        if isinstance(use, str) and not use.strip():
            raise _bad(f"members.{place}", "must not be empty.")
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        found = _AT.match(str(error))
        why, path = (found["why"], found["path"] or "") if found else (str(error), "")
        raise _bad(path.replace("[", ".").replace("]", "").lstrip("."), f"{why[:1].lower()}{why[1:]}.") from None


@cache
def _rules(kind: type[Ensemble]) -> dict[str, tuple[tuple[Any, ...] | None, bool]]:
    """Key -> its allowed values, and whether it is text that must not be blank; only keys with such rules."""
    described = inspect.type_info(kind)
    rules: dict[str, tuple[tuple[Any, ...] | None, bool]] = {}
    for field in getattr(described, "fields", ()):
        extra = _extra(field.type)
        if extra:
            rules[field.encode_name] = (extra.get("one_of"), "pattern" in extra)
    return rules


def _extra(kind: inspect.Type) -> dict[str, Any]:
    if isinstance(kind, inspect.Metadata):
        return {**(kind.extra or {}), **_extra(kind.type)}
    if isinstance(kind, inspect.UnionType):
        return {name: value for each in kind.types for name, value in _extra(each).items()}
    return {}


def _tag(kind: type[Ensemble]) -> Any:
    return kind.__struct_config__.tag


def _as_models(error: BadRequest) -> BadRequest:
    """The error, with the key that the client used."""
    ours, theirs = f"{WHERE}.members", f"{WHERE}.models"
    param = error.param or ""
    if not f"{param}.".startswith(f"{ours}."):
        return error
    return BadRequest(error.message.replace(ours, theirs, 1), param=param.replace(ours, theirs, 1))


def _bad(key: str, message: str) -> BadRequest:
    where = f"{WHERE}.{key}" if key else WHERE
    return BadRequest(f"{where}: {message}", param=where)
