"""A client that hangs up, in every phase: the upstream is let go at once, and what was used is written down."""

from __future__ import annotations

import asyncio
import functools
import gc
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.faults.books import assert_books_agree, files, rows
from tests.faults.talking import MESSAGES, Talk, ask, talk
from tests.serving import Server, serving
from tests.upstream import FakeUpstream, Seen, prompt_tokens
from tests.waiting import eventually

GONE_S = 0.25  # within this a provider must see that nobody waits any more
PROMPT = prompt_tokens({"messages": MESSAGES})

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
    """The upstream has said to come back later, and the proxy waits for that."""
    await upstream.until(lambda: len(upstream.ledger) == 1 and upstream.open == 0)
    await asyncio.sleep(0.02)


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
    closed = conversation.close()
    await upstream.until(lambda: upstream.open == 0)
    (seen,) = upstream.ledger
    assert seen.t_peer_close is not None
    assert seen.t_peer_close - closed < GONE_S
    call, attempt = await only(tmp_path)
    assert (call["outcome"], attempt["outcome"], call["status"]) == ("client_closed", "client_closed", 499)
    assert (attempt["usage_source"], call["cost_nano"] > 0) == ("estimated", True)
    assert call["output_tokens"] == pytest.approx(output_tokens, abs=output_tokens * 0.6)


async def test_in_back_off_no_further_attempt_is_made(pair: tuple[Server, FakeUpstream], tmp_path: Path) -> None:
    """The wait ends with its client."""
    server, upstream = pair
    conversation = await talk(server.port, "fake/e429(retry_after=0.5)")
    await backing_off(conversation, upstream)
    conversation.close()
    call, attempt = await only(tmp_path)
    await nothing_is_left(server, timeout_s=GONE_S)
    await asyncio.sleep(0.6)  # longer than the back-off was to be
    assert len(upstream.ledger) == 1
    assert (call["outcome"], call["attempts"]) == ("client_closed", 1)
    assert (attempt["outcome"], attempt["cost_nano"]) == ("upstream_error", 0)


async def test_after_the_finish_the_usage_is_still_read(pair: tuple[Server, FakeUpstream], tmp_path: Path) -> None:
    """The answer is complete but for its usage, which is worth a second's wait."""
    server, upstream = pair
    conversation = await talk(server.port, "fake/slow_usage(s=0.4)")
    await upstream.until(lambda: bool(upstream.ledger) and upstream.ledger[0].t_finish_sent is not None)
    await asyncio.sleep(0.05)
    conversation.close()
    await upstream.until(lambda: upstream.open == 0)
    (seen,) = upstream.ledger
    assert (seen.complete, seen.peer_closed_early) == (True, False)
    call, attempt = await only(tmp_path)
    assert (call["outcome"], attempt["usage_source"], call["estimated"]) == ("client_closed", "provider", 0)
    assert (call["input_tokens"], call["output_tokens"]) == (PROMPT, 10)


async def test_a_usage_that_does_not_come_is_not_waited_for(pair: tuple[Server, FakeUpstream], tmp_path: Path) -> None:
    """After one second the upstream is let go, and the usage is estimated."""
    server, upstream = pair
    conversation = await talk(server.port, "fake/slow_usage(s=9)")
    await upstream.until(lambda: bool(upstream.ledger) and upstream.ledger[0].t_finish_sent is not None)
    await asyncio.sleep(0.05)
    closed = conversation.close()
    await upstream.until(lambda: upstream.open == 0)
    (seen,) = upstream.ledger
    assert seen.t_peer_close is not None
    assert 0.5 < seen.t_peer_close - closed < 1 + GONE_S
    call, attempt = await only(tmp_path)
    assert (call["outcome"], attempt["usage_source"]) == ("client_closed", "estimated")
    assert call["output_tokens"] == pytest.approx(10, abs=3)


def has_seen(upstream: FakeUpstream, requests: int) -> bool:
    return len(upstream.ledger) == requests


async def test_a_client_that_leaves_with_the_first_token_is_noticed(
    pair: tuple[Server, FakeUpstream], tmp_path: Path
) -> None:
    """At whatever moment around it."""
    server, upstream = pair
    for number in range(40):
        conversation = await talk(server.port, "fake/ok(n_tokens=50,pace=0.005,delay=0.01)")
        await upstream.until(functools.partial(has_seen, upstream, number + 1))
        await asyncio.sleep(0.0005 * number)
        conversation.close()
    await upstream.until(lambda: upstream.open == 0)
    await nothing_is_left(server)
    assert {row["outcome"] for row in rows(tmp_path, "calls")} == {"client_closed"}


# --- five hundred -----------------------------------------------------------------------------------------------------


def open_sockets() -> int:
    """Those of this process: server, clients and upstream alike."""
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the directory's own, and what is closed meanwhile
            found += str(entry.readlink()).startswith("socket:")
    return found


async def abort_one(server: Server, upstream: FakeUpstream, number: int, dice: random.Random) -> tuple[str, float]:
    """One aborted request: its model, which no other has, and when it was aborted."""
    kind = number % 3
    modes = ("ok(delay=9,tag={})", "ok(n_tokens=2000,pace=0.003,tag={})", "slow_usage(s=0.3,tag={})")
    model = modes[kind].format(number)
    conversation = await talk(server.port, "fake/" + model)
    if kind == 0:
        await eventually(lambda: any(seen.model == model for seen in upstream.ledger[-40:]))
        await asyncio.sleep(dice.uniform(0, 0.1))
    else:
        await conversation.head()
        frames = conversation.frames()
        for _ in range(dice.randrange(1, 30) if kind == 1 else 11):  # 11: all but the end, which waits for the usage
            await anext(frames)
        await frames.aclose()
        if kind == 2:
            await asyncio.sleep(dice.uniform(0.05, 0.1))
    return model, conversation.close()


async def five_hundred(folder: Path, transport: str) -> float:
    """How long the slowest of them was noticed after, in seconds."""
    dice = random.Random(7)
    async with (
        FakeUpstream() as upstream,
        serving(files(folder, upstream.url, fake={"transport": transport})) as server,
    ):
        await ask(server.port, "fake/ok")
        tasks, sockets, idle = len(asyncio.all_tasks()), open_sockets(), len(upstream.connections)
        closed: dict[str, float] = {}
        for start in range(0, 500, 10):
            numbers = range(start, start + 10)
            closed |= dict(await asyncio.gather(*(abort_one(server, upstream, number, dice) for number in numbers)))
        await upstream.until(lambda: upstream.open == 0)
        await nothing_is_left(server)
        slowest_s = latencies([seen for seen in upstream.ledger if seen.model in closed], closed, transport)[-1]
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
        # Connections that wait for their next request have both their ends in this process.
        await eventually(lambda: open_sockets() - 2 * len(upstream.connections) <= sockets - 2 * idle)
        ends = {row["id"]: row["outcome"] for row in rows(folder, "attempts")}
        print(f"  attempts: {len(ends)}, client_closed: {list(ends.values()).count('client_closed')}")
        # `ok` is the end of an answer whose usage was faster than its client's close, and nothing else.
        assert all(ends[str(seen.id)] == "client_closed" or seen.complete for seen in upstream.ledger)
    assert_books_agree(folder, upstream.ledger)
    return slowest_s


def latencies(seen: list[Seen], closed: dict[str, float], transport: str) -> list[float]:
    """Seconds from the client's close to the upstream's, of those that were not read to their end."""
    early = sorted(each.t_peer_close - closed[each.model] for each in seen if each.t_peer_close and not each.complete)
    complete = [each for each in seen if each.complete]
    percent = [early[round(share * (len(early) - 1))] * 1000 for share in (0.5, 0.99, 1.0)]
    p50, p99, most = (f"{each:.1f}" for each in percent)
    print(f"\n  500 aborts over {transport}: {len(early)} closed early, {len(complete)} were read to their end")
    print(f"  from the client's close to the upstream's: p50 {p50} ms, p99 {p99} ms, max {most} ms")
    assert len(early) + len(complete) == len(seen) == 500
    assert all(each.t_finish_sent for each in complete)
    return early


@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
def test_five_hundred_aborts_leave_nothing_behind(tmp_path: Path, transport: str) -> None:
    """A third before headers, a third mid-stream, a third after the finish, on the loop the product runs on."""
    begun = time.monotonic()
    gc.collect()
    gc.freeze()  # pytest's heap is not the product's: collecting it takes 120 ms
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            slowest_s = runner.run(five_hundred(tmp_path, transport))
    finally:
        gc.unfreeze()
    assert slowest_s <= GONE_S
    print(f"  in {time.monotonic() - begun:.1f} s")
