"""An ensemble's client hangs up, in every phase: all asks end at once, and each has its row."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ensembles.first import STRATEGIES
from tests.faults.books import assert_books_agree, files, rows
from tests.faults.talking import Talk, talk
from tests.faults.test_client_gone import GONE_S, nothing_is_left
from tests.serving import Server, serving
from tests.slowness import waited_s
from tests.upstream import FakeUpstream
from tests.waiting import eventually

STALL, SLOW = "fake/stall_after(k=0)", "fake/ok(n_tokens=500,pace=0.01)"
PANELS: dict[str, dict[str, Any]] = {
    "waiting": {"members": [STALL, "backup/blackhole", "single/slow_ttft(s=9)"]},
    "halfway": {"members": ["fake/ok", "backup/blackhole", STALL]},
    "nested": {"members": ["ensemble:waiting", STALL]},
    "judged": {"members": ["fake/ok", "backup/ok"], "last": "fake/blackhole"},
    "written": {"members": ["fake/ok", "backup/ok"], "last": SLOW},
}
Step = Callable[[Talk, FakeUpstream], Awaitable[None]]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Server, FakeUpstream]]:
    """A server with these ensembles, and its upstream. At the end nothing is in flight and the books agree."""
    async with FakeUpstream() as upstream:
        path = files(tmp_path, upstream.url)
        routing = json.loads(path.read_text())
        routing["ensembles"] = {name: {"strategy": "first", **panel} for name, panel in PANELS.items()}
        path.write_text(json.dumps(routing))
        async with serving(path, strategies=STRATEGIES) as server:
            yield server, upstream
            await nothing_is_left(server)
        assert_books_agree(tmp_path, upstream.ledger)


def asked(total: int, open_now: int) -> Step:
    """So many requests have reached the upstream, and so many are being answered."""

    async def step(conversation: Talk, upstream: FakeUpstream) -> None:
        await upstream.until(lambda: len(upstream.ledger) == total and upstream.open == open_now)

    return step


async def reading(conversation: Talk, upstream: FakeUpstream) -> None:
    """The client has read a few tokens of the last model."""
    assert await conversation.head() == 200
    frames = conversation.frames()
    async for frame in frames:
        if "tok3" in frame:
            break
    await frames.aclose()


@pytest.mark.parametrize(
    ("name", "stream", "step", "seats"),
    [
        ("waiting", True, asked(3, 3), 3),
        ("waiting", False, asked(3, 3), 3),
        ("halfway", True, asked(3, 2), 3),
        ("halfway", False, asked(3, 2), 3),
        ("nested", True, asked(4, 4), 4),
        ("nested", False, asked(4, 4), 4),
        ("judged", True, asked(3, 1), 3),
        ("judged", False, asked(3, 1), 3),
        ("written", True, reading, 3),
    ],
)
@pytest.mark.slow
async def test_all_asks_are_let_go_at_once(
    pair: tuple[Server, FakeUpstream], tmp_path: Path, name: str, stream: bool, step: Step, seats: int
) -> None:
    """While members answer, after some of them have, inside another ensemble, at the judge, and in its stream."""
    server, upstream = pair
    conversation = await talk(server.port, f"ensemble:{name}", stream=stream, routing={"progress": stream})
    await step(conversation, upstream)
    closed, waited = conversation.close(), waited_s()
    await upstream.until(lambda: upstream.open == 0)
    gone = [
        seen.t_peer_close - closed for seen in upstream.ledger if seen.t_peer_close is not None and not seen.complete
    ]
    print(f"  {name}: {len(gone)} asks let go after at most {max(gone) * 1000:.1f} ms")
    assert max(gone) - (waited_s() - waited) < GONE_S
    await eventually(lambda: rows(tmp_path, "calls")[0]["closed_ns"] is not None)
    (call,), attempts = rows(tmp_path, "calls"), rows(tmp_path, "attempts")
    assert (call["outcome"], call["attempts"], call["ensemble"]) == ("client_closed", seats, name)
    assert {row["outcome"] for row in attempts} <= {"ok", "client_closed"}
    assert len({row["seat"] for row in attempts}) == len(attempts) == seats


async def test_the_losers_of_an_early_stop_are_let_go_at_once(
    pair: tuple[Server, FakeUpstream], tmp_path: Path
) -> None:
    """They are `cancelled`, at what they may have used. The answer does not wait for them."""
    server, upstream = pair
    routing = {"ensemble": {"models": ["fake/ok(delay=0.5)", "backup/blackhole", STALL], "enough": 1, "min_answers": 1}}
    heard = await (await talk(server.port, "ensemble:waiting", routing=routing)).rest()
    assert heard.status == 200, heard.body
    await upstream.until(lambda: upstream.open == 0)
    await eventually(lambda: rows(tmp_path, "calls")[0]["closed_ns"] is not None)
    outcomes = {row["model"]: (row["outcome"], row["usage_source"]) for row in rows(tmp_path, "attempts")}
    assert outcomes["ok(delay=0.5)"] == ("ok", "provider")
    assert {*outcomes.values()} == {("ok", "provider"), ("cancelled", "unknown")}
    assert rows(tmp_path, "calls")[0]["outcome"] == "ok"
