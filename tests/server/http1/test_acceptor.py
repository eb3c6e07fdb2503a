"""All that wait are accepted at once, and a refusal costs no transport."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
import socket
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from proxy.schema.errors import ProxyError
from proxy.server.http1 import Connections, HTTP1Protocol, Limits
from proxy.server.http1.acceptor import Acceptor, Loop
from proxy.server.http1.connections import STATE
from proxy.server.http1.reading import REFUSALS_PER_SECOND
from tests.server.http1.conftest import Run
from tests.server.http1.door import App
from tests.server.http1.test_reader import FOLLOWER, post
from tests.server.http1.test_requests import LAST
from tests.waiting import eventually

FULL = ProxyError("full", status=503, code="overloaded", headers={"retry-after": "1"})
KEPT = post("content-length: 2", body=b"{}")
ONCE = post("content-length: 2", "connection: close", body=b"{}")


class Hall:
    """An acceptor with nothing around it. POST /a is refused beyond `room` requests that are coming."""

    def __init__(self, listener: socket.socket, limits: Limits) -> None:
        self.room = 0
        self.made = 0  # protocols
        self.on_made: Callable[[], None] = lambda: None
        self.app = App()
        self.connections = Connections(limits, self._refusal)
        self.port = listener.getsockname()[1]
        self._config = uvicorn.Config(self.app, http=HTTP1Protocol, lifespan="off", log_config=None)
        self._state = ServerState()
        self.acceptor = Acceptor(asyncio.get_running_loop(), self._protocol, listener)
        self.made = 0

    def _refusal(self, _method: str, path: str, coming: int) -> ProxyError | None:
        return FULL if path == "/a" and coming >= self.room else None

    def _protocol(self) -> HTTP1Protocol:
        self.made += 1
        self.on_made()
        return HTTP1Protocol(self._config, self._state, {STATE: self.connections})

    def knock(self, data: bytes) -> socket.socket:
        """A client whose request has arrived before the loop turns."""
        sock = socket.create_connection(("127.0.0.1", self.port))
        sock.sendall(data)
        while _unacknowledged_bytes(sock):  # a busy kernel brings even a loopback's packets later
            os.sched_yield()
        sock.setblocking(False)
        return sock

    @property
    def is_empty(self) -> bool:
        """No connection is open, nor about to have its transport."""
        return not len(self.connections) and not self.acceptor._opening

    async def shed(self) -> None:
        """A first refusal, which tells the acceptor that there will be more."""
        sock = self.knock(ONCE)
        assert (await read(sock)).startswith(b"HTTP/1.1 503 ")
        await eventually(lambda: self.is_empty)
        self.made = 0


def _unacknowledged_bytes(sock: socket.socket) -> int:
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


async def read(sock: socket.socket, until: bytes = b"") -> bytes:
    """What comes until the server closes, or says this."""
    data = b""
    async with asyncio.timeout(10):
        while more := await asyncio.get_running_loop().sock_recv(sock, 65536):
            data += more
            if until and until in data:
                return data
    sock.close()
    return data


@asynccontextmanager
async def hall(limits: Limits | None = None, kind: Callable[[], socket.socket] = socket.socket) -> AsyncIterator[Hall]:
    with kind() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        found = Hall(listener, limits or Limits(sweep_s=0.02))
        try:
            yield found
        finally:
            found.app.go_on.set()
            found.acceptor.close()
            await found.acceptor.wait_closed()


def test_all_that_wait_are_accepted_in_one_turn(run: Run) -> None:
    """The last of them is as far as the first: `/livez` does not wait for one turn per connection."""

    async def test() -> None:
        async with hall() as door:
            socks = [door.knock(LAST) for _ in range(200)]
            turns = 0
            while len(door.connections) < 200:
                await asyncio.sleep(0)
                turns += 1
            assert turns < 10
            answers = await asyncio.gather(*map(read, socks))
            assert {answer[9:12] for answer in answers} == {b"200"}

    run(test())


def test_a_whole_request_is_refused_without_a_protocol(run: Run) -> None:
    """With an answer of its own, and closed without a reset."""

    async def test() -> None:
        async with hall() as door:
            await door.shed()
            answers = await asyncio.gather(*[read(door.knock(ONCE)) for _ in range(50)])
            assert door.made == 0
            assert {answer.partition(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 503 Service Unavailable"}
            assert all(b"retry-after: 1\r\n" in answer and b"connection: close\r\n" in answer for answer in answers)
            assert len({answer.partition(b"x-request-id: ")[2][:26] for answer in answers}) == 50

    run(test())


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (LAST, [b"200"]),
        (KEPT + LAST, [b"503", b"200"]),
        (post("expect: 100-continue", "content-length: 2"), [b"503"]),
        (post("transfer-encoding: chunked", "connection: close", body=b"0\r\n\r\n"), [b"503"]),
        (b"nonsense\r\n\r\n", [b"400"]),
    ],
    ids=["another path", "two requests", "asks first", "chunked", "malformed"],
)
def test_whatever_else_comes_is_served_as_ever(run: Run, data: bytes, statuses: list[bytes]) -> None:
    async def test() -> None:
        async with hall() as door:
            await door.shed()
            answer = await read(door.knock(data))
            assert re.findall(rb"HTTP/1.1 (\d+)", answer) == statuses
            assert door.made == 1

    run(test())


def test_who_sends_half_a_request_gets_a_protocol(run: Run) -> None:
    async def test() -> None:
        async with hall() as door:
            await door.shed()
            sock = door.knock(ONCE[:-1])
            await eventually(lambda: door.made == 1)
            sock.sendall(ONCE[-1:])
            assert (await read(sock)).startswith(b"HTTP/1.1 503 ")

    run(test())


def test_a_kept_connection_goes_on_after_its_refusal(run: Run) -> None:
    """With the time-outs of one that has had a request; and when there are places again, it is served."""

    async def test() -> None:
        async with hall(Limits(head_s=0.1, idle_s=60, sweep_s=0.02)) as door:
            await door.shed()
            sock = door.knock(KEPT)
            answer = await read(sock, until=b"full")
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"connection: close" not in answer
            assert door.made == 0
            assert len(door.connections) == 1
            await eventually(lambda: door.made == 1)
            await asyncio.sleep(0.3)  # three times `head_s`
            door.room = 1
            sock.sendall(ONCE)
            assert (await read(sock)).startswith(b"HTTP/1.1 200 ")
            await eventually(lambda: door.is_empty)

    run(test())


def test_who_leaves_after_a_refusal_leaves_nothing_behind(run: Run) -> None:
    async def test() -> None:
        async with hall() as door:
            await door.shed()
            for _ in range(REFUSALS_PER_SECOND // 2):  # so that the connections behind them rest for half a second
                door.connections.resting.add(lambda: None)
            socks = [door.knock(KEPT) for _ in range(20)]
            for sock in socks:
                await read(sock, until=b"full")
                sock.close()
            await eventually(lambda: door.is_empty)
            assert door.made == 0

    run(test())


def test_a_refused_connection_stays_only_where_there_is_room(run: Run) -> None:
    """And makes room for one that has something else to ask."""

    async def test() -> None:
        async with hall(Limits(connections=2, sweep_s=0.02)) as door:
            await door.shed()
            kept = [door.knock(KEPT) for _ in range(2)]
            for sock in kept:
                assert b"connection: close" not in await read(sock, until=b"full")
            assert b"connection: close\r\n" in await read(door.knock(KEPT))
            assert (await read(door.knock(LAST))).startswith(b"HTTP/1.1 200 ")
            assert door.connections.counters.evicted == 1
            assert await read(kept[0]) == b""
            kept[1].close()

    run(test())


def test_no_more_are_let_in_than_there_is_room_for(run: Run) -> None:
    """Of all that wait in one turn of the loop, which take their places only later. Those who leave take none."""

    async def test() -> None:
        async with hall() as door:
            await door.shed()
            door.room = 2
            for _ in range(3):
                left = door.knock(ONCE)
                left.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                left.close()
                await eventually(lambda: door.made == 1 and door.is_empty)
                answers = await asyncio.gather(*[read(sock) for sock in [door.knock(ONCE) for _ in range(20)]])
                assert sorted(answer[9:12] for answer in answers) == [b"200"] * 2 + [b"503"] * 18
                assert door.made == 3
                await eventually(lambda: door.is_empty)
                door.made = 0

    run(test())


def test_kept_connections_are_let_in_one_by_one_too(run: Run) -> None:
    """Their requests are here in whole, and their handlers have not begun."""

    async def test() -> None:
        async with hall(Limits(head_s=60, sweep_s=0.02)) as door:
            door.room = 20
            socks = [door.knock(KEPT) for _ in range(20)]
            for sock in socks:
                await read(sock, until=b"POST /a 2\n")
            door.room = 2
            door.connections.shed_at = asyncio.get_running_loop().time()
            for sock in socks:
                sock.sendall(ONCE)
            answers = await asyncio.gather(*map(read, socks))
            assert sorted(answer[9:12] for answer in answers) == [b"200"] * 2 + [b"503"] * 18

    run(test())


def test_more_than_can_rest_do_not_stay(run: Run) -> None:
    """So a flood from clients that would keep their connections costs little more than one that would not."""

    async def test() -> None:
        async with hall() as door:
            await door.shed()
            for _ in range(REFUSALS_PER_SECOND):
                door.connections.resting.add(lambda: None)
            assert b"connection: close\r\n" in await read(door.knock(KEPT))
            assert not len(door.connections)

    run(test())


def test_closing_closes_refused_connections_too(run: Run) -> None:
    """uvicorn does not know them, so it neither closes them nor waits for them."""

    async def test() -> None:
        async with hall() as door:
            await door.shed()
            sock = door.knock(KEPT)
            await read(sock, until=b"full")
        assert await read(sock) == b""
        assert not len(door.connections)

    run(test())


def test_a_connection_that_opens_while_the_server_closes_is_not_waited_for(run: Run) -> None:
    async def test() -> None:
        async with hall() as door:
            door.on_made = door.acceptor.close
            sock = door.knock(FOLLOWER)
            await read_to_end(sock)
            assert door.made == 1
            await eventually(lambda: door.is_empty)

    run(test())


async def read_to_end(sock: socket.socket) -> None:
    try:
        await read(sock)
    except ConnectionResetError:
        sock.close()


class _OutOfFiles(socket.socket):
    """Has no descriptor for the first connections."""

    failures = 3
    attempts = 0

    def _accept(self) -> Any:
        self.attempts += 1
        if self.attempts <= self.failures:
            raise OSError(errno.EMFILE, "Too many open files")
        return super()._accept()  # type: ignore[misc]


def test_without_descriptors_it_tries_again_later(run: Run) -> None:
    """And not in every turn of the loop meanwhile."""

    async def test() -> None:
        listener = _OutOfFiles()
        async with hall(kind=lambda: listener) as door:
            assert (await read(door.knock(LAST))).startswith(b"HTTP/1.1 200 ")
            assert listener.attempts < 10

    run(test())


def test_the_products_loop_accepts_this_way() -> None:
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            app = {STATE: Connections()}
            config = uvicorn.Config(App(), http=HTTP1Protocol, lifespan="off", log_config=None)
            loop = asyncio.get_running_loop()
            server: Any = await loop.create_server(lambda: HTTP1Protocol(config, ServerState(), app), sock=listener)
            assert isinstance(server, Acceptor)
            server.close()

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(test())
