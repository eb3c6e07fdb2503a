"""Translates: durations into histograms with logarithmic buckets, kept as short byte strings.

A bucket is 5 % wide, and a percentile is the middle of its bucket: it is off by at most 2.5 % (`ERROR`). Buckets range
from 0.1 ms to eight hours; durations beyond count in the first or the last one.

In memory a histogram is one integer with a lane of 32 bits for each bucket, so that adding two is one addition. The
stored form has the lanes from the first to the last non-zero one, with 8 bits each if that is enough.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from math import log
from typing import Any

ERROR = 0.025
_GROWTH = 1.05
_PER_E = 1 / log(_GROWTH)
_LEAST_MS = 0.1
_ZERO = -log(_LEAST_MS) * _PER_E
_LAST = 400
_LANE, _LANE_BYTES = 32, 4
_ABOVE_A_BYTE = int.from_bytes(b"\0\xff\xff\xff" * (_LAST + 1), "little")
_HEAD = 3  # bytes: the first bucket in two, and the width of a count


def pack(lanes: int) -> bytes | None:
    """The stored form; None for an empty histogram."""
    if not lanes:
        return None
    first = ((lanes & -lanes).bit_length() - 1) // _LANE
    lanes >>= _LANE * first
    counts = lanes.to_bytes((lanes.bit_length() + _LANE - 1) // _LANE * _LANE_BYTES, "little")
    head = first.to_bytes(2, "little")
    return head + b"\x04" + counts if lanes & _ABOVE_A_BYTE else head + b"\x01" + counts[::_LANE_BYTES]


def unpack(stored: bytes | None) -> int:
    """The histogram of a stored form."""
    if stored is None:
        return 0
    counts: bytes | bytearray = stored[_HEAD:]
    if stored[2] == 1:
        wide = bytearray(_LANE_BYTES * len(counts))
        wide[::_LANE_BYTES] = counts
        counts = wide
    return int.from_bytes(counts, "little") << _LANE * (stored[0] | stored[1] << 8)


def merged(one: bytes | None, other: bytes | None) -> bytes | None:
    """The sum of two stored histograms."""
    return pack(unpack(one) + unpack(other)) if one and other else one or other


def percentiles(lanes: int, *percents: int) -> list[float | None]:
    """Milliseconds by nearest rank; None for an empty histogram."""
    raw = lanes.to_bytes((_LAST + 1) * _LANE_BYTES, "little")
    sums = list(accumulate(memoryview(raw).cast("I")))
    return [_middle(bisect_left(sums, -(-sums[-1] * each // 100))) if sums[-1] else None for each in percents]


def _middle(bucket: int) -> float:
    return round(_LEAST_MS * _GROWTH**bucket * 2 * _GROWTH / (1 + _GROWTH), 3)


class Merging:
    """The SQL aggregate `histogram(x)` over durations, stored histograms, or both."""

    def __init__(self) -> None:
        self._lanes = 0
        self._counts: dict[int, int] = {}  # of durations, by bucket

    def step(self, value: Any) -> None:
        if value.__class__ is float:
            bucket = int(log(value) * _PER_E + _ZERO) if value > _LEAST_MS else 0
            self._counts[bucket] = self._counts.get(bucket, 0) + 1
        elif value is not None:
            self._lanes += unpack(value)

    def finalize(self) -> bytes | None:
        return pack(self._lanes + sum(count << _LANE * min(bucket, _LAST) for bucket, count in self._counts.items()))
