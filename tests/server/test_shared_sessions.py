"""Conversations that moved are where they are warm on every worker: over one file, and over two processes."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from proxy.routing.board import HealthBoard
from proxy.server.shared_sessions import SharedSessions
from proxy.storage.sqlite import SqliteStore
from proxy.storage.sticky_moves import StickyMoves
from tests.faults.talking import ask
from tests.server.api.raw import post
from tests.serving import spawned
from tests.upstream import FakeUpstream
from tests.waiting import eventually, until


class Log:
    """The events that were logged."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def warning(self, event: str, **_: Any) -> None:
        self.events.append(event)


class Worker:
    """What one worker has of its own."""

    def __init__(self, path: Path) -> None:
        self.board = HealthBoard(lambda: 50.0, lambda: 1_700_000_050.0)
        self.log = Log()
        self.shared = SharedSessions(
            self.board.sessions,
            StickyMoves(path),
            self.log,  # type: ignore[arg-type]
            lambda: 1_700_000_050_000_000_000,
        )


def created(path: Path) -> Path:
    store = SqliteStore(path)
    store.open()
    store.close()
    return path


async def test_two_workers_agree_where_a_conversation_is_warm(tmp_path: Path) -> None:
    """Also a third that starts later. The last move counts."""
    path = created(tmp_path / "usage.db")
    one, two = Worker(path), Worker(path)
    one.board.sessions.note("s", "b/m", 2000, is_home=False)
    one.board.sessions.note("home", "a/m", 2000)
    two.board.sessions.note("s", "a/m", 1500)
    for worker in (one, two):
        await worker.shared.exchange()
    late = Worker(path)
    await late.shared.exchange()
    for worker in (one, two, late):
        assert worker.board.state("s").warm == {"s": ("b/m", 2000)}
    assert late.board.state("home").warm == {}
    two.board.sessions.note("s", "c/m", 2500)
    for worker in (two, one, late):
        await worker.shared.exchange()
    assert {worker.board.state("s").warm["s"] for worker in (one, two, late)} == {("c/m", 2500)}


async def test_while_the_database_is_away_nothing_is_lost(tmp_path: Path) -> None:
    """One line in the log for each change."""
    path = tmp_path / "usage.db"
    worker = Worker(path)
    worker.board.sessions.note("s", "b/m", 2000, is_home=False)
    for _ in range(3):
        await worker.shared.exchange()
    assert worker.board.state("s").warm == {"s": ("b/m", 2000)}
    created(path)
    for _ in range(3):
        await worker.shared.exchange()
    assert worker.log.events == ["sticky_moves_degraded", "sticky_moves_recovered"]
    other = Worker(path)
    await other.shared.exchange()
    assert other.board.state("s").warm == {"s": ("b/m", 2000)}


def configured(folder: Path, url: str) -> Path:
    provider = {"type": "openai", "base_url": url, "allow_private": True, "price": None, "retries": 0}
    routing = {
        "version": 1,
        "storage": {"url": f"sqlite:///{folder / 'usage.db'}"},
        "providers": {"fake": provider},
        "tasks": {"default": ["fake/one", "fake/two"]},
    }
    (folder / "routing_rules.yaml").write_text(json.dumps(routing))
    prices = {"fake/*": {"input": 2.0, "output": 10.0, "cached_input": 0.2, "max_output": 4096}}
    (folder / "pricing.yaml").write_text(json.dumps({"version": 1, "lookup": None, "models": prices}))
    return folder / "routing_rules.yaml"


@pytest.mark.slow
async def test_a_conversation_that_moved_in_one_process_stays_there_in_another(tmp_path: Path) -> None:
    """Its first choice is well in the other process, and nothing of the conversation is in the database but a hash."""
    said = "confidential " * 1500
    messages = [{"role": "user", "content": said}]

    async def model(port: int, user: str) -> str:
        heard = await ask(port, "auto", stream=False, messages=messages, user=user)
        return str(heard.body["model"])

    async with FakeUpstream(modes={"one": "e429(retry_after=50)", "two": "ok"}) as upstream:
        routing = configured(tmp_path, upstream.url)
        with spawned(routing) as first, spawned(routing) as second:
            assert await model(first.port, "user-of-the-test") == "fake/two"
            upstream.modes["one"] = "ok"
            with closing(sqlite3.connect(tmp_path / "usage.db")) as db:
                await eventually(lambda: db.execute("SELECT COUNT(*) FROM sticky_moves").fetchone() == (1,))
                (kept,) = db.execute("SELECT session || model FROM sticky_moves").fetchone()
            assert await model(second.port, "another user") == "fake/one"

            body = json.dumps({"model": "auto", "messages": messages, "user": "user-of-the-test"}).encode()

            async def is_known() -> bool:  # an explanation makes nothing warm
                return bool((await post(second.port, body, "/v1/route/explain")).json["chosen"] == "fake/two")

            await until(is_known)
            assert await model(second.port, "user-of-the-test") == "fake/two"
    assert "user-of-the-test" not in kept
    assert "confidential" not in kept
