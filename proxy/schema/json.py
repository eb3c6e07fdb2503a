"""Translates: JSON bytes into values and back, as strictly as a gateway must read what strangers send.

A single call that parses 30 MB holds the GIL for 30 ms or more. So a large text is read and written in steps: long
strings slice by slice, containers member by member down to those that are small.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from operator import is_
from typing import Any

import msgspec

from proxy.schema.errors import BadRequest, ProxyError
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

MAX_NAME = 256  # characters of a model name: rows, log lines and answers repeat it
_NAMED = 64 * 1024  # bytes; in a larger body a duplicate key is refused without naming it, which takes a slow parser
_MAX_DEPTH = 16  # levels that are taken apart; below them a value is read in one step, however large
_MANY = 512  # elements; a longer list is written in batches
_BATCH = 64
_WINDOW = 4096  # bytes in which a place to cut is looked for
# A place in a JSON string that is not inside an escape, a surrogate pair or a character.
_CUT = re.compile(rb"[^\\]{12}(?=[^\x80-\xbf])|[^\\](?=\\(?!u[dD][c-fC-F]))", re.DOTALL)
_CONTAINERS = frozenset({dict, list})
_DEEP = frozenset({str, dict, list})
Read = Callable[[bytes | msgspec.Raw], Any]


def _finite(text: str) -> float:
    """msgspec's own way takes 9 us for `1e300`, 30 times as long, and holds the interpreter all the while."""
    number = float(text)
    if math.isinf(number):
        raise ValueError("Number out of range")
    return number


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(float_hook=_finite).decode  # for what strangers wrote: no number is dear
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode


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
        raise BadRequest(f"The body is not valid JSON: {str(error)[:200]}", code="invalid_json") from None
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
    try:
        return _taken_apart(data, _MAX_DEPTH, read)
    except msgspec.DecodeError as error:
        if len(data) <= STEP_BYTES:
            raise
        raise msgspec.DecodeError(re.sub(r" \(byte \d+\)", "", str(error))) from None


def _taken_apart(data: bytes | msgspec.Raw, depth: int, read: Read) -> Any:
    view = memoryview(data)
    if len(view) <= STEP_BYTES or not depth:
        return read(data)
    match chr(view[0]):
        case "{":
            return {name: _taken_apart(value, depth - 1, read) for name, value in _members(data).items()}
        case "[":
            return [_taken_apart(value, depth - 1, read) for value in _elements(data)]
        case '"':
            return _text(view)
    return read(data)


def _text(literal: memoryview) -> str:
    """The text of a string literal."""
    pieces = []
    at, end = 1, len(literal) - 1
    while at < end:
        cut = at + STEP_BYTES
        found = _CUT.search(literal, cut, min(cut + _WINDOW, end)) if cut < end else None
        until = found.end() if found else end
        pieces.append(decode(b'"%b"' % bytes(literal[at:until])))
        at = until
    return "".join(pieces)


def encode_sized(value: Any, size: int) -> bytes:
    """What `encode` returns, in steps if `size` says that it is large. `size`: about how many bytes that are."""
    return encode(value if size <= STEP_BYTES else _prepared(value, _MAX_DEPTH))


def _prepared(value: Any, depth: int) -> Any:
    """The value with its long texts and long lists already encoded."""
    kind = type(value)
    if kind is str:
        return value if len(value) <= STEP_BYTES else _literal(value)
    if kind is dict and depth:
        parts = [(name, part, _prepared(part, depth - 1)) for name, part in value.items() if type(part) in _DEEP]
        changed = {name: prepared for name, part, prepared in parts if prepared is not part}
        return {**value, **changed} if changed else value
    if kind is list and depth:
        prepared = [_prepared(part, depth - 1) if type(part) in _DEEP else part for part in value]
        if len(value) > _MANY:
            batches = (prepared[at : at + _BATCH] for at in range(0, len(prepared), _BATCH))
            return [msgspec.Raw(encode(batch)[1:-1]) for batch in batches]  # each stands for its elements
        return value if all(map(is_, value, prepared)) else prepared
    return value


def _literal(text: str) -> msgspec.Raw:
    slices = (text[at : at + STEP_BYTES] for at in range(0, len(text), STEP_BYTES))
    return msgspec.Raw(b"".join([b'"', *(encode(each)[1:-1] for each in slices), b'"']))


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
