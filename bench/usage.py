"""Performs I/O: makes a database of a million calls, the same every time, and times the reads of usage and of the log.

.venv/bin/python -m bench.usage            # a minute or two: makes usage-bench.db in a temporary folder
.venv/bin/python -m bench.usage FILE.db    # keeps it, and uses it again
"""

from __future__ import annotations

import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from proxy.schema.queries import UsageQuery
from proxy.schema.records import Caller
from proxy.server.api.queries import log_answer, log_query, usage_query
from proxy.storage import rollups
from proxy.storage.sqlite import SqliteStore

CALLS, DAYS = 1_000_000, 31
START_S = 1_790_812_800  # 2026-10-01T00:00:00Z
NOW_NS = (START_S + DAYS * 86_400) * 10**9
MODELS = (
    *(("openai", "gpt-6-sol"), ("openai", "gpt-6-luna"), ("anthropic", "claude-sonnet-5-5"), ("local", "smollm2")),
    *(("google", "gemini-3.5-flash-lite"), ("groq", "openai/gpt-oss-120b"), ("mistral", "mistral-large-2512")),
)
TASKS = ("chat", "code", "extraction", "classification", "reasoning", None)
KEYS = tuple(f"team-{number}" for number in range(12))
TAGS = (None, None, '["batch"]', '["web"]', '["web","mobile"]', '["nightly"]')
_CALL = (
    "INSERT INTO calls (id, opened_ns, closed_ns, owner, key_id, requested_model, provider, model, stream, task_type,"
    " outcome, status, input_tokens, output_tokens, total_tokens, cached_tokens, cost_nano, latency_ms, first_token_ms,"
    " attempts, success, step, rule, strategy, tags, session, agent) VALUES (" + ", ".join("?" * 27) + ")"
)
_ATTEMPT = (
    "INSERT INTO attempts (call_id, seq, id, provider, model, opened_ns, closed_ns, price_version, outcome, status,"
    " input, cache_read, output, usage_source, cost_nano, duration_ms) VALUES (" + ", ".join("?" * 16) + ")"
)


def rows(calls: int, start_s: int = START_S) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Calls with their one attempt, in the order of time."""
    rng = random.Random(12)
    for number in range(calls):
        opened_ns = start_s * 10**9 + number * (DAYS * 86_400 * 10**9 // calls)
        who = min(int(rng.expovariate(0.5)), len(KEYS) - 1)
        kind = (who + rng.randrange(3)) % len(TASKS)  # each key has three tasks, each task two models
        provider, model = MODELS[(kind + (rng.random() < 0.1)) % len(MODELS)]
        key, task, is_ok = KEYS[who], TASKS[kind], rng.random() < 0.97
        given, written = rng.randrange(50, 4_000), rng.randrange(1, 900) if is_ok else 0
        cached = given // 2 if rng.random() < 0.4 else 0
        cost = given * 2_000 + written * 10_000
        latency_ms = rng.lognormvariate(7.5, 1)
        closed_ns = opened_ns + int(latency_ms * 1_000_000)
        outcome, status = ("ok", 200) if is_ok else ("upstream_error", 502)
        rule = f"rule of {task}" if task else None
        name = f"{number:026x}"
        call = (
            *(name, opened_ns, closed_ns, "bench", key, "auto", provider, model, number % 2, task, outcome, status),
            *(given, written, given + written, cached, cost, latency_ms, latency_ms / 5, 1, int(is_ok)),
            *("rule" if rule else "task", rule, "task_based", rng.choice(TAGS), f"s-{number % 20_000}", None),
        )
        attempt = (
            *(name, 1, f"{name}-1", provider, model, opened_ns, closed_ns, "bench", outcome, status),
            *(given - cached, cached, written, "provider", cost, latency_ms),
        )
        yield call, attempt


def make(path: Path, calls: int = CALLS, start_s: int = START_S) -> None:
    """A database with that many calls within DAYS, summed up."""
    store = SqliteStore(path)
    store.open()
    store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous=OFF")
        rollups.prepare(db)
        db.execute("BEGIN")
        made = rows(calls, start_s)
        while some := list(islice(made, 20_000)):
            db.executemany(_CALL, [call for call, _ in some])
            db.executemany(_ATTEMPT, [attempt for _, attempt in some])
        rollups.list_all(db)
        while rollups.sum_up(db, 20_000):
            pass
        db.execute("COMMIT")


def usage(path: Path, text: str, key: str | None = None) -> Callable[[], Any]:
    """One query of `/v1/usage`."""
    query: UsageQuery = usage_query(_parameters(text), Caller(key, admin=key is None), NOW_NS)
    return lambda: SqliteStore(path).usage(query)


def log(path: Path, text: str) -> Callable[[], Any]:
    """One query of `/v1/requests`."""
    query = log_query(_parameters(text), Caller(admin=True))
    return lambda: log_answer(query, SqliteStore(path).log(query))


def _parameters(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split("&") if part)


USAGE = (
    *("", "group_by=model", "group_by=provider,model,key,rule,task", "group_by=day", "group_by=day,model"),
    *("group_by=hour&since=2026-10-29", "group_by=model&since=2026-10-07T10:30:00&until=2026-10-29T21:15:00"),
    *("group_by=day&tz=Europe/Berlin", "group_by=tag", "group_by=session&since=2026-10-29&until=2026-10-29T03"),
    *("group_by=strategy&since=2026-10-01", "group_by=day&tz=Asia/Kolkata&since=2026-10-02"),
)
LOG = (
    *("", "limit=1000", "model=local/smollm2", "tag=nightly&outcome=upstream_error", "session=s-77", "min_cost_usd=1"),
)


def _timed(ask: Callable[[], Any]) -> tuple[float, float]:
    """Milliseconds of the best of three, and KiB by which the process grew at most."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far (Linux)
    before, best = _peak_kb(), float("inf")
    for _ in range(3):
        begun = time.perf_counter()
        ask()
        best = min(best, time.perf_counter() - begun)
    return best * 1000, _peak_kb() - before


def _peak_kb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def main(path: Path) -> None:
    """Prints one line for each query."""
    if not path.exists():
        begun = time.perf_counter()
        make(path)
        print(f"made {CALLS:,} calls in {time.perf_counter() - begun:.0f} s")
    with closing(sqlite3.connect(path)) as db:
        (sums,) = db.execute("SELECT COUNT(*) FROM rollups").fetchone()
    print(f"{path.stat().st_size / 2**20:,.0f} MiB, {sums:,} rows of sums")
    asked = [(f"/v1/usage?{text}", usage(path, text)) for text in USAGE]
    asked.append(("/v1/usage?group_by=model of one key", usage(path, "group_by=model", "team-3")))
    asked += [(f"/v1/requests?{text}", log(path, text)) for text in LOG]
    for name, ask in asked:
        took_ms, grown_kb = _timed(ask)
        print(f"{took_ms:9.1f} ms {grown_kb / 1024:7.1f} MiB  {name}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder) / "usage-bench.db")
