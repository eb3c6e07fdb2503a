"""Past costs are computed from the tokens of the rows, at the prices of the day, and nothing else."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from proxy.metering.prices import cost, find_price
from proxy.metering.pricing import ModelPrice, PastPrice, Pricing
from proxy.metering.reprice import COLUMNS
from proxy.metering.repricing import price_on, repriced
from proxy.schema.queries import StoredAttempt, UsageQuery
from proxy.schema.records import Tokens
from proxy.storage import rollups
from proxy.storage.batch import Batch, OpenCall
from proxy.storage.repricing import Repricing
from proxy.storage.sqlite import SqliteStore
from tests.storage.samples import attempt, attempt_end, call, call_end, rows

DAY_NS = 86_400 * 10**9
START_NS = 1_767_225_600 * 10**9  # 2026-01-01T00:00:00Z
PRICE = ModelPrice(
    input=2,
    output=10,
    cached_input=0.5,
    history=[PastPrice("2026-01-02", input=4, output=20), PastPrice("2026-01-01", input=8, output=40, cached_input=1)],
)
PRICING = Pricing({"openai/gpt": PRICE}, version="v2")

FORGIVEN = "SELECT id FROM calls WHERE charged_nano = 0 AND cost_nano IS NOT 0"


def find(name: str) -> tuple[ModelPrice | None, str]:
    return find_price(PRICING, name), PRICING.version


def filled(path: Path, count: int = 60) -> SqliteStore:
    """Calls over four days, of a known and of an unknown model, some with two attempts, some charged their hold."""
    rng, store = random.Random(4), SqliteStore(path)
    store.open()
    for number in range(count):
        name = f"c-{number:03}"
        opened_ns = START_NS + number * 4 * DAY_NS // count
        entry, ends, intents = OpenCall(call(name, opened_ns=opened_ns)), [], {}
        for seq in range(1, rng.choice((2, 3))):
            one = attempt(name, seq, opened_ns=opened_ns, model=rng.choice(("gpt", "gpt", "new")))
            given, read, written, output = (rng.randrange(1000) for _ in range(4))
            tokens = Tokens(given, read, written, output)
            source = rng.choice(("provider", "provider", "estimated", "unknown"))
            entry.start(one)
            intents[one.id] = one
            cost_nano = rng.choice((None, 0, 123))
            ends.append(
                entry.finish(attempt_end(name, seq, tokens=tokens, usage_source=source, cost_nano=cost_nano), 9)
            )
        _, closed = entry.close(call_end(name, is_forgiven=number % 5 == 0), 9)
        first = next(iter(intents.values()))
        store.write(
            Batch(
                opened={name: (entry.call, first)}, intents=intents, ended=[e for e in ends if e], closed={name: closed}
            )
        )
        if number == count // 2:
            store.sweep(1)
    return store


def reprice(path: Path, since_ns: int = 0, *, by_day: bool = True) -> int:
    store, changed = Repricing(path), 0
    for attempts in store.attempts(since_ns):
        changes = list(repriced(attempts, find, by_day=by_day))
        store.write(changes)
        changed += len(changes)
    return changed


def sums(path: Path) -> list[Any]:
    columns = "kept, span_s, start_s, provider, model, key_id, calls, cost_nano, charged_nano, unpriced_calls"
    return rows(path, f"SELECT {columns} FROM rollups ORDER BY 1, 2, 3, 4, 5, 6")


@pytest.mark.parametrize(
    ("day", "price_in", "cached"),
    [("2025-12-31", 8, 1), ("2026-01-01", 8, 1), ("2026-01-02", 4, None), ("2026-01-03", 2, 0.5)],
)
def test_a_past_price_holds_until_its_last_day(day: str, price_in: float, cached: float | None) -> None:
    """The earliest entry that ends on the day or later."""
    found = price_on(PRICE, day)
    assert found is not None
    assert (found.input, found.cached_input) == (price_in, cached)


def test_only_changed_costs_are_told() -> None:
    """An unknown price makes the cost unknown."""
    tokens = dict.fromkeys(COLUMNS, 0) | {"input": 1_000, "service_tier": None, "others": None}
    same = StoredAttempt("a", 1, "openai", "gpt", START_NS + 9 * DAY_NS, 2_000_000, tokens)
    other = StoredAttempt("b", 1, "openai", "gpt", START_NS, 2_000_000, tokens)
    lost = StoredAttempt("c", 1, "openai", "new", START_NS, 7, tokens)
    told = [(each.attempt.call_id, each.cost_nano) for each in repriced([same, other, lost], find, by_day=True)]
    assert told == [("b", 8_000_000), ("c", None)]
    assert [each.cost_nano for each in repriced([other], find, by_day=False)] == []


def test_repricing_equals_computing_from_scratch(tmp_path: Path) -> None:
    """Attempts, calls and sums; held costs stay; a second run changes nothing."""
    store = filled(tmp_path / "x.db")
    held = rows(tmp_path / "x.db", "SELECT * FROM attempts WHERE usage_source = 'unknown'")
    forgiven = rows(tmp_path / "x.db", FORGIVEN)
    assert forgiven
    assert reprice(tmp_path / "x.db") > 30
    for row in rows(tmp_path / "x.db", "SELECT * FROM attempts WHERE usage_source <> 'unknown'"):
        day = f"2026-01-0{(row['opened_ns'] - START_NS) // DAY_NS + 1}"
        found = find_price(PRICING, f"{row['provider']}/{row['model']}")
        tokens = Tokens(row["input"], row["cache_read"], row["cache_write"], row["output"])
        fresh = cost(price_on(found, day), tokens) if found else None
        assert row["cost_nano"] == (fresh.total if fresh else None)
    assert rows(tmp_path / "x.db", "SELECT * FROM attempts WHERE usage_source = 'unknown'") == held
    summed = sums(tmp_path / "x.db")
    with closing(sqlite3.connect(tmp_path / "x.db")) as db, db:
        rollups.prepare(db)
        db.execute("DELETE FROM rollups")
        rollups.list_all(db)
        while rollups.sum_up(db):
            pass
    assert sums(tmp_path / "x.db") == summed
    total = store.usage(UsageQuery())["total"]
    calls = rows(tmp_path / "x.db", "SELECT SUM(cost_nano) AS cost, SUM(cost_nano IS NULL) AS unknown FROM calls")[0]
    assert (round(total["cost_usd"] * 1e9), total["unpriced_calls"]) == (calls["cost"], calls["unknown"])
    assert rows(tmp_path / "x.db", FORGIVEN) == forgiven
    assert rows(tmp_path / "x.db", "SELECT id FROM calls WHERE charged_nano IS NOT cost_nano") == forgiven
    assert reprice(tmp_path / "x.db") == 0
    assert sums(tmp_path / "x.db") == summed
    store.close()


def test_only_calls_since_then_change(tmp_path: Path) -> None:
    """Earlier ones keep their costs; calls in flight are left to their server."""
    store = filled(tmp_path / "x.db")
    open_call = OpenCall(call("open", opened_ns=START_NS + 3 * DAY_NS))
    store.write(Batch(opened={"open": (open_call.call, attempt("open"))}, intents={"open-1": attempt("open")}))
    before = "SELECT * FROM attempts WHERE opened_ns < ? OR call_id = 'open'"
    old = rows(tmp_path / "x.db", before, START_NS + 2 * DAY_NS)
    assert reprice(tmp_path / "x.db", START_NS + 2 * DAY_NS) > 0
    assert rows(tmp_path / "x.db", before, START_NS + 2 * DAY_NS) == old
    store.close()
