"""Performs I/O: how the interpreter is set up in a process that serves; not for programs that embed the application."""

from __future__ import annotations

import gc
import sys

MAX_DIGITS = 640  # of an integer in text: more cost quadratic time, and no client or vendor counts so far
_YOUNG_OBJECTS = 20_000  # between two collections; a call makes a few thousand, nearly none of them in a cycle


def tune() -> None:
    """Bounds the cost of hostile integers, and keeps the collector away from what lives as long as the process."""
    sys.set_int_max_str_digits(MAX_DIGITS)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 50)
