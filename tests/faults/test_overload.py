"""Three times what the server can do (R22): what it can do it goes on doing, the rest is refused at once, and when the
flood is over nothing of it is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import psutil
import pytest
from msgspec import Struct

from bench.upstream import upstream as fast_upstream
from tests.faults.books import assert_books_agree, files
from tests.faults.flooding import at_most, flood, paced
from tests.faults.talking import ask
from tests.server.api.raw import chat, get, request
from tests.serving import Spawned, spawned
from tests.upstream import spawn

PLACES = 16
# Both take 0.4 s upstream, so the places are what the server can do, not the processor of the machine that tests.
MODELS = (("fake/ok(delay=0.4)", False), ("fake/ok(n_tokens=8,pace=0.05)", True))
MEASURE_S, FLOOD_S, CALM_S = 5.0, 20.0, 10.0
TIMES, GOODPUT = 3, 0.8
REFUSAL_S, RECOVERY_S, HEALTH_S = 0.05, 5.0, 0.1
GROWTH_MB = 20
IMPATIENT, IMPATIENT_S = 400, 8.0
REFUSAL_CPU_S = 0.0003  # about 30 us on a machine with nothing else to do
BUSY_PLACES = 200  # with a provider that answers at once, the processor is what the server can do
BUSY_S = 6.0
BUSY_TIMES, BUSY_GOODPUT = 2, 0.5  # of answers per second of the server's own processor time
AHEAD = 2 * BUSY_PLACES  # answers that the server gives while one waits; thousands where connections queue
OFFERED, BUSY = 1.5, 0.8  # times what it can do, and its share of one processor, at least: less says nothing
LIVE_S = 1.0  # the machine may have other work; on an idle one it takes a few milliseconds


class Asked(Struct, frozen=True):
    """One request of a load: when it was sent and how long it took (seconds), and what came."""

    at: float
    took_s: float
    status: int
    whole: bool
    retry_after: str | None = None
    code: str | None = None


async def one(port: int, model: str, stream: bool) -> Asked:
    begun = time.monotonic()
    heard = await ask(port, model, stream=stream)
    code = heard.error["code"] if heard.status != 200 else None
    whole = heard.whole and heard.finish_reasons == ["stop"]
    return Asked(begun, time.monotonic() - begun, heard.status, whole, heard.headers.get("retry-after"), code)


async def capacity(port: int) -> float:
    """Answers per second with one sequential client per place."""
    until = time.monotonic() + MEASURE_S

    async def client(number: int) -> int:
        answered = 0
        while time.monotonic() < until:
            asked = await one(port, *MODELS[number % 2])
            answered += asked.whole
        return answered

    begun = time.monotonic()
    counts = await asyncio.gather(*map(client, range(PLACES)))
    return sum(counts) / (time.monotonic() - begun)


async def load(port: int, per_second: float, seconds: float) -> list[Asked]:
    """Open loop: requests are sent on schedule, whatever happens to earlier ones."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    tasks = []
    for number, (model, stream) in zip(range(int(per_second * seconds)), cycle(MODELS), strict=False):
        await asyncio.sleep(max(0.0, begun + number / per_second - loop.time()))
        tasks.append(asyncio.create_task(one(port, model, stream)))
    return await asyncio.gather(*tasks)


async def watch(port: int, took: list[float], in_flight: list[int]) -> None:
    """Asks for the health of the server, ten times a second."""
    while True:
        begun = time.monotonic()
        answer = await get(port, "/health")
        took.append(time.monotonic() - begun)
        assert answer.status == 200
        in_flight.append(json.loads(answer.body)["in_flight"])
        await asyncio.sleep(0.1)


def percentile(values: list[float], percent: int) -> float:
    return sorted(values)[(len(values) - 1) * percent // 100]


@contextlib.contextmanager
def limited(folder: Path, upstream_url: str, places: int = PLACES) -> Iterator[Spawned]:
    """A server with so many places."""
    routing = files(folder, upstream_url)
    rules = json.loads(routing.read_text())
    rules["server"]["max_in_flight"] = places
    routing.write_text(json.dumps(rules))
    with spawned(routing) as server:
        yield server


@pytest.mark.slow
async def test_three_times_what_it_can_do_takes_nothing_from_what_it_does(tmp_path: Path) -> None:
    """At least 80 % of its best throughput, refusals within 50 ms with Retry-After, and no trace five seconds later."""
    with spawn() as upstream:
        with limited(tmp_path, upstream.url) as server:
            process = psutil.Process(server.process.pid)
            best = await capacity(server.port)
            before_mb = process.memory_info().rss / 1e6
            health: list[float] = []
            in_flight: list[int] = []
            watching = asyncio.create_task(watch(server.port, health, in_flight))
            flood = await load(server.port, TIMES * best, FLOOD_S)
            over = time.monotonic()
            calm = await load(server.port, best / 2, CALM_S)
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            grown_mb = process.memory_info().rss / 1e6 - before_mb
            assert server.stop() == 0
        seen = upstream.ledger()
    good = [asked for asked in flood if asked.whole]
    refused = [asked for asked in flood if asked.status == 503]
    goodput = len(good) / FLOOD_S
    late = [asked.at - over for asked in calm if asked.status != 200]
    times = [asked.took_s for asked in refused]
    print(f"\n  best {best:.0f}/s with {PLACES} places; {TIMES * best:.0f}/s offered for {FLOOD_S:.0f} s:", end=" ")
    print(f"{goodput:.0f}/s answered ({goodput / best:.0%}), {len(refused)} refused after", end=" ")
    print(f"p50 {percentile(times, 50) * 1e3:.1f}, p99 {percentile(times, 99) * 1e3:.1f} ms;", end=" ")
    print(f"/health p99 {percentile(health, 99) * 1e3:.0f} ms; memory {grown_mb:+.1f} MB;", end=" ")
    print(f"last refusal {max(late, default=0):.1f} s after the flood")
    assert len(good) + len(refused) == len(flood)
    assert {(asked.code, asked.retry_after) for asked in refused} == {("overloaded", "1")}
    assert goodput >= GOODPUT * best
    assert percentile(times, 95) < REFUSAL_S
    assert percentile(health, 99) < HEALTH_S
    assert max(in_flight) <= PLACES
    assert grown_mb < GROWTH_MB
    assert max(late, default=0) <= RECOVERY_S
    assert_books_agree(tmp_path, seen)


class Crowd(Struct):
    """What clients got that keep their connections and ask again at once, whatever the answer."""

    answered: int = 0
    refused: int = 0
    cpu_s: float = 0.0  # of the server


async def impatient(server: Spawned, clients: int, seconds: float) -> Crowd:
    crowd = Crowd()
    process = psutil.Process(server.process.pid)
    body = json.dumps({"model": MODELS[0][0], "messages": [{"role": "user", "content": "one two three"}]})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            while True:
                writer.write((head + body).encode())
                answer = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", answer)
                assert length is not None
                await reader.readexactly(int(length[1]))
                status = int(answer[9:12])
                assert status in (200, 503)
                crowd.answered += status == 200
                crowd.refused += status == 503
        finally:
            writer.transport.abort()

    begun_s = sum(process.cpu_times()[:2])
    tasks = [asyncio.create_task(client()) for _ in range(clients)]
    await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    crowd.cpu_s = sum(process.cpu_times()[:2]) - begun_s
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
    return crowd


async def live(port: int, took: list[float]) -> None:
    while True:
        begun = time.monotonic()
        assert (await get(port, "/livez")).status == 200
        took.append(time.monotonic() - begun)
        await asyncio.sleep(0.05)


async def kept_live(port: int, took: list[float]) -> None:
    """The same on one connection, as a load balancer asks."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while True:
            begun = time.monotonic()
            writer.write(request(method="GET", path="/livez", headers={"connection": ""}))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            length = re.search(rb"content-length: (\d+)", head)
            assert length is not None
            await reader.readexactly(int(length[1]))
            took.append(time.monotonic() - begun)
            await asyncio.sleep(0.05)
    finally:
        writer.close()


@pytest.mark.slow
async def test_a_crowd_that_does_not_wait_takes_nothing_from_those_who_are_served(tmp_path: Path) -> None:
    """25 clients for each place: as many answers as with one each, for little more of the processor's time; `/livez` is
    answered meanwhile, on new connections and on a kept one.
    """
    with spawn() as upstream:
        with limited(tmp_path, upstream.url) as server:
            best = await impatient(server, PLACES, IMPATIENT_S)
            took: list[float] = []
            kept: list[float] = []
            asking = [
                asyncio.create_task(ask_live(server.port, times))
                for ask_live, times in ((live, took), (kept_live, kept))
            ]
            crowd = await impatient(server, IMPATIENT, IMPATIENT_S)
            for each in asking:
                each.cancel()
            ends = await asyncio.gather(*asking, return_exceptions=True)
            assert {type(end) for end in ends} == {asyncio.CancelledError}
            assert server.stop() == 0
        seen = upstream.ledger()
    each_s = (crowd.cpu_s - best.cpu_s) / crowd.refused
    print(f"\n  {PLACES} clients: {best.answered} answered; {IMPATIENT} that do not wait: {crowd.answered}", end=" ")
    print(f"({crowd.answered / best.answered:.0%}), {crowd.refused} refused for {each_s * 1e6:.0f} us each;", end=" ")
    print(f"/livez p50 {percentile(took, 50) * 1e3:.0f}, p99 {percentile(took, 99) * 1e3:.0f} ms;", end=" ")
    print(f"kept p50 {percentile(kept, 50) * 1e3:.0f}, p99 {percentile(kept, 99) * 1e3:.0f} ms")
    assert best.refused == 0
    assert crowd.answered >= GOODPUT * best.answered
    assert each_s < REFUSAL_CPU_S
    assert percentile(took, 95) < LIVE_S
    assert percentile(kept, 95) < LIVE_S
    assert_books_agree(tmp_path, seen)


@contextlib.contextmanager
def apart(server: Spawned) -> Iterator[None]:
    """The server has one processor, its clients have the others."""
    mine = os.sched_getaffinity(0)
    if len(mine) < 2:
        pytest.skip("the clients need a processor of their own")
    first = min(mine)
    for thread in psutil.Process(server.process.pid).threads():
        os.sched_setaffinity(thread.id, {first})
    os.sched_setaffinity(0, mine - {first})
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


@pytest.mark.slow
def test_a_flood_of_new_connections_takes_nothing_from_those_who_are_served(tmp_path: Path) -> None:
    """A connection for each request, twice as many as the processor can serve: nobody waits to be accepted."""
    ask_once = request(chat("fake/whole"))
    with fast_upstream() as url, limited(tmp_path, url, BUSY_PLACES) as server, apart(server):
        process = psutil.Process(server.process.pid)
        flood(server.port, ask_once, 1.0, at_most(BUSY_PLACES // 2))  # warms up
        begun_s = sum(process.cpu_times()[:2])
        best = flood(server.port, ask_once, BUSY_S / 2, at_most(BUSY_PLACES // 2))
        best_s = sum(process.cpu_times()[:2]) - begun_s
        found = flood(server.port, ask_once, BUSY_S, paced(BUSY_TIMES * best.per_second))
        found_s = sum(process.cpu_times()[:2]) - begun_s - best_s
        assert server.stop() == 0
    offered = found.sent / BUSY_S / best.per_second
    goodput = len(found.served) / found_s / (len(best.served) / best_s)
    print(f"\n  best {best.per_second:.0f}/s; {offered:.1f} times that: {found.per_second:.0f}/s answered", end=" ")
    print(f"({goodput:.0%} for the same processor time, of which it had {found_s / BUSY_S:.0%}) after", end=" ")
    print(f"p50 {percentile(found.served, 50) * 1e3:.0f}, p99 {percentile(found.served, 99) * 1e3:.0f} ms;", end=" ")
    print(f"{len(found.refused)} refused after p50 {percentile(found.refused, 50) * 1e3:.0f} ms;", end=" ")
    print(f"/livez p50 {percentile(found.live, 50) * 1e3:.0f}, p99 {percentile(found.live, 99) * 1e3:.0f} ms")
    if offered < OFFERED or found_s < BUSY * BUSY_S:
        pytest.skip("other work took the processors, so the figures say nothing")
    assert not found.failed
    assert goodput >= BUSY_GOODPUT
    assert percentile(found.served, 50) * found.per_second < AHEAD
    assert percentile(found.live, 50) * found.per_second < AHEAD / 2
