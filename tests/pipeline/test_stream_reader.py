"""Reading a stream: what counts as progress, as the first token, as the end; the bytes are scripted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest

from proxy.pipeline.call import Attempt, Call
from proxy.pipeline.stream_reader import AFTER_FINISH_S, DRAIN_S, StreamReader, UsageDrain
from proxy.pipeline.timing import Clock
from proxy.providers.openai import OpenAI
from proxy.routing.names import Deployment
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import UpstreamError, UpstreamTimeout, UpstreamTruncated
from proxy.schema.records import Caller, Outcome, Timeouts
from proxy.server.formats.chat_answer import DONE, sse
from proxy.upstream.upstream import Exchange

LOST = UpstreamTruncated("lost")
PING = b": ping\n\n"
USAGE = sse({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}})
TIMEOUTS = Timeouts(first_token=10, idle=20)


def delta(finish_reason: str | None = None, **said: Any) -> bytes:
    return sse({"choices": [{"index": 0, "delta": said, "finish_reason": finish_reason}]})


ROLE, TEXT, FINISH = delta(role="assistant", content=""), delta(content="Hi"), delta("stop")
FAILURE = sse({"error": {"message": "overloaded", "code": 503}})


class Script:
    """Stands in for an Exchange: hands out pieces, raises what is an error, then never answers. Each read takes
    `pause_s`. Notes each limit, and the seconds that were left of it as the read began.
    """

    def __init__(self, pieces: Iterable[bytes | Exception], pause_s: float = 0) -> None:
        self.limits: list[tuple[float, Outcome]] = []
        self.left_s: list[float] = []
        self._pause_s = pause_s
        self._pieces = iter(pieces)

    async def read(self, by: float, outcome: Outcome) -> bytes:
        self.limits.append((by, outcome))
        self.left_s.append(by - asyncio.get_running_loop().time())
        await asyncio.sleep(self._pause_s)
        piece = next(self._pieces, None)
        if isinstance(piece, Exception):
            raise piece
        if piece is None:
            await asyncio.get_running_loop().create_future()
        return piece or b""


class Reader:
    """One attempt and its stream, read from a script."""

    def __init__(self, *pieces: bytes | Exception, pause_s: float = 0) -> None:
        request = ChatRequest(model="m", messages=[], fields={})
        call = Call("call", Caller(), request, Clock(lambda: 0, lambda: 0.0))
        self.attempt = Attempt(call, Deployment("openai", OpenAI(), "m", None), request)
        self.script = Script(pieces, pause_s)
        self.exchange = cast(Exchange, self.script)
        self.reading = StreamReader(self.attempt, OpenAI().stream_decoder(request), TIMEOUTS)
        self.begun = asyncio.get_running_loop().time()

    async def next(self) -> list[str] | None:
        """The texts of the next chunks; None at the end."""
        chunks = await self.reading.next(self.exchange)
        if chunks is None:
            return None
        return [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]

    async def all(self) -> list[str]:
        """Every text to the end."""
        texts: list[str] = []
        while (more := await self.next()) is not None:
            texts += more
        return texts


async def test_the_end_marker_is_the_end_without_another_read() -> None:
    """A connection that stays open after `[DONE]` is nobody's concern."""
    reader = Reader(ROLE + TEXT, FINISH + USAGE + DONE)
    assert await reader.all() == ["", "Hi", ""]
    assert len(reader.script.limits) == 2
    assert reader.attempt.finished
    assert reader.attempt.fold.usage == {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}


@pytest.mark.parametrize(
    ("first", "commits"),
    [
        (ROLE, False),
        (PING, False),
        (sse({"choices": [], "usage": None}), False),
        (TEXT, True),
        (delta(reasoning_content="hm"), True),
        (delta(refusal="no"), True),
        (delta(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]), True),
        (ROLE + FINISH, True),
    ],
)
async def test_the_first_delta_commits(first: bytes, commits: bool) -> None:
    """The role says nothing yet; content, reasoning, a refusal, a tool call and the finish do."""
    reader = Reader(first)
    await reader.next()
    assert reader.attempt.committed is commits
    assert (reader.attempt.first_token_ms is not None) is commits


async def test_until_the_first_delta_the_limit_stands_still() -> None:
    """Neither pings nor the role move it."""
    reader = Reader(PING, ROLE, PING, TEXT)
    for _ in range(4):
        await reader.next()
    limits = reader.script.limits
    assert {outcome for _, outcome in limits} == {Outcome.TIMEOUT_FIRST_TOKEN}
    assert [by - reader.begun for by, _ in limits] == [pytest.approx(TIMEOUTS.first_token, abs=0.1)] * 4
    assert len({by for by, _ in limits}) == 1


async def test_only_events_move_the_idle_limit() -> None:
    """Bytes that make no event, pings among them, are no progress: the time they took is gone."""
    pause_s = 0.02
    reader = Reader(TEXT, TEXT, PING, PING, TEXT[:9], TEXT[9:], PING, pause_s=pause_s)
    asked_at = []
    for _ in range(7):
        asked_at.append(asyncio.get_running_loop().time())
        await reader.next()
    limits, left_s = reader.script.limits, reader.script.left_s
    assert {outcome for _, outcome in limits[1:]} == {Outcome.TIMEOUT_IDLE}
    for after_event in (1, 2, 6):
        assert limits[after_event][0] - asked_at[after_event] >= TIMEOUTS.idle - 0.001
    for later, wasted_reads in ((3, 1), (4, 2), (5, 3)):
        assert left_s[later] <= TIMEOUTS.idle - wasted_reads * pause_s + 0.001


async def test_while_nobody_reads_the_idle_limit_stands_still() -> None:
    """A client that reads slowly holds the provider back; that is not the provider's silence."""
    reader = Reader(TEXT, TEXT)
    await reader.next()
    await asyncio.sleep(0.2)
    before = asyncio.get_running_loop().time()
    await reader.next()
    assert reader.script.limits[-1][0] - before == pytest.approx(TIMEOUTS.idle, abs=0.1)


async def test_after_the_finish_little_time_is_left_for_the_usage() -> None:
    """A provider that sends none must not keep its client waiting."""
    reader = Reader(TEXT + FINISH, USAGE)
    await reader.next()
    before = asyncio.get_running_loop().time()
    await reader.next()
    assert reader.script.limits[-1][0] - before == pytest.approx(AFTER_FINISH_S, abs=0.1)


@pytest.mark.parametrize("trouble", [LOST, UpstreamTimeout("slow", Outcome.TIMEOUT_IDLE), b""])
async def test_after_the_finish_nothing_can_go_wrong(trouble: bytes | Exception) -> None:
    """A connection that breaks, stalls or ends is the end of a complete answer."""
    reader = Reader(TEXT + FINISH, trouble)
    assert await reader.all() == ["Hi", ""]


@pytest.mark.parametrize("rest", [FAILURE, b"data: {garbage}\n\n", USAGE[:20]])
async def test_what_follows_a_finish_and_makes_no_sense_is_the_end(rest: bytes) -> None:
    """The answer is there; its usage will be estimated."""
    reader = Reader(TEXT + FINISH + rest, b"")
    assert await reader.all() == ["Hi", ""]
    assert reader.attempt.fold.usage is None


@pytest.mark.parametrize("trouble", [LOST, UpstreamTimeout("slow", Outcome.TIMEOUT_IDLE)])
async def test_before_the_finish_trouble_is_told(trouble: Exception) -> None:
    """Whatever was read before it."""
    reader = Reader(TEXT, trouble)
    await reader.next()
    with pytest.raises(type(trouble)):
        await reader.next()


@pytest.mark.parametrize("rest", [b"", DONE, TEXT[:20]])
async def test_an_end_before_the_finish_is_truncated(rest: bytes) -> None:
    """Also after `[DONE]`, and in the middle of an event."""
    reader = Reader(TEXT + rest, b"")
    with pytest.raises(UpstreamTruncated):
        await reader.all()


@pytest.mark.parametrize("together", [True, False])
async def test_what_came_before_an_error_counts_however_the_bytes_arrive(together: bool) -> None:
    """An error in the same bytes as the text before it is told after that text."""
    reader = Reader(TEXT + FAILURE) if together else Reader(TEXT, FAILURE)
    assert await reader.next() == ["Hi"]
    if not together:
        assert await reader.next() == []
    with pytest.raises(UpstreamError, match="overloaded"):
        await reader.next()
    assert reader.attempt.committed
    assert reader.attempt.fold.text() == "Hi"


# --- what a client that left leaves over ------------------------------------------------------------------------------


async def drained(reader: Reader) -> tuple[bool, float]:
    """Drains what is left; whether the connection was closed, and the seconds it took."""
    closed: list[bool] = []
    stack = AsyncExitStack()
    stack.callback(closed.append, True)
    begun = asyncio.get_running_loop().time()
    await UsageDrain(stack, reader.exchange, reader.reading).drain()
    return closed == [True], asyncio.get_running_loop().time() - begun


async def test_a_leftover_is_read_to_its_usage() -> None:
    """At once where it is there, and the connection is closed."""
    reader = Reader(TEXT + FINISH, PING, USAGE + DONE)
    await reader.next()
    closed, took_s = await drained(reader)
    assert (closed, took_s < DRAIN_S / 2) == (True, True)
    assert reader.attempt.fold.usage is not None


async def test_a_leftover_that_does_not_come_is_given_up() -> None:
    """After a second."""
    reader = Reader(TEXT + FINISH)
    await reader.next()
    closed, took_s = await drained(reader)
    assert closed
    assert took_s == pytest.approx(DRAIN_S, abs=0.3)
    assert reader.attempt.fold.usage is None
