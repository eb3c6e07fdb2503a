"""Performs I/O: tunes the interpreter of a server process; not for programs that embed the application."""

from __future__ import annotations

import gc
import sys

from proxy.server.http1 import map_large_blocks

MAX_DIGITS = 640  # of an integer in text: parsing more takes quadratic time, and no real count is so long
_YOUNG_OBJECTS = 10_000  # between two collections; a call makes a few thousand, nearly none of them in a cycle
_MIDDLE = 5  # young collections between two of the middle generation: for 50,000 objects one takes 5 ms, for 400,000 30
_OLD = 400  # of those between two of all objects


def tune() -> None:
    """Bounds the cost of hostile integers and large texts, and exempts long-lived objects from garbage collection."""
    map_large_blocks()
    sys.set_int_max_str_digits(MAX_DIGITS)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, _MIDDLE, _OLD)
