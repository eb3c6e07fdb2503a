"""Nobody waits without end, and nobody's waiting keeps others out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest

from proxy.server.http1 import Limits
from tests.server.http1.conftest import Run
from tests.server.http1.door import FAST, Door, served
from tests.server.http1.test_reader import FOLLOWER, post
from tests.slowness import own_time, takes
from tests.waiting import eventually

WAIT = b"GET /wait HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
HALVES = {
    "silent": (b"", b""),
    "half a head": (FOLLOWER[:20], b"HTTP/1.1 408 "),
    "half a body": (post("content-length: 10", body=b"abc"), b"HTTP/1.1 408 "),
    "half a large body": (post("content-length: 200000", body=b"x" * 100_000), b"HTTP/1.1 408 "),
    "half a chunk": (post("transfer-encoding: chunked", body=b"3\r\nab"), b"HTTP/1.1 408 "),
    "a body that asks first": (post("expect: 100-continue", "content-length: 10"), b"HTTP/1.1 100 "),
    "blank lines": (b"\r\n" * 100, b""),
}


async def connected(door: Door, data: Iterable[bytes]) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    found = []
    for each in data:
        reader, writer = await door.connect()
        writer.write(each)
        found.append((reader, writer))
    await asyncio.sleep(0.05)
    return found


@pytest.mark.parametrize(("data", "answer"), HALVES.values(), ids=HALVES)
@pytest.mark.slow
def test_half_of_anything_has_an_end(run: Run, data: bytes, answer: bytes) -> None:
    """With an answer where a request had begun; and the application never saw it."""

    async def test() -> None:
        async with served(FAST) as door:
            with takes(0.15, 1.85):
                got = await door.say(data)
            assert got.startswith(answer)
            assert bool(got) == bool(answer)
            assert door.app.requests == []
            await eventually(lambda: not door.app.running and not len(door.app.connections))
            assert door.app.connections.body_bytes == 0

    run(test())


async def dripped(door: Door, begin: bytes) -> tuple[bytes, float]:
    """What comes back to a client that goes on byte by byte, and after how long."""
    reader, writer = await door.connect()
    begun = own_time()
    writer.write(begin)
    reading = asyncio.create_task(reader.readline())
    while not reading.done():
        writer.write(b"X")
        await asyncio.wait({reading}, timeout=0.02)
    writer.transport.abort()
    return reading.result(), own_time() - begun


@pytest.mark.slow
def test_dripping_does_not_make_a_head_last(run: Run) -> None:
    """A head has its time as a whole; a body only has to go on."""

    async def test() -> None:
        async with served(FAST) as door:
            answer, took_s = await dripped(door, FOLLOWER[:20])
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert took_s < 1
            drips = (b"y" for _ in range(20))
            reader, writer = await door.connect()
            writer.write(post("content-length: 20"))
            for drip in drips:
                await asyncio.sleep(0.05)
                writer.write(drip)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
            writer.close()

    run(test())


def test_a_body_has_an_end_as_a_whole(run: Run) -> None:
    """However steadily it drips."""

    async def test() -> None:
        async with served(Limits(body_s=5, whole_body_s=0.3, sweep_s=0.02)) as door:
            answer, took_s = await dripped(door, post("content-length: 1000"))
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert took_s < 2.5

    run(test())


def test_an_idle_connection_is_closed(run: Run) -> None:
    """After `idle_s`, and no sooner; each request begins anew."""

    async def test() -> None:
        async with served(FAST) as door:
            reader, writer = await door.connect()
            for _ in range(3):
                writer.write(FOLLOWER)
                await reader.readuntil(b" 0\n")
                await asyncio.sleep(0.1)
            with takes(0.1, 0.9):
                assert await reader.read() == b""
            writer.close()

    run(test())


@pytest.mark.slow
def test_a_request_that_is_served_has_no_limit_here(run: Run) -> None:
    """Its time is the application's to measure, also while half a request waits behind it."""

    async def test() -> None:
        async with served(FAST) as door:
            asking = asyncio.create_task(door.say(FOLLOWER.replace(b"/next", b"/wait") + FOLLOWER[:9]))
            await asyncio.sleep(0.8)
            assert not asking.done()
            door.app.go_on.set()
            assert (await asking).startswith(b"HTTP/1.1 200 ")

    run(test())


@pytest.mark.parametrize("data", [b"", FOLLOWER[:9], post("content-length: 9", body=b"x"), FOLLOWER])
@pytest.mark.sampled(4)
def test_waiting_connections_make_room_for_new_ones(run: Run, data: bytes) -> None:
    """The oldest first, so that who speaks at once is heard; a request that is served is never cut."""

    async def test() -> None:
        async with served(Limits(connections=20, sweep_s=0.02)) as door:
            asking = asyncio.create_task(door.say(WAIT))
            await eventually(lambda: door.app.running == 1)
            crowd = await connected(door, [data] * 60)
            for _ in range(10):
                reader, writer = await door.connect()
                writer.write(FOLLOWER)
                assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
                crowd.append((reader, writer))
            assert len(door.app.connections) <= 20
            await eventually(lambda: len(door.server.server_state.connections) <= 20)
            assert door.app.connections.counters.evicted >= 50
            door.app.go_on.set()
            assert (await asking).startswith(b"HTTP/1.1 200 ")
            for _, writer in crowd:
                writer.transport.abort()

    run(test())


def test_where_all_are_served_a_new_connection_is_refused(run: Run) -> None:
    """With an answer that says to come again."""

    async def test() -> None:
        async with served(Limits(connections=5, sweep_s=0.02)) as door:
            crowd = await connected(door, [WAIT] * 5)
            answer = await door.say(b"")
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1\r\n" in answer
            door.app.go_on.set()
            for reader, writer in crowd:
                assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
                writer.close()

    run(test())


@pytest.mark.slow
def test_bodies_have_a_limit_together(run: Run) -> None:
    """The largest unfinished one goes first, so that a few that never end keep nobody out; what is served stays."""

    async def test() -> None:
        async with served(Limits(body_bytes=1_000_000, sweep_s=0.02)) as door:
            kept = post("content-length: 300000", body=b"x" * 300_000).replace(b"/a", b"/wait")
            asking = asyncio.create_task(door.say(kept))
            await eventually(lambda: door.app.connections.body_bytes == 300_000 and bool(door.app.requests))
            half = post("content-length: 500000", body=b"x" * 200_000)
            crowd = await connected(door, [half] * 20)
            small = await door.say(post("connection: close", "content-length: 60000", body=b"x" * 60_000))
            assert small.startswith(b"HTTP/1.1 200 ")
            assert door.app.connections.body_bytes <= 1_000_000
            assert door.app.connections.counters.refused_bodies >= 17
            refused = [reader async for reader in _answered(crowd)]
            assert len(refused) >= 17
            assert set(refused) == {b"HTTP/1.1 503 Service Unavailable\r\n"}
            door.app.go_on.set()
            for _, writer in crowd:
                writer.transport.abort()
            await eventually(lambda: door.app.connections.body_bytes == 0)
            asking.cancel()

    run(test())


async def _answered(crowd: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> AsyncIterator[bytes]:
    for reader, _ in crowd:
        try:
            async with asyncio.timeout(0.2):
                yield await reader.readline()
        except TimeoutError:
            pass


def test_a_small_body_costs_no_task_until_it_is_whole(run: Run) -> None:
    """A thousand halves are a thousand connections and nothing else."""

    async def test() -> None:
        async with served() as door:
            half = post("content-length: 5000", body=b"x" * 4000)
            crowd = await connected(door, [half] * 100)
            assert door.app.running == 0
            crowd[0][1].write(b"x" * 1000)
            assert (await crowd[0][0].readline()).startswith(b"HTTP/1.1 200 ")
            for _, writer in crowd:
                writer.transport.abort()

    run(test())


@pytest.mark.slow
def test_a_stream_is_told_why_it_is_cut_at_the_end_of_grace(run: Run) -> None:
    """An event with the error, and no end marker."""

    async def test() -> None:
        async with served() as door:
            asking = asyncio.create_task(door.say(FOLLOWER.replace(b"/next", b"/events")))
            await eventually(lambda: door.app.running == 1)
            await asyncio.sleep(0.05)
            door.server.should_exit = True
            answer = await asking
            assert b"part2 " in answer
            assert b'data: {"error":{"message":"The server is stopping.' in answer
            assert answer.endswith(b"\n\n\r\n0\r\n\r\n")

    run(test())
