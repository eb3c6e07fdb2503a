"""How slow the machine is while a test runs. Limits of time in tests are those of the usual machine when it is idle: a
slower machine, and one with other work, gets what it needs and no more.
"""

from __future__ import annotations

import json
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path

ROUNDS = 5
_LOOP_S = 35e-6  # of the loop below, on an idle processor of November 2026
_SERVING_S = 1.7e-3  # of the other work
_SCHEDULED = Path("/proc/self/schedstat")  # of the main thread: ns that it ran, ns that it waited for a processor


def _loop() -> int:
    return sum(number * number % 7 for number in range(1_000))


def slowness() -> float:
    """At least 1; 2 if plain Python takes twice its usual processor time here and now."""
    return max(1.0, min(timeit.repeat(_loop, timer=time.thread_time, number=1, repeat=30)) / _LOOP_S)


def slowness_of_serving() -> float:
    """The same of work like that of the server: parsing, dictionaries, loops."""
    text = json.dumps([{"role": "user", "content": f"text {number}"} for number in range(2_000)])

    def serve() -> None:
        for _ in range(3):
            sum(len({**each, "index": 0}) for each in json.loads(text))

    return max(1.0, min(timeit.repeat(serve, timer=time.thread_time, number=1, repeat=5)) / _SERVING_S)


def usual_s(work: Callable[[], object], runs: int = ROUNDS) -> float:
    """Seconds of processor time that `work` takes this thread on the usual machine: the least of some runs.

    A processor may become slower at any moment, as when its other half is put to work: what counts is the slower of two
    looks at it, before the run and after.
    """
    least, before = inf, slowness()
    for _ in range(runs):
        began = time.thread_time()
        work()
        spent = time.thread_time() - began
        after = slowness()
        least, before = min(least, spent / max(before, after)), after
    return least


def assert_growth(small: Callable[[], float], large: Callable[[], float], most: float) -> None:
    """`large()` measures less than `most` times what `small()` does.

    Other work on the machine only ever adds to a measurement: while a round says too much, both are measured again.
    """
    one, other, rounds = inf, inf, 0
    while other >= most * one:
        assert rounds < ROUNDS, f"{one:.4f} s grew to {other:.4f} s, in the best of {ROUNDS} rounds"
        one, other, rounds = min(one, small()), min(other, large()), rounds + 1


@contextmanager
def takes(least_s: float, later_s: float) -> Iterator[None]:
    """The block lasts `least_s`, and less than `later_s` more, in which waiting for a processor does not count."""
    begun, own_begun = time.monotonic(), own_time()
    yield
    lasted_s, own_s = time.monotonic() - begun, own_time() - own_begun
    assert lasted_s >= least_s
    assert own_s < least_s + later_s


def own_time() -> float:
    """A clock like `time.monotonic()` that stands while the main thread waits for a processor that others use."""
    return time.monotonic() - waited_s()


def waited_s() -> float:
    """How long the main thread has waited for a processor; 0 where the system does not tell."""
    return int(_SCHEDULED.read_text().split()[1]) / 1e9 if _SCHEDULED.exists() else 0.0
