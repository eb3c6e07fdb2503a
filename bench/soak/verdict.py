"""Translates: samples of a server into a table and a verdict."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from operator import attrgetter

from msgspec import Struct

MOST_MIB_PER_MINUTE = 0.2
MOST_DRIFT = 2
JUDGED_FROM_MINUTES = 5.0  # caches and pools of a young process fill: its memory says nothing about leaks


class Sample(Struct, frozen=True):
    """The server between two bursts of load, when no request is in flight. `kept`: idle connections to the upstream."""

    minute: float
    rss_mib: float
    tasks: int
    descriptors: int
    threads: int
    kept: int

    @property
    def other_descriptors(self) -> int:
        """Those that are no connection to the upstream: how many of these are kept depends on the last burst."""
        return self.descriptors - self.kept


class Books(Struct, frozen=True):
    """Requests that the upstream saw against the rows of attempts.

    `unsent`: free rows of requests that never left; `unanswered`: clients that got no answer though they stayed.
    """

    requests: int
    rows: int
    unsent: int
    lost: int
    doubled: int
    unanswered: int


class Finding(Struct, frozen=True):
    """`ok` None: the run was too short to judge this."""

    what: str
    figure: str
    ok: bool | None


def findings(samples: Sequence[Sample], books: Books) -> list[Finding]:
    """What was measured, and whether it passes."""
    return [
        _memory(samples),
        *(_drift(samples, name) for name in ("tasks", "other_descriptors", "threads")),
        Finding(
            "attempt rows for the upstream's requests",
            f"{books.rows - books.unsent} of {books.requests}, and {books.unsent} that never left",
            books.rows - books.unsent == books.requests > 0,
        ),
        Finding("requests without a row", str(books.lost), books.lost == 0),
        Finding("requests with two rows, or sent twice", str(books.doubled), books.doubled == 0),
        Finding("clients without an answer", str(books.unanswered), books.unanswered == 0),
    ]


def growth_per_minute(samples: Sequence[Sample]) -> float:
    """MiB per minute over the last two thirds, by least squares."""
    last = samples[len(samples) // 3 :]
    return statistics.linear_regression([each.minute for each in last], [each.rss_mib for each in last]).slope


def table(samples: Sequence[Sample], most: int = 40) -> str:
    """At most about `most` rows, evenly spread; the last one is always there."""
    step = max(1, -(-len(samples) // most))
    rows = [each for place, each in enumerate(samples) if place % step == 0 or place == len(samples) - 1]
    lines = [f"{'minute':>8}{'RSS, MiB':>10}{'tasks':>8}{'threads':>9}{'descriptors':>13}{'to upstream':>13}"]
    lines += [
        f"{row.minute:>8.1f}{row.rss_mib:>10.1f}{row.tasks:>8}{row.threads:>9}{row.descriptors:>13}{row.kept:>13}"
        for row in rows
    ]
    return "\n".join(lines)


def _memory(samples: Sequence[Sample]) -> Finding:
    what = f"growth of resident memory, MiB/min (below {MOST_MIB_PER_MINUTE})"
    if len(samples) < 3 or samples[-1].minute < JUDGED_FROM_MINUTES:
        return Finding(what, "run too short", None)
    growth = growth_per_minute(samples)
    return Finding(what, f"{growth:.3f}", growth < MOST_MIB_PER_MINUTE)


def _drift(samples: Sequence[Sample], name: str) -> Finding:
    """The median of the last third against that of the middle third."""
    value = attrgetter(name)
    what = f"drift of {name.replace('_', ' ')} (at most {MOST_DRIFT})"
    third = len(samples) // 3
    if third == 0:
        return Finding(what, "run too short", None)
    before = statistics.median(value(each) for each in samples[third : 2 * third])
    after = statistics.median(value(each) for each in samples[2 * third :])
    return Finding(
        f"drift of {name.replace('_', ' ')} (at most {MOST_DRIFT})",
        f"{before:g} to {after:g}",
        abs(after - before) <= MOST_DRIFT,
    )
