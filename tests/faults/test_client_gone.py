"""A client hangs up, in every phase: the upstream request ends at once, and the usage is recorded."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop
from msgspec import Struct

from tests.faults.books import OUTPUT_USD, assert_books_agree, files, rows
from tests.faults.talking import MESSAGES, Talk, ask, talk
from tests.serving import Server, serving
from tests.slowness import own_time, waited_s
from tests.upstream import FakeUpstream, Seen, prompt_tokens
from tests.waiting import eventually

GONE_S = 0.25  # within this a provider must see that nobody waits any more
PROMPT = prompt_tokens({"messages": MESSAGES})
MAX_OUTPUT = 4096
MOST_NANO = MAX_OUTPUT * OUTPUT_USD * 1000  # of the output alone: what nobody saw may have been as much

Step = Callable[[Talk, FakeUpstream], Any]


@pytest.fixture(params=["aiohttp", "httpx"])
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Server, FakeUpstream]]:
    """A server and its upstream. At the end nothing is in flight and the books agree."""
    async with FakeUpstream() as upstream:
        path = files(tmp_path, upstream.url, fake={"transport": request.param, "retries": 2})
        async with serving(path) as server:
            yield server, upstream
            await nothing_is_left(server)
        assert_books_agree(tmp_path, upstream.ledger)


async def nothing_is_left(server: Server, timeout_s: float = 2.0) -> None:
    """No request upstream, no open call, no hold, and every row written: within two seconds."""
    parts = server.runtime
    await eventually(lambda: not any(each.active for each in parts.upstreams.values()), timeout_s)
    await eventually(lambda: not parts.ledger.state.open_calls and not parts.ledger.state.pending, timeout_s)
    assert parts.ledger.state.reserved_nano == 0


async def only(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The one call and its last attempt, once it has ended."""
    await eventually(lambda: rows(folder, "calls")[0]["closed_ns"] is not None)
    return rows(folder, "calls")[0], rows(folder, "attempts")[-1]


async def answering(conversation: Talk, upstream: FakeUpstream) -> None:
    """The upstream has the request; the client waits for headers."""
    await upstream.until(lambda: upstream.open == 1)
    await asyncio.sleep(0.02)


async def reading(conversation: Talk, upstream: FakeUpstream) -> None:
    """The client has read a few tokens."""
    assert await conversation.head() == 200
    frames = conversation.frames()
    async for frame in frames:
        if "tok3" in frame:
            break
    await frames.aclose()


async def backing_off(conversation: Talk, upstream: FakeUpstream) -> None:
    """The upstream has sent a Retry-After, and the proxy waits."""
    await upstream.until(lambda: len(upstream.ledger) == 1 and upstream.open == 0)
    await asyncio.sleep(0.02)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("mode", "stream", "step", "output_tokens"),
    [
        ("ok(delay=9)", True, answering, 0),
        ("slow_ttft(s=9)", True, answering, 0),
        ("stall_after(k=0)", True, answering, 0),
        ("slow_headers(s=0.05)", True, answering, 0),
        ("blackhole", False, answering, 0),
        ("delay_whole(s=9)", False, answering, 0),
        ("slow_body(s=0.05)", False, answering, 0),
        ("ok(n_tokens=500,pace=0.01)", True, reading, 4),
        ("stall_after(k=4)", True, reading, 4),
        ("reasoning(n=9)-stall_after(k=13)", True, reading, 13),
    ],
)
async def test_the_upstream_is_let_go_at_once(
    pair: tuple[Server, FakeUpstream], tmp_path: Path, mode: str, stream: bool, step: Step, output_tokens: int
) -> None:
    """Waiting for headers or the first token, streamed or whole, and in the middle of a stream."""
    server, upstream = pair
    conversation = await talk(server.port, "fake/" + mode, stream=stream)
    await step(conversation, upstream)
    closed, waited = conversation.close(), waited_s()
    await upstream.until(lambda: upstream.open == 0)
    (seen,) = upstream.ledger
    assert seen.t_peer_close is not None
    assert seen.t_peer_close - closed - (waited_s() - waited) < GONE_S
    call, attempt = await only(tmp_path)
    assert (call["outcome"], attempt["outcome"], call["status"]) == ("client_closed", "client_closed", 499)
    assert attempt["usage_source"] == ("estimated" if output_tokens else "unknown")
    assert (call["cost_nano"] >= MOST_NANO) is (output_tokens == 0)
    assert call["output_tokens"] == pytest.approx(output_tokens or MAX_OUTPUT, abs=output_tokens * 0.6)


async def flooded(conversation: Talk, upstream: FakeUpstream) -> None:
    """The client has stopped reading, and every buffer on the way to it is full."""
    assert await conversation.head() == 200
    await eventually(lambda: any(each.held_back for each in upstream.connections))


async def flooding(conversation: Talk, upstream: FakeUpstream) -> None:
    """The client reads as fast as it can."""
    assert await conversation.head() == 200
    pieces, size = conversation.pieces(), 0
    async for piece in pieces:
        size += len(piece)
        if size > 2**20:
            break
    await pieces.aclose()


@pytest.mark.parametrize("step", [flooded, flooding])
@pytest.mark.sampled(3)
async def test_under_a_flood_the_upstream_is_let_go_at_once(
    pair: tuple[Server, FakeUpstream], tmp_path: Path, step: Step
) -> None:
    """Whether its client has stopped reading or not."""
    server, upstream = pair
    conversation = await talk(server.port, "fake/flood")
    await step(conversation, upstream)
    closed, waited = conversation.close(), waited_s()
    await upstream.until(lambda: upstream.open == 0)
    (seen,) = upstream.ledger
    assert seen.t_peer_close is not None
    noticed_s = seen.t_peer_close - closed - (waited_s() - waited)
    print(f"  noticed after {noticed_s * 1000:.1f} ms")
    assert noticed_s < GONE_S
    call, attempt = await only(tmp_path)
    assert (call["outcome"], attempt["usage_source"]) == ("client_closed", "estimated")
    assert call["output_tokens"] > 100


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.sampled(3)
async def test_all_seats_of_a_call_are_let_go_at_once(
    pair: tuple[Server, FakeUpstream], tmp_path: Path, stream: bool
) -> None:
    """Each has its own row with its seat number."""
    server, upstream = pair
    conversation = await talk(server.port, "single/stall_after(k=0)", stream=stream, n=3)
    await upstream.until(lambda: upstream.open == 3)
    closed, waited = conversation.close(), waited_s()
    await upstream.until(lambda: upstream.open == 0)
    latest = max(seen.t_peer_close or 9e9 for seen in upstream.ledger)
    assert latest - closed - (waited_s() - waited) < GONE_S
    call, _ = await only(tmp_path)
    assert (call["outcome"], call["attempts"]) == ("client_closed", 3)
    attempts = rows(tmp_path, "attempts")
    assert {(row["outcome"], row["usage_source"]) for row in attempts} == {("client_closed", "unknown")}
    assert sorted(row["seat"] for row in attempts) == [0, 1, 2]


async def test_a_client_that_leaves_while_it_waits_for_a_place_sends_nothing(tmp_path: Path) -> None:
    """Its attempt was opened and cost nothing, and the upstream sees no request."""
    async with (
        FakeUpstream() as upstream,
        serving(files(tmp_path, upstream.url, fake={"max_concurrent": 1})) as server,
    ):
        first = await talk(server.port, "fake/stall_after(k=1)")
        assert await first.head() == 200
        second = await talk(server.port, "fake/ok")
        await eventually(lambda: len(rows(tmp_path, "attempts")) == 2)
        second.close()
        begun = own_time()
        await eventually(lambda: rows(tmp_path, "calls")[1]["closed_ns"] is not None)
        assert own_time() - begun < GONE_S
        call, attempt = rows(tmp_path, "calls")[1], rows(tmp_path, "attempts")[1]
        assert (call["outcome"], attempt["outcome"]) == ("client_closed", "client_closed")
        assert (attempt["usage_source"], call["cost_nano"], len(upstream.ledger)) == ("none", 0, 1)
        first.close()
        await nothing_is_left(server)


# --- five hundred -----------------------------------------------------------------------------------------------------


WATCHING = 3  # tasks that watch the configuration's files, and come and go with each look


def open_sockets() -> int:
    """Those of this process: server, clients and upstream alike."""
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the directory's own, and what is closed meanwhile
            found += str(entry.readlink()).startswith("socket:")
    return found


async def read_some(conversation: Talk, frames: int) -> None:
    await conversation.head()
    events = conversation.frames()
    for _ in range(frames):
        await anext(events)
    await events.aclose()


async def seen_by(upstream: FakeUpstream, model: str, requests: int = 1) -> None:
    await eventually(lambda: sum(seen.model == model for seen in upstream.ledger[-80:]) == requests)


class Phase(Struct, frozen=True):
    """A phase in which clients leave. `step` comes to it; then the client stays for up to `s` seconds more."""

    model: str
    step: Callable[[Talk, FakeUpstream, str, random.Random], Awaitable[None]]
    s: tuple[float, float] = (0, 0.1)
    stream: bool = True
    n: int = 1
    provider: str = "fake"


async def _sent(talk: Talk, upstream: FakeUpstream, model: str, dice: random.Random) -> None:
    await seen_by(upstream, model)


async def _seated(talk: Talk, upstream: FakeUpstream, model: str, dice: random.Random) -> None:
    await seen_by(upstream, model, 3)


async def _mid_stream(talk: Talk, upstream: FakeUpstream, model: str, dice: random.Random) -> None:
    await read_some(talk, dice.randrange(1, 30))


async def _stalled(talk: Talk, upstream: FakeUpstream, model: str, dice: random.Random) -> None:
    await read_some(talk, 3)


async def _all_but_the_end(talk: Talk, upstream: FakeUpstream, model: str, dice: random.Random) -> None:
    await read_some(talk, 11)  # the end waits for the usage


async def _headers(talk: Talk, upstream: FakeUpstream, model: str, dice: random.Random) -> None:
    await talk.head()


PHASES = (
    Phase("ok(delay=9,tag={})", _sent),
    Phase("slow_ttft(s=9,tag={})", _sent),
    Phase("delay_whole(s=9,tag={})", _sent, stream=False),
    Phase("slow_body(s=0.05,tag={})", _sent, stream=False),
    Phase("ok(n_tokens=2000,pace=0.003,tag={})", _mid_stream, (0, 0)),
    Phase("pinging_stall(k=4,s=0.05,tag={})-named_pings", _stalled),
    Phase("flood(tag={})", _headers, (0.05, 0.2)),
    Phase("ok(delay=9,tag={})", _seated, n=3, provider="single"),
    Phase("e429(retry_after=5,tag={})", _sent),
    Phase("slow_usage(s=0.3,tag={})", _all_but_the_end, (0.05, 0.1)),
)


async def abort_one(server: Server, upstream: FakeUpstream, number: int, dice: random.Random) -> tuple[str, float]:
    """One aborted request: its model, which no other has, and when it was aborted."""
    phase = PHASES[number % len(PHASES)]
    model = phase.model.format(number)
    conversation = await talk(server.port, f"{phase.provider}/{model}", stream=phase.stream, n=phase.n)
    await phase.step(conversation, upstream, model, dice)
    await asyncio.sleep(dice.uniform(*phase.s))
    return model, conversation.close()


async def five_hundred(folder: Path, transport: str) -> float:
    """How long the slowest of them was noticed after, in seconds."""
    dice = random.Random(7)
    fake = {"transport": transport, "retries": 2}
    async with FakeUpstream() as upstream, serving(files(folder, upstream.url, fake=fake)) as server:
        await ask(server.port, "fake/ok")
        tasks, sockets, idle = len(asyncio.all_tasks()), open_sockets(), len(upstream.connections)
        closed: dict[str, float] = {}
        for start in range(0, 500, 10):
            numbers = range(start, start + 10)
            closed |= dict(await asyncio.gather(*(abort_one(server, upstream, number, dice) for number in numbers)))
        await upstream.until(lambda: upstream.open == 0)
        await nothing_is_left(server)
        slowest_s = latencies([seen for seen in upstream.ledger if seen.model in closed], closed, transport)[-1]
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks + WATCHING)
        # Connections that wait for their next request have both their ends in this process.
        await eventually(lambda: open_sockets() - 2 * len(upstream.connections) <= sockets - 2 * idle)
        calls = Counter(row["outcome"] for row in rows(folder, "calls"))
        ends = Counter((row["outcome"], row["usage_source"]) for row in rows(folder, "attempts"))
        print(f"  calls: {dict(calls)}")
        print(f"  attempts: { {f'{outcome} {source}': count for (outcome, source), count in sorted(ends.items())} }")
        # `ok` is the end of an answer whose usage was faster than its client's close, and nothing else.
        assert calls["client_closed"] + calls["ok"] == sum(calls.values()) == 501
        assert calls["ok"] <= 51
        refused = ends["upstream_error", "none"]  # fifty, less those whose client was faster than the refusal
        assert 25 < refused <= 50
        assert ends["client_closed", "unknown"] == 50 * (4 + 3) + 50 - refused
    assert_books_agree(folder, upstream.ledger)
    return slowest_s


def latencies(seen: list[Seen], closed: dict[str, float], transport: str) -> list[float]:
    """Seconds from the client's close to the upstream's, of those that were not read to their end, in order."""
    late: dict[str, list[float]] = {}
    for each in seen:
        if each.t_peer_close and not each.complete:
            late.setdefault(each.model.partition("(")[0], []).append(each.t_peer_close - closed[each.model])
    early = sorted(took_s for took in late.values() for took_s in took)
    complete = [each for each in seen if each.complete]
    percent = [early[round(share * (len(early) - 1))] * 1000 for share in (0.5, 0.99, 1.0)]
    p50, p99, most = (f"{each:.1f}" for each in percent)
    print(f"\n  500 aborts over {transport}: {len(early)} closed early, {len(complete)} were read to their end")
    print(f"  from the client's close to the upstream's: p50 {p50} ms, p99 {p99} ms, max {most} ms")
    print(f"  slowest by mode: { {mode: f'{max(took) * 1000:.1f} ms' for mode, took in late.items()} }")
    assert len(early) + len(complete) == len(seen) == 600  # fifty have three seats
    assert all(each.t_finish_sent or each.status == 429 for each in complete)
    return early


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
def test_five_hundred_aborts_leave_nothing_behind(tmp_path: Path, transport: str) -> None:
    """A tenth in each phase, on the loop the product runs on."""
    begun = time.monotonic()
    gc.collect()
    gc.freeze()  # the heap of earlier tests is not the product's: collecting it takes time
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        slowest_s = runner.run(five_hundred(tmp_path, transport))
    assert slowest_s <= GONE_S
    print(f"  in {time.monotonic() - begun:.1f} s")
