"""Requests and answers on real sockets: each request is answered once, in its order, framed as its client can read."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest

from proxy.schema.errors import ProxyError
from proxy.server.http1 import HTTP1Protocol, peer_of
from proxy.server.http1.reading import REFUSALS_PER_SECOND
from tests.server.http1.conftest import Run
from tests.server.http1.door import LARGE, served
from tests.server.http1.test_reader import CHUNKED, FOLLOWER, SMUGGLED, UPGRADES, post
from tests.slowness import own_time
from tests.waiting import eventually

LAST = b"GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"


def bodies(answers: bytes) -> list[bytes]:
    return re.findall(rb"\r\n\r\n([^\r]*)\n", answers)


@pytest.mark.parametrize("headers", UPGRADES.values(), ids=UPGRADES)
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.sampled(4)
def test_a_request_that_asks_for_an_upgrade_is_answered(run: Run, headers: tuple[str, ...], chunked: bool) -> None:
    """Once, whatever segments it comes in, and its body is never a request."""

    async def test() -> None:
        framing = "transfer-encoding: chunked" if chunked else f"content-length: {len(SMUGGLED)}"
        data = post(*headers, framing, body=CHUNKED if chunked else SMUGGLED)
        head = data.index(b"\r\n\r\n") + 4
        expected = [b"POST /a %d" % len(SMUGGLED), b"GET /last 0"]
        async with served() as door:
            assert bodies(await door.say(data + LAST)) == expected
            for split in range(5, len(data), 7):
                assert bodies(await door.say(data[:split], data[split:] + LAST)) == expected, split
            assert bodies(await door.say(data[:head], data[head : head + 9], data[head + 9 :], LAST)) == expected
            assert all(path != "/smuggled" for _, path, _ in door.app.requests)

    run(test())


@pytest.mark.parametrize("path", [b"/large", b"/chunks"])
def test_a_large_answer_arrives_as_it_was_sent(run: Run, path: bytes) -> None:
    """It leaves slice by slice, and the next answer follows it."""

    async def test() -> None:
        async with served() as door:
            answers = await door.say(FOLLOWER.replace(b"/next", path) + LAST, timeout_s=60)
            head, _, rest = answers.partition(b"\r\n\r\n")
            if path == b"/large":
                assert b"content-length: 8000000" in head
                assert rest[: len(LARGE)] == LARGE
                rest = rest[len(LARGE) :]
            else:
                read = b""
                while (size := int(rest[: rest.index(b"\r\n")], 16)) > 0:
                    at = rest.index(b"\r\n") + 2
                    read += rest[at : at + size]
                    rest = rest[at + size + 2 :]
                assert read == LARGE * 2
                rest = rest[5:]
            assert bodies(rest) == [b"GET /last 0"]

    run(test())


def test_a_large_answer_to_a_client_that_left_ends(run: Run) -> None:
    """Its handler returns, and nothing is kept."""

    async def test() -> None:
        async with served() as door:
            reader, writer = await door.connect()
            writer.write(FOLLOWER.replace(b"/next", b"/large"))
            await reader.readexactly(1_000)
            writer.transport.abort()
            await eventually(lambda: not door.app.running)
            await eventually(lambda: not door.server.server_state.connections)

    run(test())


def test_pipelined_requests_are_answered_in_their_order(run: Run) -> None:
    """Also behind one that takes its time, with large bodies, more than wait at once."""

    async def test() -> None:
        async with served() as door:
            large = post("content-length: 300000", body=b"x" * 300_000)
            slow = FOLLOWER.replace(b"/next", b"/wait")
            asking = asyncio.create_task(door.say(slow + large + FOLLOWER * 40 + large[:77], large[77:] + LAST))
            await eventually(lambda: len(door.app.requests) == 1)
            door.app.go_on.set()
            got = bodies(await asking)
            expected = [b"GET /wait 0", b"POST /a 300000", *[b"GET /next 0"] * 40, b"POST /a 300000", b"GET /last 0"]
            assert got == expected

    run(test())


def test_no_more_than_some_requests_are_read_ahead(run: Run) -> None:
    """Behind one that takes its time the others stay with their client."""

    async def test() -> None:
        async with served() as door:
            slow = FOLLOWER.replace(b"/next", b"/wait")
            asking = asyncio.create_task(door.say(slow + FOLLOWER * 40 + LAST))
            await eventually(lambda: len(door.app.requests) == 1)
            (waiting,) = door.server.server_state.connections
            await eventually(lambda: not waiting.transport.is_reading())
            door.app.go_on.set()
            assert bodies(await asking) == [b"GET /wait 0", *[b"GET /next 0"] * 40, b"GET /last 0"]

    run(test())


def test_a_head_behind_a_large_body_is_no_large_head(run: Run) -> None:
    """The end of a body and half of the next head in one read."""

    async def test() -> None:
        async with served() as door:
            large = post("content-length: 100000", body=b"x" * 100_000)
            for split in (20, 40):
                assert bodies(await door.say(large + LAST[:split], LAST[split:])) == [b"POST /a 100000", b"GET /last 0"]

    run(test())


@pytest.mark.parametrize("broken", [b"nonsense\r\n\r\n", post("transfer-encoding: chunked", body=b"zz\r\n")])
def test_nonsense_behind_a_request_does_not_become_its_answer(run: Run, broken: bytes) -> None:
    """First the answer, then the error, then the end."""

    async def test() -> None:
        async with served() as door:
            asking = asyncio.create_task(door.say(FOLLOWER.replace(b"/next", b"/wait") + broken))
            await eventually(lambda: door.app.running == 1)
            door.app.go_on.set()
            first, _, second = (await asking).partition(b"GET /wait 0\n")
            assert first.startswith(b"HTTP/1.1 200 ")
            assert second.startswith(b"HTTP/1.1 400 ")
            assert b"connection: close\r\n" in second

    run(test())


def test_http_1_0_gets_no_chunks(run: Run) -> None:
    """The end of the connection ends the answer (RFC 9112, 6.1), also for who would keep it."""

    async def test() -> None:
        async with served() as door:
            for more in (b"", b"connection: keep-alive\r\n"):
                answer = await door.say(b"GET /stream HTTP/1.0\r\nhost: a\r\n" + more + b"\r\n")
                assert b"transfer-encoding" not in answer
                assert b"connection: close\r\n" in answer
                assert answer.endswith(b"\r\n\r\npart0 part1 part2 ")
            assert b"transfer-encoding: chunked" in await door.say(LAST.replace(b"/last", b"/stream"))

    run(test())


def test_head_has_no_body(run: Run) -> None:
    """But the length that GET would have."""

    async def test() -> None:
        async with served() as door:
            answer = await door.say(b"HEAD /a HTTP/1.1\r\nhost: a\r\n\r\n" + LAST.replace(b"GET", b"HEAD"))
            first, second, rest = answer.split(b"\r\n\r\n")
            assert b"content-length: 10" in first
            assert b"content-length: 13" in second
            assert rest == b""

    run(test())


def test_100_continue_is_said_to_who_waits_for_it(run: Run) -> None:
    """Once, before the body; not to who is refused without being read."""

    async def test() -> None:
        async with served() as door:
            for path in ("/a", "/unread"):
                reader, writer = await door.connect()
                head = post("expect: 100-continue", "content-length: 5").replace(b"/a", path.encode())
                writer.write(head)
                first = await reader.readuntil(b"\r\n\r\n")
                assert first.startswith(b"HTTP/1.1 100 " if path == "/a" else b"HTTP/1.1 200 ")
                if path == "/a":
                    writer.write(b"hello" + LAST)
                    assert bodies(await reader.read()) == [b"POST /a 5", b"GET /last 0"]
                writer.close()

    run(test())


def test_a_refusal_at_the_head_costs_no_task_and_leaves_the_connection_usable(run: Run) -> None:
    """Its body is discarded; where that would be too much, the connection closes behind the answer."""

    async def test() -> None:
        refusal = ProxyError("full", status=503, code="overloaded", headers={"retry-after": "1"})
        async with served(shed=lambda method, path, coming: refusal if path == "/a" else None) as door:
            small = post("content-length: 200000", body=b"x" * 200_000)
            answer = await door.say(small * 2 + LAST)
            assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"503", b"503", b"200"]
            assert answer.count(b"retry-after: 1\r\n") == 2
            for framing in (
                ("transfer-encoding: chunked",),
                ("content-length: 20000000",),
                ("content-length: 2", "expect: 100-continue"),  # who is refused need not send the body
            ):
                answer = await door.say(post(*framing))
                assert answer.startswith(b"HTTP/1.1 503 ")
                assert b"connection: close\r\n" in answer
            half = post("content-length: 4", body=b"ab")
            answer = await door.say(half, b"cd" + LAST)
            assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"503", b"200"]
            ids = re.findall(rb"x-request-id: (\w+)", await door.say(small * 2 + LAST))
            assert len(set(ids)) == 2
            assert {path for _, path, _ in door.app.requests} == {"/last"}
            assert not door.app.running

    run(test())


@pytest.mark.slow
def test_clients_that_do_not_wait_are_refused_so_many_times_a_second(run: Run) -> None:
    """Their next request waits in its socket; who was not refused lately is told at once."""

    async def test() -> None:
        refusal = ProxyError("full", status=503, code="overloaded", headers={"retry-after": "1"})
        async with served(shed=lambda method, path, coming: refusal if path == "/a" else None) as door:
            refused = 0

            async def hammer() -> None:
                nonlocal refused
                reader, writer = await door.connect()
                try:
                    while True:
                        writer.write(post("content-length: 2", body=b"{}"))
                        head = await reader.readuntil(b"\r\n\r\n")
                        await reader.readexactly(int(re.findall(rb"content-length: (\d+)", head)[0]))
                        refused += 1
                finally:
                    writer.transport.abort()

            hammering = [asyncio.create_task(hammer()) for _ in range(200)]
            begun = time.monotonic()
            await asyncio.sleep(1.5)
            per_second = refused / (time.monotonic() - begun)
            assert per_second < 1.5 * REFUSALS_PER_SECOND
            begun = own_time()
            assert (await door.say(post("content-length: 2", "connection: close", body=b"{}")))[9:12] == b"503"
            assert bodies(await door.say(LAST)) == [b"GET /last 0"]
            assert own_time() - begun < 1
            for task in hammering:
                task.cancel()
            await asyncio.gather(*hammering, return_exceptions=True)

    run(test())


def test_an_answer_with_a_line_end_in_a_header_is_not_sent(run: Run) -> None:
    """The application has a bug; the client gets an error, and no header of its making."""

    async def test() -> None:
        async with served() as door:

            async def bad(scope: object, receive: object, send: object) -> None:
                headers = [(b"x", b"a\r\nset-cookie: b")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})  # type: ignore[operator]

            door.app.answer = bad  # type: ignore[method-assign]
            answer = await door.say(LAST)
            assert answer.startswith(b"HTTP/1.1 500 ")
            assert b"set-cookie" not in answer

    run(test())


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What is handed to the transports, write by write."""
    found: list[bytes] = []
    write = HTTP1Protocol.write

    def noted(self: HTTP1Protocol, data: bytes | memoryview) -> None:
        found.append(bytes(data))
        write(self, data)

    monkeypatch.setattr(HTTP1Protocol, "write", noted)
    return found


def test_what_is_sent_in_one_turn_leaves_in_one_write(run: Run, written: list[bytes]) -> None:
    """The head with the first bytes of the body, and the end with the last."""

    async def test() -> None:
        async with served() as door:
            answer = await door.say(LAST.replace(b"/last", b"/stream"))
            assert answer.endswith(b"6\r\npart0 \r\n6\r\npart1 \r\n6\r\npart2 \r\n0\r\n\r\n")
            assert written == [answer]
            written.clear()
            assert (await door.say(LAST))[-12:] == b"GET /last 0\n"
            assert len(written) == 1

    run(test())


def test_a_head_waits_for_nothing_that_comes_later(run: Run) -> None:
    """Nor do the first bytes of a body."""

    async def test() -> None:
        async with served() as door:
            reader, writer = await door.connect()
            writer.write(LAST.replace(b"/last", b"/events"))
            async with asyncio.timeout(5):
                assert b"chunked" in await reader.readuntil(b"\r\n\r\n")
                await reader.readuntil(b"part2 \r\n")
            writer.transport.abort()

            async def late(scope: Any, receive: Any, send: Any) -> None:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await door.app.go_on.wait()
                await send({"type": "http.response.body", "body": b"late"})

            door.app.answer = late  # type: ignore[method-assign]
            reader, writer = await door.connect()
            writer.write(LAST)
            async with asyncio.timeout(5):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
                door.app.go_on.set()
                assert await reader.read() == b"4\r\nlate\r\n0\r\n\r\n"
            writer.close()

    run(test())


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_pushed_pieces_stop_where_the_client_does_not_read(run: Run, version: bytes) -> None:
    """The next one has to be sent, which waits; then all arrive in their order."""

    async def test() -> None:
        async with served() as door:
            pushed: list[bool] = []

            async def pushing(scope: Any, receive: Any, send: Any) -> None:
                peer = peer_of(scope)
                assert not peer.push(b"before the head")
                await send({"type": "http.response.start", "status": 200, "headers": []})
                for number in range(4000):
                    piece = b"%05d" % number * 1000
                    pushed.append(peer.push(piece))
                    if not pushed[-1]:
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                    if number % 10 == 0:
                        await asyncio.sleep(0)
                await send({"type": "http.response.body", "body": b"end"})
                assert not peer.push(b"after the end")

            door.app.answer = pushing  # type: ignore[method-assign]
            reader, writer = await door.connect()
            writer.write(LAST.replace(b"HTTP/1.1", b"HTTP/" + version))
            await eventually(lambda: True in pushed)
            before = 0
            while before != len(pushed):  # until it waits for the client
                before = len(pushed)
                await asyncio.sleep(0.05)
            assert before < 4000
            assert not pushed[-1]
            async with asyncio.timeout(30):
                answer = await reader.read()
            body = answer.partition(b"\r\n\r\n")[2]
            if version == b"1.1":
                assert body.endswith(b"\r\n0\r\n\r\n")
                body = b"".join(re.findall(rb"[0-9a-f]+\r\n([0-9end]+)\r\n", body))
            assert body == b"".join(b"%05d" % number * 1000 for number in range(4000)) + b"end"
            writer.close()

    run(test())
