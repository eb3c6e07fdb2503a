"""What becomes of connections: kept, replaced, given up. Both transports, on real sockets."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from proxy.upstream.transports.aiohttp import AiohttpTransport
from proxy.upstream.transports.base import (
    LINGER_S,
    MAX_LINGERING,
    MAX_PIECE_BYTES,
    STALE_S,
    Answer,
    ConnectFailed,
    ConnectionLost,
    ConnectTimedOut,
    HeaderBlock,
    Outgoing,
    Transport,
)
from proxy.upstream.transports.httpx import HttpxTransport
from tests.slowness import own_time, takes, waited_s
from tests.upstream import FakeUpstream
from tests.upstream.transports.peer import STREAM_HEAD, WHOLE, Turn, chunk, serving
from tests.upstream.transports.test_transports import GONE_S, ask, read_all

KINDS = pytest.mark.parametrize("kind", [AiohttpTransport, HttpxTransport], ids=["aiohttp", "httpx"])
DONE = b"data: [DONE]\n\n"
FIXED = HeaderBlock({"accept-encoding": "identity"})


@pytest.fixture(params=[AiohttpTransport, HttpxTransport], ids=["aiohttp", "httpx"])
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    made: Transport = request.param()
    yield made
    assert made.active == 0
    await made.close()


async def post(transport: Transport, url: str, on_sent: Callable[[], None] = lambda: None) -> Answer:
    return await transport.send(Outgoing("POST", url + "/x", FIXED, {}, b"{}"), 20.0, on_sent)


async def until_done(answer: Answer) -> None:
    """Reads as a decoder does: up to the end marker, not to the end of the body."""
    body = b""
    while not body.endswith(DONE):
        body += await answer.read()
    answer.close(complete=True)


async def settle() -> None:
    """Both ends live on this loop: the transport has its turns to read what was sent."""
    for _ in range(5):
        await asyncio.sleep(0)


# --- kept -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["ok", "late_end(s=0.02)", "fast"])
@pytest.mark.sampled(3)
async def test_a_connection_is_kept_when_its_end_comes_behind_the_end_marker(transport: Transport, mode: str) -> None:
    """Twenty streams, one connection: servers end the body in a packet of its own."""
    async with FakeUpstream() as upstream:
        for _ in range(20):
            await until_done(await ask(transport, upstream.url, mode))
            assert transport.active == 0
            await upstream.until(lambda: upstream.open == 0)
            await settle()
        most = 3 if "late" in mode else 1  # a busy machine may be later than what is waited for
        assert len({seen.connection for seen in upstream.ledger}) <= most


async def test_a_connection_whose_end_never_comes_is_closed(transport: Transport) -> None:
    """After a short while, in the background; nothing waits for it."""
    took = []
    async with FakeUpstream() as upstream:
        for _ in range(5):
            begun = own_time()
            await until_done(await ask(transport, upstream.url, "no_last_chunk"))
            took.append(own_time() - begun)
        assert len({seen.connection for seen in upstream.ledger}) == 5
        await upstream.until(lambda: not upstream.connections)
    assert min(took) < LINGER_S  # the others may have met a busy machine


async def test_without_a_complete_answer_nothing_is_waited_for(transport: Transport) -> None:
    """A stream that was cancelled or cut off is closed at once, the end may be near or not."""
    took = []
    async with FakeUpstream() as upstream:
        for number in range(5):
            answer = await ask(transport, upstream.url, "no_last_chunk")
            while DONE not in await answer.read():
                continue
            closed, waited = time.monotonic(), waited_s()
            answer.close()
            await upstream.until(lambda: upstream.open == 0)
            seen = upstream.ledger[number].t_peer_close
            assert seen is not None
            took.append(seen - closed - (waited_s() - waited))
    assert min(took) < LINGER_S / 2  # the others may have met a busy machine


async def test_what_follows_the_end_marker_is_no_part_of_the_next_answer(transport: Transport) -> None:
    """Comments, events and line ends behind `[DONE]` are read away with it."""
    answered = 0

    async def handle(turn: Turn) -> None:
        nonlocal answered
        answered += 1
        await turn.write(STREAM_HEAD + chunk(b"data: %d\n\n" % answered) + chunk(DONE))
        await asyncio.sleep(0.002)
        await turn.write(chunk(b": bye\n\n" * 1000) + b"0\r\n\r\n")

    async with serving(handle) as peer:
        for number in range(1, 6):
            answer = await post(transport, peer.url)
            body = b""
            while DONE not in body:
                body += await answer.read()
            assert body.startswith(b"data: %d\n\n" % number)
            answer.close(complete=True)
            await asyncio.sleep(0.01)
        assert peer.connections < 5


@KINDS
@pytest.mark.slow
async def test_connections_that_wait_for_their_end_are_limited_and_end_with_the_transport(
    kind: Callable[..., Transport],
) -> None:
    """A vendor that never ends its bodies costs neither tasks nor descriptors without limit."""

    async def handle(turn: Turn) -> None:
        await turn.write(STREAM_HEAD + chunk(DONE))
        await turn.until_gone()

    async with serving(handle) as peer:
        transport = kind()
        answers = await asyncio.gather(*(post(transport, peer.url) for _ in range(MAX_LINGERING + 20)))
        for answer in answers:
            assert await answer.read() == DONE
        for answer in answers:
            answer.close(complete=True)
        assert transport.active == 0
        begun = time.monotonic()
        await transport.close()
        took_s = time.monotonic() - begun
        await peer.until(lambda: peer.open == 0)
        print(f"{kind.__name__}: closed with {MAX_LINGERING} waiting in {took_s * 1000:.0f} ms")


# --- replaced ---------------------------------------------------------------------------------------------------------


def stale(end: str) -> Callable[[Turn], Awaitable[None]]:
    """Answers the first request of each connection; ends the connection at the second one, in its way."""

    async def handle(turn: Turn) -> None:
        if turn.number == 1:
            await turn.write(WHOLE)
        elif end == "fin":
            turn.close()
        elif end == "rst":
            turn.reset()
        elif end == "late":
            await asyncio.sleep(STALE_S + 0.1)
            turn.close()
        elif end == "half a head":
            await turn.write(b"HTTP/1.1 200 OK\r\ncont")
            turn.close()
        elif end == "half a head, reset":
            await turn.write(b"HTTP/1.1 200 OK\r\ncont")
            await asyncio.sleep(0.02)
            turn.reset()
        elif end == "interim":
            await turn.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            turn.close()

    return handle


@pytest.mark.parametrize("end", ["fin", "rst"])
async def test_a_kept_connection_that_ends_under_a_request_is_replaced(transport: Transport, end: str) -> None:
    """The server closed it while the request was on its way: nothing was read, the request is sent once more."""
    async with serving(stale(end)) as peer:
        sent: list[int] = []
        for _ in range(5):
            answer = await post(transport, peer.url, lambda: sent.append(1))
            assert await read_all(answer) == b'{"a":1}'
            await settle()
        assert len(sent) in (len(peer.turns), len(peer.turns) - 1)
        assert [turn.number for turn in peer.turns][:3] == [1, 2, 1]
        again = [turn for turn in peer.turns if turn.number == 2]
        assert again
        assert len(peer.turns) == 5 + len(again)


@pytest.mark.parametrize("end", ["late", "half a head", "half a head, reset", "interim"])
@pytest.mark.slow
async def test_a_request_that_may_be_worked_on_is_not_sent_again(transport: Transport, end: str) -> None:
    """Not after a byte of an answer, and not after a time in which a model may have worked."""
    async with serving(stale(end)) as peer:
        await read_all(await post(transport, peer.url))
        await settle()
        with pytest.raises(ConnectionLost):
            await post(transport, peer.url)
        assert [turn.number for turn in peer.turns] == [1, 2]


@pytest.mark.parametrize("end", ["fin", "rst"])
async def test_a_new_connection_that_ends_under_a_request_is_lost(transport: Transport, end: str) -> None:
    """It was made for this request, so the server had it: it is never sent again."""

    async def handle(turn: Turn) -> None:
        if end == "fin":
            turn.close()
        else:
            turn.reset()

    async with serving(handle) as peer:
        with pytest.raises(ConnectionLost):
            await post(transport, peer.url)
        assert len(peer.turns) == 1


async def test_the_replacement_is_a_new_connection_and_the_last_try(transport: Transport) -> None:
    """Other kept connections may be as stale; a provider that closes all of them gets the request twice at most."""
    down = False

    async def handle(turn: Turn) -> None:
        if down:
            turn.close()
        else:
            await turn.write(WHOLE)

    async with serving(handle) as peer:
        answers = await asyncio.gather(*(post(transport, peer.url) for _ in range(4)))
        for answer in answers:
            await read_all(answer)
        await settle()
        down = True
        with pytest.raises(ConnectionLost):
            await post(transport, peer.url)
        assert [turn.number for turn in peer.turns[4:]] == [2, 1]


async def test_an_answer_that_nobody_asked_for_is_not_the_next_ones(transport: Transport) -> None:
    """A server's `408` on an idle connection, or worse, another caller's answer, is thrown away with its connection."""

    told = asyncio.Event()

    async def handle(turn: Turn) -> None:
        await turn.write(WHOLE)
        await asyncio.sleep(0.005)
        await turn.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen")
        told.set()

    async with serving(handle) as peer:
        for _ in range(3):
            assert await read_all(await post(transport, peer.url)) == b'{"a":1}'
            await told.wait()
            told.clear()
            await settle()


# --- connecting -------------------------------------------------------------------------------------------------------


def never() -> None:
    raise AssertionError("nothing may be sent")


@KINDS
async def test_the_look_up_of_a_name_is_a_part_of_connecting(
    kind: Callable[..., Transport],
) -> None:
    """A resolver that hangs is a connection that was not made: in its time, and nothing was sent."""

    async def resolve(host: str, port: int) -> list[str]:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    transport = kind(resolve=resolve)
    with takes(0.15, 1.85), pytest.raises(ConnectTimedOut):
        await transport.send(Outgoing("POST", "http://models.example/v1", FIXED), 0.2, never)
    assert transport.active == 0
    await transport.close()


@KINDS
async def test_slow_look_up_and_slow_answer_are_different_things(kind: Callable[..., Transport]) -> None:
    """A slow name is waited for within `connect`; after that `connect` is over."""

    async def resolve(host: str, port: int) -> list[str]:
        assert host == "models.example"
        await asyncio.sleep(0.1)
        return ["127.0.0.1"]

    async def handle(turn: Turn) -> None:
        await asyncio.sleep(0.3)
        await turn.write(WHOLE)

    async with serving(handle) as peer:
        transport = kind(resolve=resolve)
        url = f"http://models.example:{peer.port}/v1"
        answer = await transport.send(Outgoing("POST", url, FIXED, {}, b"{}"), 0.25, lambda: None)
        assert await read_all(answer) == b'{"a":1}'
        await transport.close()


@KINDS
@pytest.mark.parametrize("url", ["http://models.example/v1", "https://models.example/v1", "ftp://x/", "http:///v1", ""])
async def test_a_name_that_is_not_there_is_connect_failed(kind: Callable[..., Transport], url: str) -> None:
    """As is an address that is none."""

    async def resolve(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    transport = kind(resolve=resolve)
    with pytest.raises(ConnectFailed):
        await transport.send(Outgoing("POST", url, FIXED), 1.0, never)
    await transport.close()


@KINDS
@pytest.mark.slow
async def test_a_server_that_accepts_and_says_nothing_of_tls_is_connect_timed_out(
    kind: Callable[..., Transport],
) -> None:
    """TLS is a part of connecting, within the same time and not one of its own."""

    async def resolve(host: str, port: int) -> list[str]:
        await asyncio.sleep(1.0)
        return ["127.0.0.1"]

    async with serving(Turn.until_gone) as peer:
        transport = kind(resolve=resolve)
        with takes(1.0, 1.0), pytest.raises(ConnectTimedOut):  # with a time of its own: 2.2
            await transport.send(Outgoing("POST", f"https://models.example:{peer.port}/v1", FIXED), 1.2, never)
        await transport.close()
        await peer.until(lambda: peer.open == 0)
        assert peer.connections == 1


@KINDS
async def test_a_look_up_given_up_by_one_still_serves_the_others(kind: Callable[..., Transport]) -> None:
    """Callers of the same name may share a look-up, but not its cancelling."""
    gate = asyncio.Event()

    async def resolve(host: str, port: int) -> list[str]:
        await gate.wait()
        return ["127.0.0.1"]

    async def handle(turn: Turn) -> None:
        await turn.write(WHOLE)

    async with serving(handle) as peer:
        transport = kind(resolve=resolve)
        request = Outgoing("POST", f"http://models.example:{peer.port}/v1", FIXED, {}, b"{}")
        first, second = (asyncio.create_task(transport.send(request, 2.0, lambda: None)) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.wait([first])
        gate.set()
        assert await read_all(await second) == b'{"a":1}'
        await transport.close()


@KINDS
@pytest.mark.parametrize("headers", [{"x": "a\r\nb: c"}, {"x\n": "a"}, {"x": "a\0"}, {"x": "a\rb"}])
async def test_a_header_with_a_line_end_is_never_sent(kind: Callable[..., Transport], headers: dict[str, str]) -> None:
    """Whatever brought it there, it must not add a header of its own or a second request."""
    transport = kind()
    with pytest.raises(ConnectFailed):
        await transport.send(Outgoing("POST", "http://127.0.0.1:9/v1", FIXED, headers), 1.0, never)
    with pytest.raises(ValueError):
        HeaderBlock(headers)
    await transport.close()


# --- broken -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["fin", "rst"])
async def test_what_arrived_is_read_before_the_connection_counts_as_broken(transport: Transport, end: str) -> None:
    """A whole answer without HTTP's end of it, read late by a busy reader: every byte is handed out, then the loss."""
    body = b"".join(chunk(b"data: %d\n\n" % n) for n in range(5000)) + chunk(DONE)
    gone = asyncio.Event()

    async def handle(turn: Turn) -> None:
        await turn.write(STREAM_HEAD + body)
        await asyncio.sleep(0.05)
        if end == "fin":
            turn.close()
        else:
            turn.reset()
        gone.set()

    async with serving(handle) as peer:
        answer = await post(transport, peer.url)
        await gone.wait()
        await asyncio.sleep(0.05)
        got = b""
        with pytest.raises(ConnectionLost):
            while piece := await answer.read():
                got += piece
        answer.close(complete=True)
        assert got.endswith(b"data: 4999\n\n" + DONE)
        assert got.startswith(b"data: 0\n\n")


async def test_a_broken_answer_is_lost_however_often_it_is_read(transport: Transport) -> None:
    """It never turns into an end."""
    async with FakeUpstream() as upstream:
        answer = await ask(transport, upstream.url, "cut_fin(k=3)")
        for _ in range(3):
            with pytest.raises(ConnectionLost):
                while await answer.read():
                    continue
        answer.close()


# --- floods -----------------------------------------------------------------------------------------------------------


async def flood(turn: Turn) -> None:
    """As fast as the socket takes it, without end."""
    event = chunk(b'data: {"choices": [{"index": 0, "delta": {"content": "tok"}}]}\n\n' * 400)
    turn.writer.write(STREAM_HEAD)
    while True:
        await turn.write(event)


async def test_a_flood_comes_in_pieces_and_ends_at_once_when_it_is_given_up(transport: Transport) -> None:
    """No read hands out more than MAX_PIECE_BYTES, and a cancel is seen by the provider in its time."""
    async with serving(flood) as peer:
        biggest = 0

        async def drink() -> None:
            nonlocal biggest
            answer = await post(transport, peer.url)
            try:
                while piece := await answer.read():
                    biggest = max(biggest, len(piece))
            finally:
                answer.close()

        tasks = [asyncio.create_task(drink()) for _ in range(5)]
        await asyncio.sleep(0.3)
        begun = own_time()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await peer.until(lambda: peer.open == 0)
        assert own_time() - begun < GONE_S
        assert 0 < biggest <= MAX_PIECE_BYTES


async def test_a_flood_that_nobody_reads_stands_still(transport: Transport) -> None:
    """Buffers of the process and the kernel hold some hundred kilobytes; the rest stays with the provider."""
    taken = 0

    async def handle(turn: Turn) -> None:
        nonlocal taken
        turn.writer.write(STREAM_HEAD)
        turn.writer.transport.set_write_buffer_limits(high=0)
        while True:
            await turn.write(chunk(b"x" * 10_000))
            taken += 10_000

    async with serving(handle, send_buffer=32 * 1024) as peer:
        answer = await post(transport, peer.url)
        await answer.read()
        before = -1
        while before != taken:  # until it stands still
            before = taken
            await asyncio.sleep(0.1)
        answer.close()
        print(f"{type(transport).__name__}: {taken} bytes are held for a client that does not read")
        assert taken < 1_000_000
        await peer.until(lambda: peer.open == 0)


async def test_a_request_that_is_still_leaving_is_cut_off_when_it_is_cancelled(transport: Transport) -> None:
    """A body that the provider does not read neither goes on being sent nor holds its connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        begun = asyncio.Event()
        body = b"x" * 50_000_000
        sending = transport.send(Outgoing("POST", url, FIXED, {}, body), 2.0, begun.set)
        task = asyncio.create_task(sending)
        await begun.wait()
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task])
        await settle()
        accepted, _ = listener.accept()
        with accepted:
            got = await asyncio.to_thread(drain, accepted)
    assert transport.active == 0
    assert got < len(body) / 2


def drain(connection: socket.socket) -> int:
    """Bytes up to the end, however the connection ends."""
    connection.settimeout(2.0)
    got = 0
    try:
        while data := connection.recv(1 << 20):
            got += len(data)
    except ConnectionResetError:
        pass
    return got
