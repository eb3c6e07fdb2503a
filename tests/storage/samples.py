"""Records with short names and exact numbers, and ways to look into the database from outside."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from proxy.schema.records import AttemptEnd, AttemptOpen, CallEnd, CallOpen, Outcome, Tokens
from proxy.storage import rollups
from proxy.storage.sqlite import SqliteStore

HOLD_NANO = 5_000
FAST_FOLDER = "/dev/shm" if Path("/dev/shm").is_dir() else None  # for thousands of files; None: the usual place


def call(call_id: str, **changes: Any) -> CallOpen:
    values: dict[str, Any] = {"opened_ns": 1_000, "key_id": "key", "requested_model": "auto", "stream": False} | changes
    return CallOpen(id=call_id, **values)


def attempt(call_id: str, seq: int = 1, **changes: Any) -> AttemptOpen:
    values: dict[str, Any] = {
        "provider": "openai",
        "model": "gpt",
        "opened_ns": 1_000,
        "hold_nano": HOLD_NANO,
        "price_version": "v1",
    }
    return AttemptOpen(id=f"{call_id}-{seq}", call_id=call_id, seq=seq, **(values | changes))


def attempt_end(call_id: str, seq: int = 1, outcome: Outcome = Outcome.OK, **changes: Any) -> AttemptEnd:
    values: dict[str, Any] = {
        "tokens": Tokens(input=10, output=20),
        "usage_source": "provider",
        "cost_nano": 300,
    } | changes
    return AttemptEnd(id=f"{call_id}-{seq}", call_id=call_id, outcome=outcome, **values)


def call_end(call_id: str, outcome: Outcome = Outcome.OK, **changes: Any) -> CallEnd:
    values: dict[str, Any] = {"status": 200, "latency_ms": 7.0} | changes
    return CallEnd(call_id=call_id, outcome=outcome, **values)


def rows(path: Path, sql: str, *parameters: Any) -> list[dict[str, Any]]:
    """What another process would see."""
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(sql, parameters)]


def outcomes(path: Path) -> dict[str, str]:
    """Call id to outcome."""
    return {row["id"]: row["outcome"] for row in rows(path, "SELECT id, outcome FROM calls")}


def fill_calls(path: Path, count: int) -> None:
    """That many calls that ended, of twenty models."""
    store = SqliteStore(path)
    store.open()
    with closing(sqlite3.connect(path)) as db:
        db.execute(
            """
            INSERT INTO calls (id, opened_ns, closed_ns, owner, key_id, requested_model, provider, model, stream,
                outcome, input_tokens, output_tokens, total_tokens, cost_nano, latency_ms, first_token_ms, attempts,
                success)
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
            SELECT printf('%030d', i), 1700000000000000000 + i * 1000000000, 1700000000000000000 + i * 1000000000, 'x',
                'ann', 'm', 'fake', 'm' || (i % 20), 0, 'ok', 10, 10, 20, 1000, i * 7919 % 10000 / 10.0,
                i * 104729 % 1000 / 10.0, 1, 1 FROM n
            """,
            (count,),
        )
        rollups.prepare(db)
        rollups.list_all(db)
        while rollups.sum_up(db, 20_000):
            pass
        db.commit()
    store.close()
