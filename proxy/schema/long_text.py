"""Translates: pieces into one long text, in steps that are all short."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import cast

_SHORT = 4 * 1024 * 1024  # characters or bytes that one call may join
_STEP = 768 * 1024  # bytes that are encoded or copied at once: a multiple of three and four, for base64


def joined(pieces: Sequence[str]) -> str:
    """What `"".join` returns, which copies 60 MB in one call. Here the text grows in place; nothing else is
    allocated meanwhile, which would get in its way.
    """
    if sum(map(len, pieces)) <= _SHORT:
        return "".join(pieces)
    text = ""
    for piece in pieces:
        text += piece
    return text


def joined_bytes(pieces: Sequence[bytes]) -> bytes:
    """What `b"".join` returns, in steps that are all short."""
    if sum(map(len, pieces)) <= _SHORT:
        return b"".join(pieces)
    written = bytearray()
    for piece in pieces:
        for part in slices(piece):
            written += part
    return cast(bytes, written)


def slices(data: bytes | bytearray) -> list[memoryview]:
    """Large data in parts that are each copied at once."""
    view = memoryview(data)
    return [view[at : at + _STEP] for at in range(0, len(view), _STEP)]


def base64_text(data: bytes | bytearray, encode: Callable[[memoryview], bytes] = base64.b64encode) -> str:
    """Data as base64."""
    return joined([encode(part).decode() for part in slices(data)])


def from_base64(text: str) -> bytes:
    """The data of strict base64. Raises ValueError."""
    parts = [text[at : at + _STEP] for at in range(0, len(text), _STEP)]
    if any("=" in part[-2:] for part in parts[:-1]):
        raise ValueError("padding within base64")
    return joined_bytes([base64.b64decode(part, validate=True) for part in parts])


def concatenated(head: str, text: str, at: int = 0) -> str:
    """What `head + text[at:]` returns."""
    return joined([head, *(text[begin : begin + _STEP] for begin in range(at, len(text), _STEP))])
