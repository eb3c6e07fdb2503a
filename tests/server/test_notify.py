"""Alerts on budgets: once over all workers and restarts, in the log and at a webhook that may hang or fail."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from proxy.metering.crossings import Crossings
from proxy.schema.records import Charge, Crossing, Secret
from proxy.server.notify import Alerts
from proxy.storage.alerts import AlertRows
from proxy.storage.batch import Batch
from proxy.storage.sqlite import SqliteStore
from tests.faults.books import files, rows
from tests.faults.talking import ask
from tests.serving import spawned
from tests.storage.test_sqlite import settled
from tests.upstream import FakeUpstream
from tests.waiting import eventually

DAY_NS = 86_400 * 10**9
CROSSING = Crossing("daily", 5 * DAY_NS, 5 * DAY_NS, 0.8, 17 * 10**9, 20 * 10**9, 6 * DAY_NS)


class Log:
    """The events that were logged."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))

    def names(self) -> list[str]:
        return [event for event, _ in self.events]


class Receiver:
    """A webhook on a socket: answers with the next of `answers` (None: never), then 204."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.received: list[tuple[str, dict[str, Any]]] = []
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Receiver]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?token=secret"
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):  # the client has left
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
            self.received.append((head, json.loads(await reader.readexactly(length))))
            answer = self.answers.pop(0) if self.answers else b"204 No Content"
            if answer is None:
                await reader.read()
            else:
                writer.write(b"HTTP/1.1 " + answer + b"\r\ncontent-length: 0\r\n\r\n")
                await writer.drain()
        writer.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    store = SqliteStore(tmp_path / "x.db")
    store.open()
    store.close()
    return tmp_path / "x.db"


@asynccontextmanager
async def alerting(path: Path, url: str | None, limit_s: float = 10.0) -> AsyncIterator[tuple[Alerts, Log]]:
    log = Log()
    alerts = Alerts(AlertRows(path), log, pauses_s=(0.01, 0.01), limit_s=limit_s)  # type: ignore[arg-type]
    alerts.url = None if url is None else Secret(url)
    task = asyncio.create_task(alerts.follow())
    try:
        yield alerts, log
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_an_alert_names_budget_and_figures(path: Path) -> None:
    """The same in the log and in the POST; the URL is in no log."""
    event = {"budget": "daily", "share": 0.8, "spent_usd": 17.0, "limit_usd": 20.0, "resets_at": "1970-01-07T00:00:00Z"}
    async with Receiver().running() as hook, alerting(path, hook.url) as (alerts, log):
        alerts.put(CROSSING)
        await eventually(lambda: bool(hook.received))
        assert log.events == [("budget_alert", event)]
    ((head, body),) = hook.received
    assert head.startswith("POST /hook?token=secret HTTP/1.1\r\n")
    assert body == {"event": "budget_alert", **event}


async def test_an_alert_is_sent_once_over_all_processes(path: Path) -> None:
    """Another share, another window and another limit are other alerts."""
    async with Receiver().running() as hook, alerting(path, hook.url) as (one, log):
        async with alerting(path, hook.url) as (two, other):
            for alerts in (one, two, one):
                alerts.put(CROSSING)
            others = [("share", 0.95), ("start_ns", 6 * DAY_NS), ("limit_nano", 30 * 10**9), ("budget", "key a daily")]
            for name, value in others:
                values = {each: getattr(CROSSING, each) for each in CROSSING.__struct_fields__} | {name: value}
                values["since_ns"] = values["start_ns"]
                two.put(Crossing(**values))
            one.put(Crossing("last", 1, 1, 0.8, 1, 1, 2))
            await eventually(lambda: len(hook.received) == 6)
        assert len(log.names() + other.names()) == 6
    async with Receiver().running() as hook, alerting(path, hook.url) as (again, log):  # a restart
        again.put(CROSSING)
        again.put(Crossing("hour", 1, 1, 0.8, 1, 1, 2))
        await eventually(lambda: bool(hook.received))
        assert [body["budget"] for _, body in hook.received] == ["hour"]


def test_a_sliding_window_is_reported_once_in_its_length(path: Path) -> None:
    """Each of its buckets would be a window otherwise."""
    found = AlertRows(path)
    sliding = [
        Crossing("last_24h", at, at - DAY_NS, 0.8, 1, 1, None) for at in range(10**18, 10**18 + 3 * DAY_NS, DAY_NS // 4)
    ]
    assert [found.is_first(each, 1) for each in sliding] == [number in (0, 5, 10) for number in range(12)]


@pytest.mark.parametrize("answer", [b"500 Oops", b"302 Found\r\nlocation: http://127.0.0.1:1/", b"429 Later", None])
@pytest.mark.sampled(3)
async def test_a_webhook_that_fails_gets_the_alert_again(path: Path, answer: bytes | None) -> None:
    """Also one that never answers; redirects are not followed."""
    async with Receiver(answer, answer).running() as hook, alerting(path, hook.url, limit_s=1) as (alerts, log):
        alerts.put(CROSSING)
        await eventually(lambda: len(hook.received) == 3)
        assert log.names() == ["budget_alert"]
    assert all(body == hook.received[0][1] for _, body in hook.received)


async def test_after_three_tries_the_log_tells_and_the_next_alert_is_sent(path: Path) -> None:
    """Without the URL."""
    async with Receiver(*[b"500 Oops"] * 3).running() as hook, alerting(path, hook.url) as (alerts, log):
        alerts.put(CROSSING)
        alerts.put(Crossing("hour", 1, 1, 0.8, 1, 1, 2))
        await eventually(lambda: len(hook.received) == 4)
        assert log.events[-1] == ("budget_alert_not_sent", {"budget": "daily", "share": 0.8, "error": "status 500"})
        assert "secret" not in str(log.events)
    async with alerting(path, "http://127.0.0.1:1/?token=secret") as (alerts, log):
        alerts.put(Crossing("minute", 1, 1, 0.8, 1, 1, 2))
        await eventually(lambda: log.names() == ["budget_alert", "budget_alert_not_sent"])
        assert "secret" not in str(log.events)


async def test_a_webhook_that_hangs_delays_no_log_event_and_fills_no_memory(path: Path) -> None:
    """What no longer fits the queue is dropped, and the log tells."""
    async with Receiver(*[None] * 9).running() as hook, alerting(path, hook.url, limit_s=60) as (alerts, log):
        for number in range(5):
            alerts.put(Crossing("hour", number, number, 0.8, 1, 1, 2))
        await eventually(lambda: log.names() == ["budget_alert"] * 5)
        await eventually(lambda: len(hook.received) == 1)
        for number in range(2_000):
            alerts.put(Crossing("day", number, number, 0.8, 1, 1, 2))
        assert "budget_alert_dropped" in log.names()


async def test_without_a_database_an_alert_is_sent_all_the_same(tmp_path: Path) -> None:
    """Better twice than never."""
    async with Receiver().running() as hook, alerting(tmp_path / "gone.db", hook.url) as (alerts, log):
        alerts.put(CROSSING)
        await eventually(lambda: bool(hook.received))
        assert log.names() == ["budget_alert_not_stored", "budget_alert"]


DAILY = Charge("daily", 5, 5, 1250, 1000)
SLIDING = Charge("last_24h", 144 * 600 * 10**9, 0, 1000)


@pytest.mark.parametrize(
    ("spent", "shares"), [(0, []), (799, []), (800, [0.8]), (949, [0.8]), (950, [0.8, 0.95]), (3000, [0.8, 0.95])]
)
def test_shares_are_of_the_soft_limit_where_there_is_one(spent: int, shares: list[float]) -> None:
    """What is only held does not count."""
    crossings, batch = Crossings(), settled("a")
    crossings.watch([0.95, 0.8, 0.8])
    batch.charges = {"a": (DAILY,)}
    found = crossings.found(batch, {("daily", 5): (spent, 9_000)})
    assert [each.share for each in found] == shares
    assert {(each.spent_nano, each.limit_nano) for each in found} <= {(spent, 1000)}
    assert crossings.found(batch, {("daily", 5): (spent, 0)}) == []


def test_a_sliding_window_counts_all_its_buckets() -> None:
    """Those of the last 24 hours."""
    crossings, batch = Crossings(), settled("a")
    crossings.watch([0.5])
    batch.attempt_charges = {"a-1": (SLIDING,)}
    buckets = {("last_24h", number * 600 * 10**9): (4, 0) for number in range(145)}
    assert [each.spent_nano for each in crossings.found(batch, buckets)] == [580]


@pytest.mark.parametrize(
    ("change", "spent"), [(lambda batch: Batch(charges=batch.charges), 999), (lambda batch: batch, 0)]
)
def test_nothing_ended_or_spent_is_no_crossing(change: Callable[[Batch], Batch], spent: int) -> None:
    """Also of a limit of nothing."""
    crossings, batch = Crossings(), settled("a")
    crossings.watch([0.0 if spent else 0.5])
    batch.charges = {"a": (DAILY, Charge("hour", 5, 5, 0))}
    assert crossings.found(change(batch), {("daily", 5): (spent, 0), ("hour", 5): (0, 0)}) == []


@pytest.mark.slow
async def test_a_server_sends_each_share_once_over_workers_and_restarts(tmp_path: Path) -> None:
    """A budget that is used up further after the server was killed."""
    async with Receiver().running() as hook, FakeUpstream() as upstream:
        # 3 tokens of $2 and 10 of $10 a million: $0.000106 a call
        budget = {"total_usd": 0.01, "alert_at": [0.05, 0.08], "alert_webhook_env": "HOOK", "when_spent": "reject"}
        routing = files(tmp_path, upstream.url, budget=budget)
        environ = {"HOOK": hook.url}
        with spawned(routing, "--workers", "2", environ=environ) as server:
            for _ in range(6):
                assert (await ask(server.port, "fake/ok", max_tokens=10)).status == 200
            await eventually(lambda: len(hook.received) == 1)
            server.kill()
        with spawned(routing, "--workers", "2", environ=environ) as server:
            for _ in range(4):
                assert (await ask(server.port, "fake/ok", max_tokens=10)).status == 200
            await eventually(lambda: len(hook.received) == 2)
            assert await asyncio.to_thread(server.stop) == 0
    assert [body["share"] for _, body in hook.received] == [0.05, 0.08]
    assert len(rows(tmp_path, "calls")) == 10
    text = (tmp_path / "server.log").read_text()
    assert text.count('"budget_alert"') == 2
    assert "token=secret" not in text
    with closing(sqlite3.connect(tmp_path / "usage.db")) as db:
        assert db.execute("SELECT budget, share FROM alerts").fetchall() == [("total", 0.05), ("total", 0.08)]
