"""How slow the machine is while a test runs, for limits of processor time."""

from __future__ import annotations

import time
import timeit

_LOOP_S = 35e-6  # of the loop below, on an idle processor of November 2026


def _loop() -> int:
    return sum(number * number % 7 for number in range(1_000))


def slowness() -> float:
    """At least 1; 2 if plain Python takes twice its usual processor time here and now."""
    return max(1.0, min(timeit.repeat(_loop, timer=time.thread_time, number=1, repeat=30)) / _LOOP_S)
