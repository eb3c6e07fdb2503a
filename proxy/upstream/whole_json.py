"""Orchestrates: checks whether the JSON of an answer is whole if the connection does not show it."""

from __future__ import annotations

import asyncio
from typing import cast

import msgspec

from proxy.schema.json_structure import STEP_BYTES, depths, sliced

_TAIL = 64 * 1024  # bytes at the end of an answer in which its JSON must end
_TURN = 256 * 1024  # bytes of an answer that are scanned in one turn of the loop


async def is_whole_json(answer: bytearray) -> bool:
    """In a large answer it only finds the end of the outermost container; errors inside show when it is parsed."""
    if not answer[-_TAIL:].rstrip().endswith((b"}", b"]")):
        return False
    if len(answer) > STEP_BYTES:
        return await _is_closed(answer)
    try:
        msgspec.json.decode(answer, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


async def _is_closed(answer: bytearray) -> bool:
    depth, is_quoted, turn_at = 0, False, _TURN
    for end, quoted, found in sliced(cast(bytes, answer)):
        is_quoted = quoted
        profile = depths(found)
        depth += profile[-1] if profile else 0
        if end >= turn_at:
            turn_at = end + _TURN
            await asyncio.sleep(0)
    return depth == 0 and not is_quoted
