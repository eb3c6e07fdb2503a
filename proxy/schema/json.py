"""Translates: JSON bytes into values and back, as strictly as a gateway must read untrusted input.

A single call that parses 30 MB holds the GIL for 30 ms or more. So a large text is read and written in steps: long
strings slice by slice, containers member by member down to those that are small.
"""

from __future__ import annotations

import json
import math
import re
from codecs import BOM_UTF8
from typing import Any, cast

import msgspec

from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.json_reading import Read, TextTooLong, read_large, replace_member
from proxy.schema.json_structure import (
    MAX_NESTING,
    MAX_PAIRS,
    STEP_BYTES,
    check_beginning,
    check_limits,
    containers,
    marks,
    structure,
)
from proxy.schema.json_writing import encode as encode
from proxy.schema.json_writing import write_large

MAX_NAME = 256  # characters of a model name: rows, log lines and answers repeat it
_NAMED = 64 * 1024  # bytes; for a larger body an error is not described where that takes a slow parser
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_CONTAINERS = frozenset({dict, list})


def _finite(text: str) -> float:
    """msgspec's own conversion takes 9 us for `1e300`, 30 times as long, and holds the GIL throughout."""
    number = float(text)
    if math.isinf(number):
        raise ValueError("Number out of range")
    return number


decode = msgspec.json.Decoder(float_hook=_finite).decode  # for untrusted input: no number is expensive
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def decode_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`.

    Raises BadRequest `invalid_json` for duplicate keys, NaN, invalid UTF-8 and deep nesting, and ProxyError 413 for too
    many values.
    """
    try:
        check_beginning(body)
        value, is_same = _decoded_large(body) if len(body) > STEP_BYTES else _decoded_small(body)
    except RecursionError:
        raise BadRequest("The JSON body is nested too deeply.", code="invalid_json") from None
    except (msgspec.DecodeError, UnicodeError, ValueError) as error:
        if body.startswith(BOM_UTF8) and not body.startswith(2 * BOM_UTF8):
            return decode_object(body.removeprefix(BOM_UTF8))
        why = _lone_half(body) or str(error)[:200]
        raise BadRequest(f"The body is not valid JSON: {why}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object.", code="invalid_json")
    if not is_same:
        raise BadRequest(_duplicate(body), code="invalid_json")
    return value


# msgspec keeps the last of two equal keys, other parsers the first: two readers of one body could see two models. A
# value that lost a pair has fewer colons than the body it was read from, so both functions say whether they agree.


def _decoded_small(body: bytes) -> tuple[Any, bool]:
    marked = marks(body)
    hides_colons = b"\\" in body and b"\\u003" in body
    if not hides_colons and len(marked) <= MAX_PAIRS and containers(marked) <= MAX_NESTING:
        value = decode(body)
        return value, encode(value).count(b":") == marked.count(b":")
    return _decoded_large(body)


def _decoded_large(body: bytes) -> tuple[Any, bool]:
    found = structure(body)
    check_limits(found)
    value = decode_large(body)
    return value, _pairs(value) == found.count(b":")


def decode_large(data: bytes, read: Read = decode) -> Any:
    """The value of a JSON text, whose parts `read` decodes. An error in a large one does not name the byte."""
    if len(data) <= STEP_BYTES:
        return read(data)
    try:
        return read_large(data, read)
    except TextTooLong:
        raise
    except msgspec.DecodeError as error:
        raise msgspec.DecodeError(re.sub(r" \(byte \d+\)", "", str(error))) from None


def encode_sized(value: Any, size: int) -> bytes:
    """What `encode` returns, in steps if `size` says that it is large. `size`: about how many bytes that are."""
    return encode(value) if size <= STEP_BYTES else cast(bytes, write_large(value))


def with_member(body: bytes, name: str, value: object) -> bytes:
    """The JSON object in `body` with another value for one member; the bytes of the others stay as they are.

    UNSET removes the member. Where it has that value already, `body` itself.
    """
    if len(body) > STEP_BYTES:
        return replace_member(body, name, None if value is msgspec.UNSET else encode(value))
    members = _members(body)
    if value is msgspec.UNSET:
        return encode({each: raw for each, raw in members.items() if each != name}) if name in members else body
    raw = msgspec.Raw(encode(value))
    if name in members and decode(members[name]) == value:
        return body
    return encode({**members, name: raw})


def utf8(text: str) -> bytes:
    """What `text.encode()` returns, in steps if it is large. Raises UnicodeEncodeError."""
    if len(text) <= STEP_BYTES:
        return text.encode()
    written = bytearray()
    for at in range(0, len(text), STEP_BYTES):
        written += text[at : at + STEP_BYTES].encode()
    return cast(bytes, written)


def named_model(body: bytes) -> str | None:
    """The model that a body names whatever else is wrong with it, cut to MAX_NAME; None where none can be read."""
    try:
        model = decode_object(body).get("model")
    except ProxyError:
        return None
    return model[:MAX_NAME] if isinstance(model, str) else None


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
    """The error message for the client."""
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
    return f"{name} appears twice in one JSON object. Send it once."


def _lone_half(body: bytes) -> str | None:
    """The error for an unpaired half of a surrogate pair, which parsers report as something else; None: no error."""
    high: re.Match[bytes] | None = None
    for escape in _ESCAPE.finditer(body[:_NAMED]):
        code = int(escape[1], 16) if escape[1] else 0
        is_low = 0xDC00 <= code < 0xE000
        if high is not None and not (is_low and escape.start() == high.end()):
            return _cut(high)
        if is_low and high is None:
            return _cut(escape)
        high = escape if 0xD800 <= code < 0xDC00 else None
    return None if high is None else _cut(high)


def _cut(half: re.Match[bytes]) -> str:
    return (
        f"{half[0].decode()} (byte {half.start()}) is half of a surrogate pair. A text was cut in the middle of a "
        "character, such as an emoji; cut it between characters."
    )
