"""One contract, two transports: what `upstream` may rely on, on real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import time
from collections.abc import AsyncIterator

import pytest

from proxy.upstream.transports.aiohttp import AiohttpTransport
from proxy.upstream.transports.base import (
    SLICE_BYTES,
    Answer,
    ConnectFailed,
    ConnectionLost,
    ConnectTimedOut,
    HeaderBlock,
    Outgoing,
    Transport,
)
from proxy.upstream.transports.httpx import HttpxTransport
from tests.slowness import own_time, slowness, takes, waited_s
from tests.upstream import FakeUpstream, refusing
from tests.upstream.transports.silence import silent

FIXED = HeaderBlock({"Accept-Encoding": "identity"})
JSON = {"content-type": "application/json"}
GONE_S = 0.25  # within this a provider must see that nobody waits any more


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as fake:
        yield fake


@pytest.fixture(params=[AiohttpTransport, HttpxTransport], ids=["aiohttp", "httpx"])
async def transport(request: pytest.FixtureRequest, upstream: FakeUpstream) -> AsyncIterator[Transport]:
    """Whatever a test did with it: nothing is in flight at its end, and closing it closes every connection."""
    made: Transport = request.param()
    yield made
    assert made.active == 0
    await made.close()
    await upstream.until(lambda: not upstream.connections)


async def ask(
    transport: Transport, base_url: str, mode: str, *, stream: bool = True, connect_timeout_s: float = 2.0
) -> Answer:
    body = {"model": mode, "stream": stream, "messages": [{"role": "user", "content": "one two three"}]}
    request = Outgoing("POST", f"{base_url}/chat/completions", FIXED, JSON, json.dumps(body).encode())
    return await transport.send(request, connect_timeout_s, lambda: None)


async def read_all(answer: Answer) -> bytes:
    """The body to HTTP's end of it; the answer is closed also when that fails."""
    pieces = []
    try:
        while piece := await answer.read():
            pieces.append(piece)
    finally:
        answer.close()
    return b"".join(pieces)


async def fetch(transport: Transport, base_url: str, mode: str, *, stream: bool = True) -> bytes:
    return await read_all(await ask(transport, base_url, mode, stream=stream))


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


# --- answers ----------------------------------------------------------------------------------------------------------


async def test_an_answer_comes_in_pieces_as_they_are_sent(transport: Transport, upstream: FakeUpstream) -> None:
    """The first piece is here long before the last is sent."""
    answer = await ask(transport, upstream.url, "ok(n_tokens=3,pace=0.05)")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    first = b""
    while b"tok0" not in first:
        first += await answer.read()
    assert not upstream.ledger[0].complete
    assert b"tok1" not in first
    assert transport.active == 1
    rest = await read_all(answer)
    assert (first + rest).endswith(b"data: [DONE]\n\n")


async def test_the_end_is_an_empty_piece_however_often_it_is_read(transport: Transport, upstream: FakeUpstream) -> None:
    """Reading on after the end is harmless."""
    answer = await ask(transport, upstream.url, "ok", stream=False)
    body = b""
    while piece := await answer.read():
        body += piece
    assert json.loads(body)["usage"]["completion_tokens"] == 10
    assert await answer.read() == b""
    answer.close()
    answer.close()


@pytest.mark.parametrize("size", [60_000, 100_000, 5 * SLICE_BYTES + 1])
async def test_a_body_of_any_size_arrives_as_it_is(transport: Transport, size: int) -> None:
    """A large one leaves in slices, under the length that was announced."""
    body = os.urandom(size)
    seen: list[tuple[bytes, bytes]] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        seen.append((head, await reader.readexactly(size)))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        answer = await transport.send(Outgoing("POST", url, FIXED, JSON, body), 2.0, lambda: None)
        assert await read_all(answer) == b"ok"
    ((head, arrived),) = seen
    assert arrived == body
    assert head.count(b"content-length: %d\r\n" % size) == 1
    assert b"transfer-encoding" not in head


@pytest.mark.parametrize("mode", ["chunk_split", "100_continue(hints=1)", "huge_headers(kb=64)", "bom"])
async def test_odd_but_valid_http_is_read(transport: Transport, upstream: FakeUpstream, mode: str) -> None:
    """Single bytes, interim answers, and 64 KB of one header."""
    body = await fetch(transport, upstream.url, mode)
    assert body.endswith(b"data: [DONE]\n\n")


async def test_of_repeated_headers_the_first_counts(transport: Transport, upstream: FakeUpstream) -> None:
    """Names are lower case; a second value never joins the first."""
    answer = await ask(transport, upstream.url, "dup_headers")
    await read_all(answer)
    assert answer.headers["x-dup"] == "1"
    assert answer.headers["set-cookie"] == "a=1"


@pytest.mark.parametrize("status", [400, 429, 503])
async def test_an_error_status_is_an_answer_like_any_other(
    transport: Transport, upstream: FakeUpstream, status: int
) -> None:
    """What a status means is for others to say."""
    answer = await ask(transport, upstream.url, f"e{status}(retry_after=3)")
    assert (answer.status, answer.headers["retry-after"]) == (status, "3")
    assert "error" in json.loads(await read_all(answer))


# --- what it does not do ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(transport: Transport, upstream: FakeUpstream, status: int) -> None:
    """The request and its key go to one origin alone."""
    answer = await ask(transport, upstream.url, f"redirect(status={status})")
    await read_all(answer)
    assert answer.status == status
    assert [seen.path for seen in upstream.ledger] == ["/v1/chat/completions"]


async def test_cookies_are_not_kept(transport: Transport, upstream: FakeUpstream) -> None:
    """What one caller's answer sets must not travel with the next caller's request."""
    await fetch(transport, upstream.url, "dup_headers")
    await fetch(transport, upstream.url, "ok")
    assert "cookie" not in upstream.ledger[1].headers


@pytest.mark.parametrize("made", [AiohttpTransport, HttpxTransport])
async def test_proxies_of_the_environment_are_ignored(
    made: type[Transport], upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but the configuration decides where a request goes."""
    with refusing() as nowhere:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, nowhere)
        transport = made()
        assert (await fetch(transport, upstream.url, "ok")).endswith(b"data: [DONE]\n\n")
        await transport.close()


async def test_nothing_is_decompressed(transport: Transport, upstream: FakeUpstream) -> None:
    """A few kilobytes cannot become gigabytes here."""
    answer = await ask(transport, upstream.url, "gzip_bomb(mb=0)")
    body = await read_all(answer)
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(body).endswith(b"data: [DONE]\n\n")


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["cut_rst(k=1)", "cut_fin(k=1)", "cut_rst(k=20)", "truncated_json(k=3)"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_body_that_breaks_off_is_connection_lost(
    transport: Transport, upstream: FakeUpstream, mode: str, stream: bool
) -> None:
    """What arrived before is given out, then the loss is told; it never looks like an end."""
    answer = await ask(transport, upstream.url, mode, stream=stream)
    pieces = []
    with pytest.raises(ConnectionLost):
        while piece := await answer.read():
            pieces.append(piece)
    answer.close()
    if stream and "rst" not in mode:  # a reset may overtake what was sent before it
        assert b"tok0" in b"".join(pieces)


async def test_a_clean_cut_is_an_end_for_the_transport(transport: Transport, upstream: FakeUpstream) -> None:
    """HTTP says the body is whole; that the answer is not is for the stream's decoder to see."""
    body = await fetch(transport, upstream.url, "cut_clean(k=1)")
    assert b"tok0" in body
    assert b"[DONE]" not in body


@pytest.mark.parametrize("mode", ["close_before_request", "half_headers", "huge_headers(kb=1024)"])
async def test_no_http_answer_is_connection_lost(transport: Transport, upstream: FakeUpstream, mode: str) -> None:
    """A connection that ends before its headers do, or whose headers have no end."""
    with pytest.raises(ConnectionLost):
        await ask(transport, upstream.url, mode)
    assert len(upstream.ledger) == 1


async def test_a_refused_connection_is_connect_failed(transport: Transport) -> None:
    """At once, and not as a time-out."""
    with refusing() as url, pytest.raises(ConnectFailed) as failure:
        await ask(transport, url, "ok")
    assert not isinstance(failure.value, ConnectTimedOut)


async def test_a_host_that_does_not_answer_is_connect_timed_out(transport: Transport) -> None:
    """The time-out is that of connecting alone."""
    with silent() as url, takes(0.15, 0.85), pytest.raises(ConnectTimedOut):
        await ask(transport, url, "ok", connect_timeout_s=0.2)


async def test_a_slow_answer_is_no_connect_time_out(transport: Transport, upstream: FakeUpstream) -> None:
    """Once connected, the transport waits for as long as its caller does."""
    assert await fetch(transport, upstream.url, "ok(delay=0.3)") != b""
    answer = await ask(transport, upstream.url, "ok(delay=0.3)", stream=False, connect_timeout_s=0.1)
    assert answer.status == 200
    await read_all(answer)


# --- connections ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
async def test_a_connection_is_used_again_after_a_whole_read(
    transport: Transport, upstream: FakeUpstream, stream: bool
) -> None:
    """One connection for one request after the other."""
    for _ in range(3):
        await fetch(transport, upstream.url, "ok", stream=stream)
    assert [seen.connection for seen in upstream.ledger] == [1, 1, 1]


async def test_a_connection_closed_before_the_end_is_not_used_again(
    transport: Transport, upstream: FakeUpstream
) -> None:
    """What is left of the old answer can never be taken for the next one."""
    answer = await ask(transport, upstream.url, "ok(n_tokens=500,pace=0.01)")
    await answer.read()
    answer.close()
    assert (await fetch(transport, upstream.url, "ok")).endswith(b"data: [DONE]\n\n")
    assert upstream.ledger[1].connection != upstream.ledger[0].connection


async def test_a_connection_that_the_peer_closed_while_idle_is_not_used(
    transport: Transport, upstream: FakeUpstream
) -> None:
    """The pool sees the peer's close and connects anew."""
    await fetch(transport, upstream.url, "ok")
    for connection in list(upstream.connections):
        connection.close()
    await upstream.until(lambda: not upstream.connections)
    for _ in range(5):  # both ends live on this loop: the pool's end has its turn to read the FIN
        await asyncio.sleep(0)
    assert (await fetch(transport, upstream.url, "ok")).endswith(b"data: [DONE]\n\n")


# --- cancelling -------------------------------------------------------------------------------------------------------


async def cancel(task: asyncio.Task[bytes], *, twice: bool = False) -> float:
    """Cancels and waits; the moment of the cancel on the monotonic clock."""
    now = time.monotonic()
    task.cancel()
    if twice:
        await asyncio.sleep(0)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return now


@pytest.mark.sampled(4)
@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize(
    "mode",
    [
        "blackhole",
        "slow_headers(s=0.01)",
        "stall_after(k=-1)",
        "stall_after(k=5)",
        "ok(n_tokens=5000,pace=0.002)",
        "slow_body(s=0.01)",
    ],
)
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_cancelling_closes_the_connection_in_every_phase(
    transport: Transport, upstream: FakeUpstream, mode: str, stream: bool, twice: bool
) -> None:
    """Waiting for headers, in the middle of them, waiting for a piece, between pieces: the provider sees it at once."""
    if not stream and "pace" in mode:
        mode += "-delay_whole(s=9)"
    task = asyncio.create_task(fetch(transport, upstream.url, mode, stream=stream))
    await upstream.until(lambda: len(upstream.ledger) == 1 and upstream.open == 1)
    await asyncio.sleep(0.05)
    waited = waited_s()
    cancelled = await cancel(task, twice=twice)
    await upstream.until(lambda: upstream.open == 0)
    seen = upstream.ledger[0]
    assert seen.t_peer_close is not None
    assert seen.t_peer_close - cancelled - (waited_s() - waited) < GONE_S
    assert transport.active == 0


async def test_cancelling_while_connecting_leaves_no_socket(transport: Transport) -> None:
    """The half-made connection is given up at once."""
    with silent() as url:
        before = open_files()
        task = asyncio.create_task(fetch(transport, url, "ok"))
        await asyncio.sleep(0.05)
        assert open_files() > before
        begun = own_time()
        await cancel(task)
        await asyncio.sleep(0)
        assert own_time() - begun < GONE_S
        assert open_files() == before


async def test_a_read_that_was_cancelled_can_be_taken_up_again(transport: Transport, upstream: FakeUpstream) -> None:
    """A client that left after the finish cancels a read; what follows, the usage, is still read."""
    answer = await ask(transport, upstream.url, "ok(n_tokens=2,pace=0.1)")
    body = await answer.read()
    while b"tok0" not in body:
        body += await answer.read()
    reading = asyncio.create_task(answer.read())
    await asyncio.sleep(0.02)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    body += await read_all(answer)
    assert b"tok1" in body
    assert body.endswith(b"data: [DONE]\n\n")


@pytest.mark.slow
async def test_two_thousand_cancels_leave_nothing_behind(transport: Transport, upstream: FakeUpstream) -> None:
    """In every phase, once and twice, at any moment: then a request is as quick as ever, and nothing is in flight."""
    before = open_files()
    modes = ("blackhole", "stall_after(k=1)", "ok(n_tokens=50,pace=0.001)", "ok")

    async def one(number: int) -> None:
        task = asyncio.create_task(fetch(transport, upstream.url, modes[number % 4]))
        for _ in range(number % 7):
            await asyncio.sleep(0)
        if number % 3 == 0:
            await asyncio.sleep(0.001 * (number % 20))
        task.cancel()
        if number % 2:
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait([task])

    for start in range(0, 2000, 10):
        await asyncio.gather(*(one(start + index) for index in range(10)))
    assert transport.active == 0
    await upstream.until(lambda: upstream.open == 0)
    took_s = []
    for _ in range(3):  # one of them may meet a busy machine
        begun = own_time()
        assert (await fetch(transport, upstream.url, "ok(n_tokens=1)")).endswith(b"data: [DONE]\n\n")
        took_s.append(own_time() - begun)
    print(f"after 2000 cancels: {min(took_s) * 1000:.1f} ms, {len(upstream.connections)} idle connections")
    assert min(took_s) < 0.05 * slowness()
    await transport.close()
    await upstream.until(lambda: not upstream.connections)
    for _ in range(5):  # sockets are closed a turn of the loop after their connection is lost
        await asyncio.sleep(0)
    assert open_files() <= before
