"""What `GET /v1/usage` answers, against sums and ranks computed in Python."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.schema.errors import BadRequest
from proxy.schema.queries import TokenRates, UsageQuery
from proxy.schema.records import AttemptEnd, CallEnd, Outcome, Tokens
from proxy.storage.batch import Batch, OpenCall, rejected
from proxy.storage.histograms import ERROR
from proxy.storage.sqlite import SqliteStore
from tests.storage.samples import attempt, call, call_end

DAY_NS = 86_400 * 10**9
START_NS = 1_767_225_600 * 10**9  # 2026-01-01T00:00:00Z
OUTCOMES = (Outcome.OK, Outcome.OK, Outcome.OK, Outcome.UPSTREAM_ERROR, Outcome.CLIENT_CLOSED)


def facts(seed: int, count: int) -> list[dict[str, Any]]:
    """Calls as plain values."""
    rng = random.Random(seed)
    return [
        {
            "id": f"call-{number}",
            "opened_ns": START_NS + rng.randrange(3 * DAY_NS),
            "key_id": rng.choice(["one", "two"]),
            "provider": rng.choice(["openai", "groq"]),
            "model": rng.choice(["gpt", "oss", "mini"]),
            "outcome": rng.choice(OUTCOMES),
            "tokens": Tokens(rng.randrange(50), rng.randrange(9), rng.randrange(9), rng.randrange(1, 99), 1),
            "cost_nano": rng.choice([None, 0, 7, 10**9 + 1]),
            "is_forgiven": rng.random() < 0.2,
            "latency_ms": rng.random() * 1000,
            "first_token_ms": rng.choice([None, rng.random() * 100]),
            "fallback": rng.random() < 0.3,
        }
        for number in range(count)
    ]


def add(batch: Batch, fact: dict[str, Any]) -> None:
    name, outcome = fact["id"], fact["outcome"]
    opening = call(name, opened_ns=fact["opened_ns"], key_id=fact["key_id"])
    first = attempt(name, provider=fact["provider"], model=fact["model"])
    entry = OpenCall(opening)
    entry.start(first)
    end = AttemptEnd(f"{name}-1", name, outcome, tokens=fact["tokens"], cost_nano=fact["cost_nano"])
    measured = {key: fact[key] for key in ("latency_ms", "first_token_ms", "fallback", "is_forgiven")}
    batch.opened[name], batch.intents[first.id] = (opening, first), first
    ended = entry.finish(end, 9)
    assert ended is not None
    batch.ended.append(ended)
    _, batch.closed[name] = entry.close(CallEnd(name, outcome, 200, **measured), 9)


def expected(chosen: list[dict[str, Any]]) -> dict[str, Any]:
    """The same figures, the slow way."""
    costs = [fact["cost_nano"] for fact in chosen if fact["cost_nano"] is not None]
    charges = [fact["cost_nano"] or 0 for fact in chosen if not fact["is_forgiven"]]
    latencies = sorted(fact["latency_ms"] for fact in chosen)
    first_tokens = sorted(fact["first_token_ms"] for fact in chosen if fact["first_token_ms"] is not None)
    successes = sum(fact["outcome"] is Outcome.OK for fact in chosen)
    return {
        "calls": len(chosen),
        "successes": successes,
        "errors": len(chosen) - successes,
        "input_tokens": sum(fact["tokens"].prompt for fact in chosen),
        "output_tokens": sum(fact["tokens"].output for fact in chosen),
        "total_tokens": sum(fact["tokens"].total for fact in chosen),
        "cached_tokens": sum(fact["tokens"].cache_read for fact in chosen),
        "cache_write_tokens": sum(fact["tokens"].cache_write for fact in chosen),
        "reasoning_tokens": len(chosen),
        "cost_usd": sum(costs) / 1e9 if costs else None,
        "charged_usd": sum(charges) / 1e9 if costs else None,
        "unpriced_calls": len(chosen) - len(costs),
        "fallbacks": sum(fact["fallback"] for fact in chosen),
        "replays": 0,
        "avg_latency_ms": pytest.approx(sum(latencies) / len(latencies), abs=0.001),
        "p50_latency_ms": near(rank(latencies, 50)),
        "p95_latency_ms": near(rank(latencies, 95)),
        "p50_first_token_ms": near(rank(first_tokens, 50)),
        "savings_usd": None,
    }


def near(milliseconds: float | None) -> Any:
    return None if milliseconds is None else pytest.approx(milliseconds, rel=ERROR, abs=0.06)


def rank(values: list[float], percent: int) -> float | None:
    return values[math.ceil(len(values) * percent / 100) - 1] if values else None


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "x.db")
    opened.open()
    yield opened
    opened.close()


def day(fact: dict[str, Any]) -> str:
    return f"2026-01-{(fact['opened_ns'] - START_NS) // DAY_NS + 1:02}"


@pytest.mark.parametrize("count", [1, 2, 19, 20, 21, 200])
def test_totals_and_groups_are_exact(store: SqliteStore, count: int) -> None:
    """Every figure, for the whole and for each group, percentiles by nearest rank."""
    batch = Batch()
    known = facts(count, count)
    for fact in known:
        add(batch, fact)
    store.write(batch)
    answer = store.usage(UsageQuery(group_by=("model", "day")))
    assert answer["total"] == expected(known)
    keys = sorted({(fact["model"], day(fact)) for fact in known})
    assert answer["groups"] == [
        {"model": model, "day": when} | expected([f for f in known if (f["model"], day(f)) == (model, when)])
        for model, when in keys
    ]
    by_provider = {
        group["provider"]: group["calls"] for group in store.usage(UsageQuery(group_by=("provider",)))["groups"]
    }
    assert by_provider == {name: sum(f["provider"] == name for f in known) for name in {f["provider"] for f in known}}


def test_period_and_key_choose_the_calls(store: SqliteStore) -> None:
    """`since` is included, `until` is not; a key sees its own calls only."""
    batch = Batch()
    known = facts(3, 100)
    for fact in known:
        add(batch, fact)
    store.write(batch)
    since, until = sorted(fact["opened_ns"] for fact in known)[10], sorted(fact["opened_ns"] for fact in known)[60]
    answer = store.usage(UsageQuery(since_ns=since, until_ns=until))
    assert answer == {"total": expected([f for f in known if since <= f["opened_ns"] < until]), "groups": []}
    answer = store.usage(UsageQuery(key_id="one"))
    assert answer["total"] == expected([f for f in known if f["key_id"] == "one"])


def test_no_calls_are_zeros_and_nothing_to_average(store: SqliteStore) -> None:
    """Counters and cost are zero, figures without a value are null."""
    total = store.usage(UsageQuery(group_by=("model",)))["total"]
    assert {name for name, value in total.items() if value is None} == {
        *("avg_latency_ms", "p50_latency_ms", "p95_latency_ms", "p50_first_token_ms", "savings_usd")
    }
    assert (total["calls"], total["cost_usd"], total["total_tokens"]) == (0, 0, 0)
    assert store.usage(UsageQuery(group_by=("model",)))["groups"] == []


def test_calls_that_never_reached_a_provider_do_not_count_as_fast(store: SqliteStore) -> None:
    """A rejected call is a call and an error, free of charge, and no measure of latency; open calls do not count."""
    end = call_end("r", Outcome.REJECTED, latency_ms=0.1)
    store.write(Batch(opened={"r": (call("r"), None)}, closed={"r": rejected(end, 5)}))
    store.write(Batch(opened={"o": (call("o"), attempt("o"))}, intents={"o": attempt("o")}))
    total = store.usage(UsageQuery())["total"]
    shown = ("calls", "successes", "errors", "unpriced_calls", "cost_usd", "avg_latency_ms", "p95_latency_ms")
    assert [total[name] for name in shown] == [1, 0, 1, 0, 0, None, None]


def test_an_unknown_group_is_the_callers_fault(store: SqliteStore) -> None:
    """Group names come from a fixed list; no text of a caller reaches the database."""
    with pytest.raises(BadRequest, match="Known: model, provider, key, rule, task") as caught:
        store.usage(UsageQuery(group_by=("1; DROP TABLE calls",)))
    assert caught.value.param == "group_by"


def test_savings_are_the_price_of_the_baseline_less_the_cost(store: SqliteStore) -> None:
    """Part by part; null where a cost is not known."""
    batch = Batch()
    known = facts(5, 30)
    for fact in known:
        add(batch, fact)
    store.write(batch)
    baseline = TokenRates(2_000_000, 200_000, 2_500_000, 10_000_000)
    answer = store.usage(UsageQuery(group_by=("model",), baseline=baseline))
    assert answer["total"]["savings_usd"] is None
    priced = [fact | {"cost_nano": fact["cost_nano"] or 0, "id": f"p-{fact['id']}"} for fact in known]
    batch = Batch()
    for fact in priced:
        add(batch, fact | {"key_id": "priced"})
    store.write(batch)
    total = store.usage(UsageQuery(key_id="priced", baseline=baseline))["total"]
    tokens = [fact["tokens"] for fact in priced]
    nano = sum(t.input * 2_000 + t.cache_read * 200 + t.cache_write * 2_500 + t.output * 10_000 for t in tokens)
    assert total["savings_usd"] == pytest.approx((nano - sum(fact["cost_nano"] for fact in priced)) / 1e9)
