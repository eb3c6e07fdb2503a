"""Translates: JSON bytes into values and back, as strictly as a gateway must read what strangers send."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from proxy.schema.errors import BadRequest

MAX_NAME = 256  # characters of a model name: rows, log lines and answers repeat it
encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRequest(f"The key {twice[:64]!r} stands twice in one JSON object. Send it once.", code="invalid_json")
    return found


# msgspec keeps the last of two equal keys, other parsers the first: two readers of one body could see two models (S15).
_scan = json.JSONDecoder(object_pairs_hook=_no_duplicates).decode


def decode_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`; duplicate keys, NaN, invalid UTF-8 and bottomless nesting raise BadRequest
    `invalid_json`.
    """
    try:
        value = _decode(body)
        if isinstance(value, dict):
            _scan(body.decode())
            return value
    except BadRequest:
        raise
    except RecursionError:
        raise BadRequest("The JSON body is nested too deeply.", code="invalid_json") from None
    except (msgspec.DecodeError, UnicodeError, ValueError) as error:
        raise BadRequest(f"The body is not valid JSON: {str(error)[:200]}", code="invalid_json") from None
    raise BadRequest("The body must be a JSON object.", code="invalid_json")


def with_member(body: bytes, name: str, value: object) -> bytes:
    """The JSON object in `body` with another value for one member; the bytes of the others stay as they are.

    Where the member has that value already, `body` itself.
    """
    members = _members(body)
    raw = msgspec.Raw(encode(value))
    if name in members and _decode(members[name]) == value:
        return body
    return encode({**members, name: raw})


def named_model(body: bytes) -> str | None:
    """The model that a body names whatever else is wrong with it, cut to MAX_NAME; None where none can be read."""
    try:
        model = decode_object(body).get("model")
    except BadRequest:
        return None
    return model[:MAX_NAME] if isinstance(model, str) else None
