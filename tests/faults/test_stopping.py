"""SIGTERM: calls in flight end within the grace period, or are cut and recorded; nothing is lost."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from tests.faults.books import assert_books_agree, files, rows
from tests.faults.talking import Heard, Talk, ask, talk
from tests.serving import Spawned, serving, spawned
from tests.upstream import FakeUpstream, spawn
from tests.upstream import Spawned as Upstream
from tests.waiting import eventually

STREAMS = 40


async def live(server: Spawned, model: str) -> list[Talk]:
    """Streams whose clients have read their first frames."""

    async def one() -> Talk:
        conversation = await talk(server.port, f"fake/{model}", stream_options={"include_usage": True})
        assert await conversation.head() == 200
        return conversation

    return await asyncio.gather(*(one() for _ in range(STREAMS)))


async def terminated(server: Spawned) -> tuple[int, float]:
    """Sends SIGTERM; the exit code and the seconds until the process was gone."""
    begun = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    code = await asyncio.to_thread(server.process.wait, 30)
    return code, time.monotonic() - begun


async def refused(port: int) -> None:
    """Waits until nobody can connect any more."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:  # refused, or reset where the listener closes at this moment
            return
        writer.close()
        await asyncio.sleep(0.05)


async def stop_under(
    folder: Path, upstream: Upstream, model: str, grace_s: float, workers: int
) -> tuple[list[Heard], int, float]:
    """40 live streams of a model, SIGTERM in the middle. Returns the clients' answers, the exit code, the seconds.

    While they drain, no new connections are accepted.
    """
    with spawned(files(folder, upstream.url, grace_s=grace_s), "--workers", str(workers)) as server:
        await ask(server.port, "fake/ok")
        conversations = await live(server, model)
        stopping = asyncio.create_task(terminated(server))
        reading = [asyncio.create_task(conversation.rest()) for conversation in conversations]
        await refused(server.port)
        assert not any(each.done() for each in reading)
        heard = await asyncio.gather(*reading)
        code, took_s = await stopping
    return heard, code, took_s


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.slow
async def test_streams_in_flight_end_within_the_grace_period(tmp_path: Path, workers: int) -> None:
    """All to their last frame; then the process ends with code 0, and the rows are the upstream's ledger."""
    with spawn() as upstream:
        heard, code, took_s = await stop_under(tmp_path, upstream, "ok(n_tokens=50,pace=0.05)", 10, workers)
        seen = upstream.ledger()
    print(f"\n  {STREAMS} streams, {workers} workers: all ended, exit code {code} after {took_s:.2f} s")
    assert all(each.done and each.finish_reasons == ["stop"] for each in heard)
    assert all(each.usage and each.usage["completion_tokens"] == 50 for each in heard)
    assert (code, took_s < 5) == (0, True)
    assert {row["outcome"] for row in rows(tmp_path, "calls")} == {"ok"}
    assert_books_agree(tmp_path, seen)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.slow
async def test_streams_that_outlast_the_grace_period_are_cut(tmp_path: Path, workers: int) -> None:
    """They get no invented finish: their last frame is an error. Their calls are `cancelled`, with their usage."""
    with spawn() as upstream:
        heard, code, took_s = await stop_under(tmp_path, upstream, "ok(n_tokens=900,pace=0.05)", 1, workers)
        seen = upstream.ledger()
    print(f"\n  {STREAMS} streams, {workers} workers: all cut, exit code {code} after {took_s:.2f} s")
    assert [each.finish_reasons for each in heard] == [[]] * STREAMS
    assert not any(each.done for each in heard)
    assert [each.error and each.error["code"] for each in heard] == ["overloaded"] * STREAMS
    assert (code, took_s <= 1 + 2) == (0, True)
    first, *cut = rows(tmp_path, "calls")
    assert (first["outcome"], {row["outcome"] for row in cut}) == ("ok", {"cancelled"})
    assert all(row["estimated"] and row["output_tokens"] >= 5 for row in cut)
    assert_books_agree(tmp_path, seen)


class Other:
    """Another server of this process, as its signal handler shows it: it stops, and is looked at while it does."""

    def __init__(self) -> None:
        self.looks = 0

    @property
    def should_exit(self) -> bool:
        self.looks += 1
        return True

    def handle_exit(self, number: int, frame: object) -> None:
        """Never called."""


async def test_another_server_of_this_process_stops_no_call(tmp_path: Path) -> None:
    """As in a program, or a test, that runs several. Its grace period is over before the call is."""
    other = Other()
    async with FakeUpstream() as upstream, serving(files(tmp_path, upstream.url, grace_s=0.6)) as server:
        asked = asyncio.create_task(ask(server.port, "fake/delay_whole(s=2)", stream=False))
        await upstream.until(lambda: bool(upstream.ledger))
        before = signal.signal(signal.SIGTERM, other.handle_exit)
        try:
            await eventually(lambda: other.looks > 0)
        finally:
            signal.signal(signal.SIGTERM, before)
        heard = await asked
    assert (heard.status, heard.finish_reasons) == (200, ["stop"])
