"""A client that leaves is noticed at once, whatever its connection is doing, and so is one that stopped reading."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

import pytest

from proxy.server.http1 import Limits, Peer, peer_of
from tests.server.http1.conftest import Run
from tests.server.http1.door import FAST, Door, served
from tests.server.http1.test_reader import FOLLOWER, post
from tests.slowness import own_time, takes
from tests.waiting import eventually

GONE_S = 0.25
WAIT = FOLLOWER.replace(b"/next", b"/wait")
LEAVE = FOLLOWER.replace(b"/next", b"/leave")
BEHIND = {
    "alone": b"",
    "with a request behind it": FOLLOWER,
    "with half a request behind it": FOLLOWER[:20],
    "with many behind it": FOLLOWER * 60,
    # The kernel has room for all of it: a client with bytes that nobody takes cannot end its connection.
    "with a large body behind it": post("content-length: 300000", body=b"x" * 300_000),
    "with half a large body behind it": post("content-length: 900000", body=b"x" * 300_000),
}


@pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND)
@pytest.mark.parametrize("abruptly", [False, True])
@pytest.mark.slow
def test_every_request_of_a_connection_learns_that_its_client_left(run: Run, behind: bytes, abruptly: bool) -> None:
    """Also where requests wait behind it, and where reading has paused because there is too much of them."""

    async def test() -> None:
        async with served() as door:
            reader, writer = await door.connect()
            writer.write(LEAVE + behind)
            await eventually(lambda: door.app.running == 1)
            await asyncio.sleep(0.1)
            assert door.app.left == []
            begun = own_time()
            writer.transport.abort() if abruptly else writer.close()
            await eventually(lambda: "/leave" in door.app.left)
            assert own_time() - begun < GONE_S
            door.app.go_on.set()
            await eventually(lambda: not door.app.running and not door.server.server_state.connections)
            assert door.app.connections.body_bytes == 0
            reader.feed_eof()

    run(test())


async def read_all(reader: asyncio.StreamReader) -> None:
    while await reader.read(100_000):
        pass


def test_a_handler_that_waits_for_nothing_is_told_too(run: Run) -> None:
    """The callback runs in the protocol: while the application floods, and while it waits for the client to read."""

    async def test() -> None:
        async with served() as door:
            for reads, enough in ((True, 3_000_000), (False, 60_000)):
                door.app.sent = 0
                reader, writer = await door.connect()
                writer.write(FOLLOWER.replace(b"/next", b"/flood"))
                reading = asyncio.create_task(read_all(reader) if reads else asyncio.sleep(0))
                await eventually(lambda: door.app.sent > enough)  # noqa: B023 - awaited here
                await asyncio.sleep(0.1)
                begun = own_time()
                writer.transport.abort()
                await eventually(lambda: not door.app.running)
                assert own_time() - begun < GONE_S
                await asyncio.wait([reading])

    run(test())


def test_a_half_closed_connection_gets_the_answer_of_a_handler_that_does_not_mind(run: Run) -> None:
    """`nc -N` closes its half right behind the request."""

    async def test() -> None:
        async with served() as door:
            for request in (FOLLOWER, WAIT, post("content-length: 3", body=b"abc") + FOLLOWER):
                reader, writer = await door.connect()
                writer.write(request)
                writer.write_eof()
                door.app.go_on.set()
                answer = await reader.read()
                assert answer.endswith(b" 0\n")
                writer.close()

    run(test())


def test_half_a_request_is_not_answered(run: Run) -> None:
    """Its connection is closed."""

    async def test() -> None:
        async with served() as door:
            for half in (FOLLOWER[:20], post("content-length: 3", body=b"ab"), b""):
                reader, writer = await door.connect()
                writer.write(half)
                writer.write_eof()
                assert await reader.read() == b""
                writer.close()
            assert door.app.requests == []

    run(test())


def test_an_answered_request_is_not_told(run: Run) -> None:
    """Its client may leave."""

    async def test() -> None:
        async with served() as door:
            reader, writer = await door.connect()
            writer.write(FOLLOWER)
            await reader.readuntil(b" 0\n")
            writer.close()
            await eventually(lambda: not door.server.server_state.connections)
            assert door.app.left == []
            assert not door.app.peers[0].gone

    run(test())


async def stopped(door: Door) -> asyncio.StreamWriter:
    """A client that asked for a flood and reads nothing."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", door.port))
    _, writer = await asyncio.open_connection(sock=sock)
    cast(asyncio.Transport, writer.transport).pause_reading()
    writer.write(FOLLOWER.replace(b"/next", b"/flood"))
    return writer


def test_a_reader_that_has_stopped_is_let_go(run: Run) -> None:
    """After `send_s` without a byte taken its connection is closed, and its handler is told."""

    async def test() -> None:
        async with served(FAST) as door:
            writer = await stopped(door)
            with takes(FAST.send_s, 1):
                await eventually(lambda: door.app.left == ["/flood"])
            await eventually(lambda: not door.app.running)
            assert door.app.sent < 1_000_000  # what it did not read was not taken from the application
            assert door.app.connections.counters.timed_out == 1
            writer.close()

    run(test())


@pytest.mark.slow
def test_a_slow_reader_is_not_a_stopped_one(run: Run) -> None:
    """Who takes something within each `send_s` is served."""

    async def test() -> None:
        async with served(Limits(send_s=0.4, sweep_s=0.02)) as door:
            writer = await stopped(door)
            sock = writer.get_extra_info("socket")
            for _ in range(20):
                await asyncio.sleep(0.05)
                with socket.socket(fileno=socket.dup(sock.fileno())) as twin:
                    twin.setblocking(False)
                    assert twin.recv(200_000)
            assert door.app.left == []
            writer.transport.abort()

    run(test())


def test_callbacks_run_once_and_can_be_taken_back() -> None:
    """A failing one does not stop the others; one that comes late runs at once."""
    peer, ran = Peer(), []

    def fails() -> None:
        raise ZeroDivisionError

    peer.on_disconnect(lambda: ran.append("first"))
    peer.on_disconnect(fails)
    forget = peer.on_disconnect(lambda: ran.append("taken back"))
    peer.on_disconnect(lambda: ran.append("last"))
    forget()
    peer.leave()
    peer.leave()
    assert ran == ["first", "last"]
    peer.on_disconnect(lambda: ran.append("late"))
    assert (ran[-1], peer.gone) == ("late", True)
    forget()


def test_another_server_has_no_such_client() -> None:
    """There `receive` has to tell."""
    assert not peer_of({"type": "http"}).gone
    assert not peer_of({"type": "http", "extensions": {}}).gone
