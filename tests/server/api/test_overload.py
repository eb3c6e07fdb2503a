"""More than `server.max_in_flight` at once: refused at once, with when to come again; the others are served."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from tests.server.api.raw import chat, get, post, request, send
from tests.serving import Server, serving, spawned, write_files
from tests.slowness import own_time
from tests.upstream import FakeUpstream
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")
PLACES = 3


@pytest_asyncio.fixture(loop_scope="module")
async def small(upstream: FakeUpstream, tmp_path: Path) -> AsyncIterator[Server]:
    """A server that serves three chat requests at once."""
    routing = write_files(tmp_path, upstream.url)
    routing.write_text(f"{routing.read_text()}\nserver: {{max_in_flight: {PLACES}}}\n")
    async with serving(routing) as running:
        yield running


async def full(server: Server) -> None:
    """Waits until all places are taken."""
    await taken(server, PLACES)


async def taken(server: Server, places: int) -> None:
    """Waits until so many are."""

    async def as_many() -> bool:
        return bool((await get(server.port, "/health")).json["in_flight"] == places)

    await until(as_many)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.slow
async def test_one_too_many_is_refused_at_once(small: Server, upstream: FakeUpstream, stream: bool) -> None:
    """503 `overloaded` with Retry-After, before anything is sent on or written down; what is served goes on."""
    mode = "ok(n_tokens=20,pace=0.05)" if stream else "delay_whole(s=1)"
    served = [asyncio.create_task(post(small.port, chat(f"fake/{mode}", stream=stream))) for _ in range(PLACES)]
    await full(small)
    begun = own_time()
    refused = await post(small.port, chat("fake/ok", stream=stream))
    took_s = own_time() - begun
    assert (refused.status, refused.error()["code"]) == (503, "overloaded")
    assert refused.headers("retry-after") == ["1"]
    assert took_s < 0.5
    assert [answer.status for answer in await asyncio.gather(*served)] == [200] * PLACES
    assert len(upstream.ledger) == PLACES
    assert (await post(small.port, chat("fake/ok", stream=stream))).status == 200


async def test_the_rest_of_the_server_answers_while_it_is_full(small: Server) -> None:
    """Health, metrics and lists are not what is limited."""
    served = [asyncio.create_task(post(small.port, chat("fake/delay_whole(s=1)"))) for _ in range(PLACES)]
    await full(small)
    await post(small.port, chat("fake/ok"))
    for path in ("/livez", "/readyz", "/health", "/v1/models", "/v1/usage"):
        assert (await get(small.port, path)).status == 200, path
    metrics = (await get(small.port, "/metrics")).body.decode()
    assert f"\nmmproxy_in_flight_requests {PLACES}.0\n" in metrics
    assert "\nmmproxy_overloaded_total 1.0\n" in metrics
    await asyncio.gather(*served)


async def test_places_come_back_however_a_request_ends(small: Server) -> None:
    """Errors, refused bodies and clients that leave hold no place."""
    for body in (chat("nobody/knows"), chat("fake/e500"), b"{", b'{"model": "fake/ok", "messages": []}'):
        for _ in range(PLACES + 1):
            assert (await post(small.port, body)).status != 503, body
    for _ in range(PLACES + 1):
        _, writer = await asyncio.open_connection("127.0.0.1", small.port)
        writer.write(request(chat("fake/blackhole")))
        await writer.drain()
        await taken(small, 1)
        writer.transport.abort()
        await taken(small, 0)


@pytest.mark.parametrize("size", [100, 500_000])
async def test_half_a_request_holds_no_place(small: Server, size: int) -> None:
    """Small or large, of any number of clients: a place is taken once the body is here."""
    whole = request(chat("fake/ok", padding="x" * size))
    halves = [await asyncio.open_connection("127.0.0.1", small.port) for _ in range(2 * PLACES)]
    for _, writer in halves:
        writer.write(whole[:-1])
        await writer.drain()

    async def all_is_here() -> bool:
        metrics = (await get(small.port, "/metrics")).body.decode()
        here = next(line for line in metrics.split("\n") if line.startswith("mmproxy_body_bytes "))
        return float(here.split(" ")[1]) >= 2 * PLACES * size

    await until(all_is_here)
    await taken(small, 0)
    assert (await post(small.port, chat("fake/ok"))).status == 200
    for reader, writer in halves:
        writer.write(whole[-1:])
        assert (await reader.read(12)) == b"HTTP/1.1 200"
        writer.transport.abort()


@pytest.mark.slow
async def test_as_many_files_may_be_open_as_calls_need(tmp_path: Path) -> None:
    """A call holds two connections; where the system allows more than a process has, the server takes it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        with spawned(write_files(tmp_path, "http://127.0.0.1:9/v1")) as running:
            allowed, _ = psutil.Process(running.process.pid).rlimit(psutil.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert allowed == min(4 * 1000 + 256, hard)


async def test_a_refused_request_leaves_its_connection_usable(small: Server) -> None:
    """A body that was not read does not become the next request."""
    served = [asyncio.create_task(post(small.port, chat("fake/delay_whole(s=1)"))) for _ in range(PLACES)]
    await full(small)
    refused = request(chat("fake/ok", padding="x" * 200_000), headers={"connection": "keep-alive"})
    both = await send(small.port, refused + request(method="GET", path="/livez"))
    assert both.bytes.startswith(b"HTTP/1.1 503 ")
    assert both.bytes.endswith(b'{"status":"ok"}')
    await asyncio.gather(*served)
