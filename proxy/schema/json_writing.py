"""Translates: a large value into JSON, in steps that are all short; the bytes are those of one step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec

from proxy.schema.json_structure import STEP_BYTES
from proxy.schema.long_text import joined

encode = msgspec.json.Encoder().encode
_LITERAL = 256 * 1024  # characters of a text that are encoded at once
_MANY = 4096  # values whose types are looked at in one call
_VALUE_BYTES = 24  # about what a number takes, or the name of a member
_DEEP = frozenset({str, dict, list})


def write_large(value: Any) -> bytearray:
    """What `encode` returns."""
    found = _parts(value)
    if isinstance(found, int):
        return bytearray(encode(value))
    written = bytearray()  # grows in place, where joining the parts would copy all of them at once
    for part in found:
        written += part
    return written


def text_of(value: Any) -> str:
    """A value as JSON text."""
    return joined([str(part, "utf-8") for part in _in_parts(value)])


def _parts(value: Any) -> int | list[bytes | memoryview]:
    """About how many bytes a small value takes; a large one in parts."""
    if type(value) is str:
        return len(value) if len(value) <= _LITERAL else _literal(value)
    is_list = type(value) is list
    inner: Iterable[Any] = value if is_list else value.values()
    size = _VALUE_BYTES * len(value)
    large: dict[int, list[bytes | memoryview]] = {}
    sizes: dict[int, int] = {}
    if not is_list:
        lengths = list(map(len, value))
        size += sum(lengths)
        if max(lengths, default=0) > _LITERAL:
            large = {place: _in_parts(each) for place, each in enumerate(inner) if lengths[place] > _LITERAL}
    if _has_deep(inner):
        for place, each in enumerate(inner):
            if type(each) in _DEEP and place not in large:
                found = _parts(each)
                if isinstance(found, int):
                    sizes[place] = found
                    size += found
                else:
                    large[place] = found
    if not large and size <= STEP_BYTES:
        return size
    return _list(value, sizes, large) if is_list else _object(value, sizes, large)


def _in_parts(value: Any) -> list[bytes | memoryview]:
    found = _parts(value) if type(value) in _DEEP else 0
    return [encode(value)] if isinstance(found, int) else found


def _has_deep(values: Iterable[Any]) -> bool:
    rest = iter(values)
    while kinds := set(map(type, islice(rest, _MANY))):
        if not kinds.isdisjoint(_DEEP):
            return True
    return False


def _list(
    value: list[Any], sizes: dict[int, int], large: dict[int, list[bytes | memoryview]]
) -> list[bytes | memoryview]:
    parts: list[bytes | memoryview] = []
    for begin, end in _batches(len(value), sizes, large):
        parts.append(b"," if parts else b"[")
        parts += large[begin] if begin in large else [_inside(value[begin:end])]
    return [*parts, b"]"]


def _object(
    value: dict[str, Any], sizes: dict[int, int], large: dict[int, list[bytes | memoryview]]
) -> list[bytes | memoryview]:
    parts: list[bytes | memoryview] = []
    members = iter(value.items())
    for begin, end in _batches(len(value), sizes, large):
        parts.append(b"," if parts else b"{")
        batch = dict(islice(members, end - begin))
        if begin in large:
            (name,) = batch
            parts += [*_in_parts(name), b":", *large[begin]]
        else:
            parts.append(_inside(batch))
    return [*parts, b"}"]


def _batches(
    count: int, sizes: dict[int, int], large: dict[int, list[bytes | memoryview]]
) -> Iterator[tuple[int, int]]:
    """Consecutive members that are written at once: a large one alone, of small ones as many as a step takes."""
    begin = size = 0
    for place in range(count):
        more = _VALUE_BYTES + sizes.get(place, 0)
        if place > begin and (place in large or begin in large or size + more > _LITERAL):
            yield begin, place
            begin, size = place, 0
        size += more
    if count:
        yield begin, count


def _inside(batch: Any) -> memoryview:
    return memoryview(encode(batch))[1:-1]


def _literal(text: str) -> list[bytes | memoryview]:
    slices = (text[at : at + _LITERAL] for at in range(0, len(text), _LITERAL))
    return [b'"', *map(_inside, slices), b'"']
