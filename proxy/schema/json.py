"""Translates: JSON bytes into values and back, as strictly as a gateway must read what strangers send.

The cost of parsing depends on the number of values in a body, not only on its bytes. So the limits are checked on the
structure of the body, what stands outside its strings, which is found at memory speed before anything is parsed.
"""

from __future__ import annotations

import json
import math
from itertools import accumulate
from typing import Any

import msgspec

from proxy.schema.errors import BadRequest, ProxyError

MAX_VALUES = 250_000  # in one request
MAX_PAIRS = 100_000  # of a key and a value in one request: a key that is new costs as much as 20 numbers
MAX_CONTAINERS = 50_000  # objects and arrays in one request: so does each of these, with garbage collection
MAX_NESTING = 512  # levels; the interpreter's own limit is 1,000 up to Python 3.12 and 10,000 later
MAX_NAME = 256  # characters of a model name: rows, log lines and answers repeat it
_PREFIX = 512 * 1024  # bytes of a body that are looked at first: enough to refuse one that is all structure
_NAMED = 64 * 1024  # bytes; in a larger body a duplicate key is refused without naming it, which takes a slow parser


def _finite(text: str) -> float:
    """msgspec's own way takes 9 us for `1e300`, 30 times as long, and holds the interpreter all the while."""
    number = float(text)
    if math.isinf(number):
        raise ValueError("Number out of range")
    return number


encode = msgspec.json.Encoder().encode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
decode = msgspec.json.Decoder(float_hook=_finite).decode  # for what strangers wrote: no number is dear


def _all_but(kept: bytes) -> bytes:
    return bytes(set(range(256)) - set(kept))


_ESCAPES = b"\\/bfnrtu"  # the backslash, and what may follow it beside a quote
_UNMARKED = _all_but(b",:[{")
_UNWANTED = _all_but(b'",:[]{}' + _ESCAPES)
_NO_BRACKETS = b",:"
_CONTAINERS = frozenset({dict, list})
_STEPS = bytes(2 if byte in b"[{" else 0 for byte in range(256))  # less one for each byte: up for [{, down for ]}


def decode_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`.

    Raises BadRequest `invalid_json` for duplicate keys, NaN, invalid UTF-8 and deep nesting, and ProxyError 413 for too
    many values.
    """
    structure = b""
    try:
        _check_beginning(body)
        marks = body.translate(None, _UNMARKED)  # those in strings too, so an upper bound
        colons = marks.count(b":")
        hides_colons = b"\\" in body and b"\\u003" in body
        if hides_colons or len(marks) > MAX_PAIRS or _containers(marks) > MAX_NESTING:
            structure = _structure(body)
            _check_limits(structure)
        value = decode(body)
        # msgspec keeps the last of two equal keys, other parsers the first: two readers of one body could see two
        # models. A value that lost a pair has fewer colons than the body it was read from.
        is_same = _pairs(value) == structure.count(b":") if hides_colons else encode(value).count(b":") == colons
    except RecursionError:
        raise BadRequest("The JSON body is nested too deeply.", code="invalid_json") from None
    except (msgspec.DecodeError, UnicodeError, ValueError) as error:
        raise BadRequest(f"The body is not valid JSON: {str(error)[:200]}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object.", code="invalid_json")
    if not is_same:
        raise BadRequest(_duplicate(body), code="invalid_json")
    return value


def with_member(body: bytes, name: str, value: object) -> bytes:
    """The JSON object in `body` with another value for one member; the bytes of the others stay as they are.

    Where the member has that value already, `body` itself.
    """
    members = _members(body)
    raw = msgspec.Raw(encode(value))
    if name in members and decode(members[name]) == value:
        return body
    return encode({**members, name: raw})


def named_model(body: bytes) -> str | None:
    """The model that a body names whatever else is wrong with it, cut to MAX_NAME; None where none can be read."""
    try:
        model = decode_object(body).get("model")
    except ProxyError:
        return None
    return model[:MAX_NAME] if isinstance(model, str) else None


def check_nesting(body: bytes) -> None:
    """Raises RecursionError for JSON nested deeper than MAX_NESTING, whatever the interpreter allows.

    Costs next to nothing for a body with few brackets, as the events of streams are.
    """
    if len(body) > MAX_NESTING and _containers(body) > MAX_NESTING and nesting(body) > MAX_NESTING:
        raise RecursionError(f"JSON nested deeper than {MAX_NESTING} levels")


def nesting(body: bytes) -> int:
    """How many levels deep a JSON text is nested."""
    return _deepest(_structure(body))


def _structure(body: bytes) -> bytes:
    """Commas, colons and brackets outside the strings of a JSON text; of one cut anywhere, those before the cut."""
    kept = body.translate(None, _UNWANTED)
    if b"\\" in kept:
        kept = kept.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Where one string ends beside the next one's beginning, the two become one: nothing else changes sides.
    return b"".join(kept.translate(None, _ESCAPES).replace(b'""', b"").split(b'"')[::2])


def _check_limits(structure: bytes) -> None:
    containers = _containers(structure)
    values, pairs = containers + structure.count(b","), structure.count(b":")  # a value follows a comma or a bracket
    is_too_much = values > MAX_VALUES or pairs > MAX_PAIRS or containers > MAX_CONTAINERS
    looked_at = structure[: 4 * MAX_NESTING] if is_too_much else structure
    if containers > MAX_NESTING and _deepest(looked_at) > MAX_NESTING:
        raise RecursionError(f"JSON nested deeper than {MAX_NESTING} levels")
    if is_too_much:
        most = f"{MAX_VALUES:,} values, {MAX_PAIRS:,} of them with a key, and {MAX_CONTAINERS:,} objects and arrays"
        message = f"The JSON body has too many values. A request may have {most}."
        raise ProxyError(message, status=413, code="request_too_large")


def _check_beginning(body: bytes) -> None:
    """Refuses a large body as soon as its beginning shows that it has too many values."""
    size = _PREFIX
    while len(body) > 1.5 * size:
        structure = _structure(body[:size])
        _check_limits(structure)
        # Where a body that goes on like this would be over a limit.
        used = max(
            _containers(structure) / MAX_CONTAINERS, structure.count(b":") / MAX_PAIRS, len(structure) / MAX_VALUES
        )
        size = max(2 * size, int(1.05 * size / used) if used > 0.01 else len(body))


def _containers(structure: bytes) -> int:
    return structure.count(b"[") + structure.count(b"{")


def _deepest(structure: bytes) -> int:
    steps = accumulate(structure.translate(_STEPS, _NO_BRACKETS))
    return max((up - place for place, up in enumerate(steps, 1)), default=0)


def _pairs(value: object) -> int:
    """How many pairs all objects in a value have."""
    pairs = 0
    rest: list[Any] = [value] if type(value) in _CONTAINERS else []
    while rest:
        node = rest.pop()
        if type(node) is dict:
            pairs += len(node)
            node = node.values()
        rest += [inner for inner in node if type(inner) in _CONTAINERS]
    return pairs


def _duplicate(body: bytes) -> str:
    """What to tell the client."""
    twice: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                twice.append(name)
            seen.add(name)

    if len(body) <= _NAMED:
        json.loads(body, object_pairs_hook=look)
    name = f"The key {twice[0][:64]!r}" if twice else "A key"
    return f"{name} stands twice in one JSON object. Send it once."
