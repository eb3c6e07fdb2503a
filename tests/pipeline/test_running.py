"""A running call ends at once, in any phase and for any reason, with one outcome and all its rows."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec import Struct, structs

from proxy.metering.ledger import Ledger
from proxy.metering.writer import Waits
from proxy.pipeline.output import MAX_BUFFERED_BYTES
from proxy.pipeline.running import ClientLeft, RunningCall
from proxy.providers.base.contract import Built
from proxy.providers.openai import OpenAI
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import ProxyError, UpstreamTimeout
from proxy.schema.records import Outcome
from proxy.upstream.transports.base import Outgoing
from tests.pipeline.world import (
    ANSWER_NANO,
    COMPLETE,
    USAGE_END,
    Reply,
    World,
    delta,
    error,
    everything,
    streamed,
    stuck,
    turns,
    whole,
)
from tests.slowness import own_time
from tests.storage.samples import rows
from tests.storage.stores import GatedStore
from tests.waiting import PATIENCE_S, eventually

GONE_S = 0.25


class Single(OpenAI, frozen=True, kw_only=True):
    """A vendor that answers one choice and does not enforce JSON."""

    def max_choices(self, model: str) -> int | None:
        return 1

    def build_request(self, request: ChatRequest, model: str) -> Built:
        built = super().build_request(request, model)
        return structs.replace(built, unchecked_json="response_format" in request.fields)


class Phase(Struct, frozen=True, kw_only=True):
    """Where a call is when it is ended. `attempts`: the outcome and usage source of those that had ended, or were
    refused, before; those that run end as the call does, with the usage source of `running`. `settles`: it had its
    answer, and that stands.
    """

    world: Callable[[], World]
    stuck_at: str = ""
    stream: bool = False
    route: str = "a"
    fields: dict[str, Any] = {}
    backoff_s: float = 0.0
    takes_place: bool = False
    attempts: list[tuple[str, str]] = []
    running: list[str] = []
    is_open: bool = True
    settles: bool = False


FULL = delta(content="x" * MAX_BUFFERED_BYTES)
REFUSED = ("upstream_error", "none")
OK = ("ok", "provider")
JSON: dict[str, Any] = {"response_format": {"type": "json_object"}}

PHASES = {
    "the vault": Phase(world=World, stuck_at="restore", is_open=False),
    "the ledger": Phase(world=World, stuck_at="open", is_open=False),
    "a place": Phase(world=lambda: World(max_concurrent=1), takes_place=True, running=["none"]),
    "a connection": Phase(world=lambda: World(asyncio.Event()), running=["none"]),
    "headers": Phase(world=lambda: World(None), running=["unknown"]),
    "headers of a stream": Phase(world=lambda: World(None), stream=True, running=["unknown"]),
    "the body": Phase(world=lambda: World(stuck()), running=["unknown"]),
    "the first token": Phase(world=lambda: World(streamed(b": x\n\n", None)), stream=True, running=["unknown"]),
    "the next token": Phase(world=lambda: World(streamed(COMPLETE[0], None)), stream=True, running=["estimated"]),
    "room for more": Phase(world=lambda: World(streamed(*[FULL] * 9, None)), stream=True, running=["estimated"]),
    "back-off": Phase(world=lambda: World(error(500), retries=1), backoff_s=60, attempts=[REFUSED]),
    "the ledger again": Phase(world=lambda: World(error(500)), route="ab", stuck_at="intend", attempts=[REFUSED]),
    "the next candidate": Phase(
        world=lambda: World(error(500), None), route="ab", attempts=[REFUSED], running=["unknown"]
    ),
    "one of its seats": Phase(
        world=lambda: World(None, whole(), error(500), kind=Single, retries=1),
        fields={"n": 3},
        backoff_s=60,
        attempts=[OK, REFUSED],
        running=["unknown"],
    ),
    "streams of its seats": Phase(
        world=lambda: World(streamed(COMPLETE[0], None), streamed(b": x\n\n", None), streamed(*COMPLETE), kind=Single),
        stream=True,
        fields={"n": 3},
        attempts=[OK],
        running=["estimated", "unknown"],
    ),
    "room for its seats": Phase(
        world=lambda: World(*(streamed(*[FULL] * 9, None) for _ in range(2)), kind=Single),
        stream=True,
        fields={"n": 2},
        running=["estimated", "estimated"],
    ),
    "a repair": Phase(
        world=lambda: World(whole("oh"), stuck(), kind=Single), fields=JSON, attempts=[OK], running=["unknown"]
    ),
    "the vault at the end": Phase(world=lambda: World(whole()), stuck_at="keep", attempts=[OK]),
    "the settlement": Phase(world=lambda: World(whole()), stuck_at="settle", attempts=[OK], settles=True),
}


async def begun(phase: Phase, deadline_s: float = 60) -> tuple[World, RunningCall]:
    """A call that is stuck in the phase."""
    world = phase.world()
    world.stuck_at = {phase.stuck_at}
    if phase.takes_place:
        places = world.upstreams["a"].pool.places
        assert places is not None
        await places.acquire()
    pipeline = world.pipeline(deadline_s, phase.backoff_s)
    running = await world.begin(pipeline, phase.stream, phase.route, **phase.fields)
    await turns(100)
    assert not running.output._is_ended
    return world, running


def assert_over(phase: Phase, world: World, running: RunningCall, outcome: Outcome) -> None:
    """Every attempt has ended once, and was told of; the call has ended once; nothing is held any more."""
    assert sorted((end.outcome.value, end.usage_source) for end in world.ended) == sorted(
        [*phase.attempts, *((outcome.value, source) for source in phase.running)]
    )
    ids = [end.id for end in world.ended]
    assert sorted(ids) == sorted(set(ids)) == sorted(attempt.id for attempt in running.call.attempts)
    assert [attempt.ended for attempt in world.observed] == world.ended
    holds = {opening.id: opening.hold_nano for opening in world.opened}
    for end in world.ended:
        if end.usage_source == "unknown":
            assert end.cost_nano == holds[end.id]
        assert (end.cost_nano == 0) is (end.usage_source == "none")
    (closed,) = world.closed
    assert world.ends == [closed]
    assert closed.outcome is (Outcome.OK if phase.settles else outcome)
    assert running.call.is_open is phase.is_open
    assert all(reply.closed for reply in world.replies)


async def in_time(ending: Awaitable[object]) -> None:
    begun_at = own_time()
    await asyncio.wait_for(ending, PATIENCE_S)
    assert own_time() - begun_at < GONE_S


# --- a client that leaves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PHASES)
async def test_a_client_that_leaves_ends_its_call_at_once(name: str) -> None:
    """Whatever it waits for, and without waiting for the ledger."""
    phase = PHASES[name]
    world, running = await begun(phase)
    others = asyncio.all_tasks()
    running.leave()
    await in_time(running.ended())
    assert_over(phase, world, running, Outcome.CLIENT_CLOSED)
    assert ("settle" in dict(world.log)) is phase.settles
    with pytest.raises(ClientLeft):
        await running.output.read()
    await turns()
    assert asyncio.all_tasks() <= others


@pytest.mark.parametrize("comes", [True, False])
async def test_a_client_that_leaves_after_the_finish_is_billed_exactly_where_the_usage_comes(comes: bool) -> None:
    """Within a second; then its text is counted."""
    more = asyncio.Event()
    world = World(streamed(COMPLETE[0] + delta("stop"), *((more, USAGE_END) if comes else (None,))))
    running = await world.begin(world.pipeline(), stream=True)
    await turns()
    running.leave()
    await turns()
    assert (world.ended, world.closed) == ([], [])
    asyncio.get_running_loop().call_later(0.1, more.set)
    begun_at, own_at = time.monotonic(), own_time()
    await asyncio.wait_for(running.ended(), PATIENCE_S)
    took_s, own_s = time.monotonic() - begun_at, own_time() - own_at
    (end,) = world.ended
    if comes:
        assert own_s < 0.5
        assert (end.outcome, end.usage_source, end.cost_nano) == (Outcome.CLIENT_CLOSED, "provider", ANSWER_NANO)
    else:
        assert took_s > 0.9
        assert own_s < 1.0 + GONE_S
        assert (end.outcome, end.usage_source) == (Outcome.CLIENT_CLOSED, "estimated")


async def test_nothing_is_kept_for_a_client_that_left() -> None:
    """Drained content is not written, and unread output is dropped."""
    more = asyncio.Event()
    world = World(streamed(COMPLETE[0] + delta("stop"), more, USAGE_END))
    running = await world.begin(world.pipeline(), stream=True)
    await turns()
    running.leave()
    assert running.output.is_discarded
    more.set()
    await running.ended()
    with pytest.raises(ClientLeft):
        await running.output.read()


async def test_a_client_that_leaves_when_all_is_over_changes_nothing() -> None:
    """What it did not read is still there."""
    world = World(whole())
    running = await world.begin(world.pipeline())
    await running.ended()
    running.leave()
    running.stop()
    assert b"Hi" in await everything(running)
    assert [end.outcome for end in world.ends] == [Outcome.OK]
    assert running.call.cancelled_by is None


# --- the deadline -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, phase in PHASES.items() if not phase.backoff_s])
@pytest.mark.sampled(4)
async def test_the_deadline_ends_a_call_wherever_it_is(name: str) -> None:
    """Over all its attempts, retries, fallbacks and seats: 504, and no use in trying again. No back-off is begun that
    would last beyond it.
    """
    phase = PHASES[name]
    world, running = await begun(phase, deadline_s=0.15)
    if phase.settles:
        await asyncio.sleep(0.2)
        world.release.set()
        assert b"Hi" in await everything(running)
    else:
        await in_time(running.ended())
        world.stuck_at.clear()
        with pytest.raises(UpstreamTimeout) as caught:
            await everything(running)
        failure = caught.value
        assert (failure.status, failure.code) == (504, "upstream_timeout")
        assert failure.headers["x-should-retry"] == "false"
        assert "No answer within 0.15 s" in failure.message
        assert world.closed[0].status == 504
    assert_over(phase, world, running, Outcome.TIMEOUT_TOTAL)


@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_is_left_of_a_call_that_ended(stream: bool) -> None:
    """Not even its deadline timer, which would keep each call in memory for a quarter of an hour."""
    world = World(streamed(*COMPLETE) if stream else whole())
    pipeline = world.pipeline(deadline_s=900)
    running = await world.begin(pipeline, stream)
    assert b"Hi" in await everything(running)
    await running.ended()
    call, running_call = weakref.ref(running.call), weakref.ref(running)
    world.observed.clear()
    del running
    await turns()
    gc.collect()
    assert (call(), running_call()) == (None, None)


# --- the server stops -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PHASES)
async def test_a_server_that_stops_ends_a_call_wherever_it_is(name: str) -> None:
    """503, and the client may try again: another process answers."""
    phase = PHASES[name]
    world, running = await begun(phase)
    running.stop()
    if phase.settles:
        await turns()
        world.release.set()
        assert b"Hi" in await everything(running)
    else:
        await in_time(running.ended())
        with pytest.raises(ProxyError) as caught:
            await everything(running)
        assert (caught.value.status, caught.value.code) == (503, "overloaded")
    assert_over(phase, world, running, Outcome.CANCELLED)


# --- reasons ----------------------------------------------------------------------------------------------------------

REASONS: dict[str, tuple[Callable[[RunningCall], Any], Outcome]] = {
    "leave": (lambda running: running.leave(), Outcome.CLIENT_CLOSED),
    "stop": (lambda running: running.stop(), Outcome.CANCELLED),
    "deadline": (lambda running: cast(Any, running)._cancel(Outcome.TIMEOUT_TOTAL), Outcome.TIMEOUT_TOTAL),
}


@pytest.mark.parametrize("second", REASONS)
@pytest.mark.parametrize("first", REASONS)
async def test_the_first_reason_stands(first: str, second: str) -> None:
    """Rows and error agree, and a later reason does not stop the draining."""
    more = asyncio.Event()
    world = World(streamed(COMPLETE[0] + delta("stop"), more, USAGE_END))
    running = await world.begin(world.pipeline(), stream=True)
    await turns()
    REASONS[first][0](running)
    await turns()
    REASONS[second][0](running)
    await turns()
    assert not world.closed  # the second cancels no drain
    more.set()
    await running.ended()
    outcome = REASONS[first][1]
    assert [(end.outcome, end.usage_source) for end in world.ended] == [(outcome, "provider")]
    assert [end.outcome for end in world.ends] == [outcome]


async def test_a_reason_in_the_turn_in_which_the_call_ends_is_too_late_or_stands_alone() -> None:
    """Cancelled at each turn of its life, a call has one end, whichever it is, and its attempt one."""
    outcomes = set()
    for turn in range(40):
        world = World(streamed(*COMPLETE))
        world.turns_of_a_step = 5
        running = await world.begin(world.pipeline(), stream=True)
        await turns(turn)
        running.leave()
        await asyncio.wait_for(running.ended(), 5)
        assert len(world.ends) == len(world.closed) == 1
        assert len(world.ended) == len(world.opened) == len(running.call.attempts)
        outcomes.add(world.ends[0].outcome)
    assert outcomes == {Outcome.CLIENT_CLOSED, Outcome.OK}


# --- with the ledger itself -------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def ledger_on(store: GatedStore) -> AsyncIterator[Ledger]:
    """At the end nothing is open, held, waiting to be written or lost."""
    ledger = Ledger(store, waits=Waits(gather=0.001))
    await ledger.start()
    try:
        yield ledger
        store.gate.set()
        await eventually(lambda: not ledger.state.pending)
        assert (ledger.state.open_calls, ledger.state.reserved_nano, ledger.state.lost) == (0, 0, 0)
    finally:
        store.gate.set()
        await ledger.stop()


@pytest.mark.parametrize("seats", [1, 3])
@pytest.mark.parametrize("reason", REASONS)
async def test_a_call_that_ends_while_the_ledger_writes_leaves_nothing_open(
    tmp_path: Path, reason: str, seats: int
) -> None:
    """Nothing was sent, so it has no row, or one with its outcome and no usage."""
    store = GatedStore(tmp_path / "usage.db")
    async with ledger_on(store) as ledger:
        world = World(kind=Single)
        world.ledger = ledger
        store.gate.clear()
        running = await world.begin(world.pipeline(), n=seats)
        await eventually(store.waiting.is_set)
        await turns()
        REASONS[reason][0](running)
        await in_time(running.ended())
        assert [end.outcome for end in world.ends] == [REASONS[reason][1]]
    for row in rows(tmp_path / "usage.db", "SELECT outcome, cost_nano FROM calls"):
        assert row == {"outcome": REASONS[reason][1].value, "cost_nano": 0}
    found = rows(tmp_path / "usage.db", "SELECT outcome, cost_nano FROM attempts")
    assert all((row["outcome"], row["cost_nano"]) != ("open", None) for row in found)
    assert {row["outcome"] for row in found} <= {"cancelled", REASONS[reason][1].value}
    assert world.bodies == []


class Sending(World):
    """Sending takes some turns. `sent` is set when the request with the number `moment` begins; 0: at once."""

    def __init__(self, *answers: Any, moment: int) -> None:
        super().__init__(*answers, kind=Single, retries=1)
        self.sent = asyncio.Event()
        self.sending = 0
        self._begun, self._moment = 0, moment
        if not moment:
            self.sent.set()

    async def send(self, request: Outgoing, connect_timeout_s: float, on_sent: Callable[[], None]) -> Reply:
        self._begun += 1
        if self._begun == self._moment:
            self.sent.set()
        self.sending += 1
        try:
            await turns(4)
            reply = await super().send(request, connect_timeout_s, on_sent)
            await turns(4)
        finally:
            self.sending -= 1
        return reply

    def now(self, running: RunningCall) -> str:
        """Where the call is."""
        if self.ends:
            return "over"
        if running.call.settled is not None:
            return "settling"
        if self.sending:
            return "sending"
        return "reading" if self._begun else "opening"


async def test_calls_that_end_at_any_moment_leave_one_row_for_each_request(tmp_path: Path) -> None:
    """Two hundred calls, some with seats, ended at random: no row stays open, and none is missing. Moments are counted
    in requests and turns of the loop, which a slow machine has too.
    """
    dice, path = random.Random(3), tmp_path / "usage.db"
    sent: list[str] = []
    moments: Counter[str] = Counter()
    async with ledger_on(GatedStore(path)) as ledger:

        async def one(number: int) -> None:
            replies: list[Any] = [error(500), *(streamed(*COMPLETE) for _ in range(9))]
            world = Sending(*replies[dice.randrange(2) :], moment=dice.randrange(4))
            world.ledger = ledger
            after, reason = dice.randrange(30), REASONS[dice.choice(list(REASONS))][0]
            running = await world.begin(world.pipeline(60), True, call_id=f"c{number}", n=dice.choice([1, 3]))
            ended = asyncio.create_task(running.ended())
            await asyncio.wait({ended, asyncio.create_task(world.sent.wait())}, return_when=asyncio.FIRST_COMPLETED)
            await turns(after)
            moments[world.now(running)] += 1
            reason(running)
            world.sent.set()
            await asyncio.wait_for(ended, PATIENCE_S)
            sent.extend(attempt_id for what, attempt_id in world.log if what == "send")

        for start in range(0, 200, 20):
            await asyncio.gather(*(one(start + number) for number in range(20)))
    found = rows(path, "SELECT id, outcome, closed_ns FROM attempts")
    assert not [row for row in found if row["closed_ns"] is None or row["outcome"] == "open"]
    assert len(sent) == len(set(sent))
    assert set(sent) <= {row["id"] for row in found}
    calls = Counter(row["outcome"] for row in rows(path, "SELECT outcome FROM calls"))
    print(f"  {len(sent)} requests, {len(found)} attempts, calls: {dict(calls)}, ended while: {dict(moments)}")
    assert set(calls) == {"ok", "client_closed", "cancelled", "timeout_total"}
    assert set(moments) == {"opening", "sending", "reading", "settling", "over"}
