"""The oracle: compares the fake upstream's record with the proxy's rows. Also the servers' configuration."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from msgspec import Struct

from tests.upstream import Seen

# USD per 1M tokens; times 1000: nano-USD per token.
INPUT_USD, OUTPUT_USD = 2.0, 10.0
PRICING = {
    "version": 1,
    "models": {
        "fake/*": {"input": INPUT_USD, "output": OUTPUT_USD, "cached_input": 0.5, "max_output": 4096},
        "backup/*": {"input": 4.0, "output": 20.0, "max_output": 4096},
        "single/*": {"input": INPUT_USD, "output": OUTPUT_USD, "max_output": 4096},
    },
}
TIMEOUTS = {"connect": 2.0, "first_token": 5.0, "idle": 5.0, "total": 10.0}


def files(
    folder: Path,
    upstream_url: str,
    *,
    models: Mapping[str, tuple[str, list[str]]] | None = None,
    fake: Mapping[str, Any] | None = None,
    grace_s: float = 10,
    budget: Mapping[str, Any] | None = None,
) -> Path:
    """Both configuration files, in the part of YAML that is JSON; returns the routing file.

    Providers at one upstream: `fake`, `backup`, and `single`, whose vendor gives one choice at a time; `models` maps a
    name to what it uses and its fallbacks; `fake` changes keys of that provider.
    """
    provider = {"type": "openai", "base_url": upstream_url, "allow_private": True, "retries": 0, "timeout_s": TIMEOUTS}
    routing = {
        "version": 1,
        "server": {"grace_s": grace_s},
        "storage": {"url": f"sqlite:///{folder / 'usage.db'}"},
        "providers": {
            "fake": {**provider, **(fake or {})},
            "backup": provider,
            "single": {**provider, "type": "groq", "price": None},
        },
        "router": {"default_model": "fake/ok"},
        "models": {name: {"use": use, "fallback": fallback} for name, (use, fallback) in (models or {}).items()},
        "budget": budget,
    }
    path = folder / "routing_rules.yaml"
    path.write_text(json.dumps(routing))
    (folder / "pricing.yaml").write_text(json.dumps(PRICING))
    return path


def rows(folder: Path, table: str) -> list[dict[str, Any]]:
    """`calls` or `attempts` as another process sees them, in the order they began."""
    with closing(sqlite3.connect(folder / "usage.db")) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(f"SELECT * FROM {table} ORDER BY opened_ns")]


def attempts_by_call(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Call id to its attempts, in order; an empty list for any other id."""
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows(folder, "attempts"):
        found[row["call_id"]].append(row)
    return found


class Tally(Struct):
    """Ids of requests that the upstream saw: without a row (`lost`), or twice in either book (`duplicated`).

    `unsent`: free rows of requests that never left, because their client was gone once the row was committed.
    """

    requests: int
    rows: int
    unsent: int
    lost: list[str | None]
    duplicated: list[str | None]


def reconcile(folder: Path, seen: Iterable[Seen]) -> Tally:
    """The upstream's ledger against the table of attempts.

    A request on a kept connection that the upstream closed without a byte of an answer is sent once more within its
    attempt: the two count as one.
    """
    requests = list(seen)
    later = {each.id: each.seq for each in requests}
    there = Counter(each.id for each in requests if each.bytes_sent or each.seq == later[each.id])
    attempts = rows(folder, "attempts")
    here = Counter(row["id"] for row in attempts)
    unsent = [row for row in attempts if row["id"] not in there]
    return Tally(
        requests=there.total(),
        rows=here.total(),
        unsent=sum(row["cost_nano"] == 0 and row["outcome"] in ("client_closed", "cancelled") for row in unsent),
        lost=[each for each in there if each not in here],
        duplicated=[each for book in (there, here) for each, count in book.items() if count > 1],
    )


def assert_books_agree(folder: Path, seen: Iterable[Seen]) -> None:
    """One row for each request the upstream saw and none besides, but for free ones of those that never left; every
    call's sums are those of its attempts.
    """
    tally = reconcile(folder, seen)
    assert (tally.lost, tally.duplicated) == ([], [])
    assert tally.rows - tally.unsent == tally.requests
    assert_sums(folder)


def assert_sums(folder: Path) -> None:
    """Tokens and cost of every call that ended are the sums over its attempts."""
    attempts = attempts_by_call(folder)
    for call in rows(folder, "calls"):
        own = attempts[call["id"]]
        summed = (
            len(own),
            sum(each["input"] + each["cache_read"] + each["cache_write"] for each in own),
            sum(each["output"] for each in own),
            None if any(each["cost_nano"] is None for each in own) else sum(each["cost_nano"] for each in own),
        )
        assert (call["attempts"], call["input_tokens"], call["output_tokens"], call["cost_nano"]) == summed, call["id"]


class MemoryPeak:
    """The peak growth of this process's resident memory during the block, in KiB (Linux)."""

    grown_kb = 0

    def __enter__(self) -> MemoryPeak:
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        self._start_kb = self._status("VmHWM")
        return self

    def __exit__(self, *_: object) -> None:
        self.grown_kb = self._status("VmHWM") - self._start_kb

    @staticmethod
    def _status(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


class Budgets(Struct):
    """The budget windows as one moment of the database shows them, and what they must be by the rows of the calls."""

    booked: dict[str, tuple[int, int]]
    expected: dict[str, tuple[int, int]]


def budgets(folder: Path) -> Budgets:
    """By budget: spent and reserved nano-USD, from one snapshot."""
    with closing(sqlite3.connect(f"file:{folder / 'usage.db'}?mode=ro", uri=True, timeout=20)) as db:
        db.execute("BEGIN")
        booked = {name: (spent, held) for name, spent, held in db.execute(_BOOKED)}
        expected: dict[str, tuple[int, int]] = {}
        for table in ("calls", "attempts"):
            for name, spent, held in db.execute(_EXPECTED.replace("{table}", table)):
                expected[name] = (spent, held)
    return Budgets(booked, expected)


def assert_budgets_agree(folder: Path) -> None:
    """Every window has spent what its calls cost, and nothing is held any more."""
    found = budgets(folder)
    assert found.booked == found.expected
    assert {held for _, held in found.booked.values()} <= {0}


_BOOKED = """
    SELECT budget, SUM(spent_nano), SUM(reserved_nano) FROM spending
    WHERE spent_nano <> 0 OR reserved_nano <> 0 GROUP BY budget
"""
_EXPECTED = """
    SELECT each.value ->> 0, IFNULL(SUM(CASE WHEN closed_ns IS NOT NULL THEN cost_nano END), 0) AS spent,
        IFNULL(SUM(CASE WHEN closed_ns IS NULL THEN hold_nano END), 0) AS held
    FROM {table}, json_each({table}.charges) AS each GROUP BY 1 HAVING spent <> 0 OR held <> 0
"""
