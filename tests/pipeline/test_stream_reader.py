"""Reading a stream: what counts as progress, as the first token, as the end; the bytes are scripted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import pytest

from proxy.metering.tokens import estimate
from proxy.pipeline.attempt import Attempt
from proxy.pipeline.call import Call
from proxy.pipeline.native import NativeAnswer
from proxy.pipeline.off_loop import LARGE_BYTES, OffLoop
from proxy.pipeline.stream_reader import AFTER_FINISH_S, DRAIN_S, MAX_STREAM_BYTES, StreamReader, in_turns
from proxy.pipeline.timing import Clock
from proxy.providers.anthropic import Anthropic
from proxy.providers.base.contract import Provider
from proxy.providers.openai import OpenAI
from proxy.routing.deployment import Deployment
from proxy.schema.chat import ChatRequest, TextChunk
from proxy.schema.errors import UpstreamError, UpstreamTimeout, UpstreamTruncated
from proxy.schema.records import Caller, Outcome, Timeouts, Tokens
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

    status = 200

    def __init__(self, pieces: Iterable[bytes | Exception], pause_s: float = 0) -> None:
        self.headers: dict[str, str] = {}
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
    """One attempt and its stream, read from a script. Its answer has begun."""

    def __init__(self, *pieces: bytes | Exception, pause_s: float = 0, provider: Provider | None = None) -> None:
        provider = provider or OpenAI()
        request = ChatRequest(model="m", messages=[], fields={})
        call = Call("call", Caller(), request, Clock(lambda: 0, lambda: 0.0))
        self.attempt = Attempt(call, Deployment("vendor", provider, "m", None), request)
        self.attempt.note_granted()
        self.attempt.note_accepted(200, None)
        self.script = Script(pieces, pause_s)
        decoder = provider.stream_decoder(request)
        self.reading = StreamReader(self.attempt, decoder, TIMEOUTS, cast(Exchange, self.script), OffLoop())
        self.begun = asyncio.get_running_loop().time()

    async def next(self) -> list[str] | None:
        """The texts of the next chunks; None at the end."""
        chunks = await self.reading.next()
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
    """A connection that stays open after `[DONE]` does not matter."""
    reader = Reader(ROLE + TEXT, FINISH + USAGE + DONE)
    assert await reader.all() == ["", "Hi", ""]
    assert len(reader.script.limits) == 2
    assert reader.attempt.finished
    assert reader.attempt.tally.usage is not None
    assert reader.attempt.tally.usage.billed == Tokens(input=3, output=1)


@pytest.mark.parametrize(
    ("first", "commits"),
    [
        (ROLE, False),
        (PING, False),
        (sse({"choices": [], "usage": None}), False),
        (TEXT, True),
        (delta(reasoning_content="hm"), True),
        (delta(refusal="no"), True),
        (delta(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}]), True),
        (delta(tool_calls=[{"index": 0, "id": "c", "function": {"arguments": "{"}}]), False),
        (ROLE + FINISH, True),
    ],
)
async def test_the_first_delta_commits(first: bytes, commits: bool) -> None:
    """The role does not commit; content, reasoning, a refusal, a tool call with its name and the finish do."""
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


EMPTY = delta()  # a chunk that says nothing
NAMED_PING = b'event: ping\ndata: {"type": "ping"}\n\n'
NULL_USAGE = sse({"choices": [], "usage": None})


@pytest.mark.parametrize("noise", [PING, EMPTY, NULL_USAGE, TEXT[:9]], ids=["comment", "empty", "no choice", "half"])
async def test_only_what_says_something_moves_the_idle_limit(noise: bytes) -> None:
    """Pings, empty chunks and incomplete events are not progress and do not extend the limit."""
    pause_s = 0.02
    more = TEXT[9:12] if noise == TEXT[:9] else noise
    reader = Reader(TEXT, TEXT, noise, more, more, pause_s=pause_s)
    asked_at = []
    for _ in range(5):
        asked_at.append(asyncio.get_running_loop().time())
        await reader.next()
    limits, left_s = reader.script.limits, reader.script.left_s
    assert {outcome for _, outcome in limits[1:]} == {Outcome.TIMEOUT_IDLE}
    for after_text in (1, 2):  # whose text came a pause after it was asked for
        assert limits[after_text][0] - asked_at[after_text - 1] >= TIMEOUTS.idle + pause_s - 0.001
    assert limits[2][0] == limits[3][0] == limits[4][0]
    for later, wasted_reads in ((3, 1), (4, 2)):
        assert left_s[later] <= TIMEOUTS.idle - wasted_reads * pause_s + 0.001


@pytest.mark.parametrize("said", [TEXT, delta(reasoning_content="hm"), delta(refusal="no"), delta(content="a", x=1)])
async def test_a_delta_moves_the_idle_limit(said: bytes) -> None:
    """Whatever kind of text it has."""
    reader = Reader(TEXT, said, PING, pause_s=0.02)
    for _ in range(3):
        await reader.next()
    (_, (first, _), (second, _)) = reader.script.limits
    assert second > first


async def test_named_pings_are_no_progress() -> None:
    """Anthropic sends them through every pause; a stream that only pings ends by its idle time-out."""
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    text = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}
    start = {"type": "message_start", "message": {"id": "m", "role": "assistant", "usage": {"input_tokens": 1}}}
    begin = b"".join(b"event: " + str(each["type"]).encode() + b"\n" + sse(each) for each in (start, block, text))
    reader = Reader(begin, NAMED_PING, NAMED_PING, NAMED_PING, pause_s=0.02, provider=Anthropic())
    assert "Hi" in (await reader.next() or [])
    for _ in range(3):
        assert await reader.next() == []
    limits = reader.script.limits
    assert {outcome for _, outcome in limits[1:]} == {Outcome.TIMEOUT_IDLE}
    assert len({by for by, _ in limits[1:]}) == 1


async def test_while_nobody_reads_the_idle_limit_stands_still() -> None:
    """A slow client blocks the provider; that is not the provider's silence."""
    reader = Reader(TEXT, TEXT)
    await reader.next()
    read: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.2, read.set_result, None)
    await reader.reading.pause(read)
    before = asyncio.get_running_loop().time()
    await reader.next()
    assert reader.script.limits[-1][0] - before == pytest.approx(TIMEOUTS.idle, abs=0.1)


async def test_time_that_the_provider_wasted_is_not_given_back_by_a_slow_client() -> None:
    """Only the client's own time is added."""
    reader = Reader(TEXT, PING, PING, pause_s=0.1)
    await reader.next()
    await reader.next()
    read: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    read.set_result(None)
    await reader.reading.pause(read)
    await reader.next()
    assert reader.script.left_s[-1] <= TIMEOUTS.idle - 0.09


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
    """The answer is complete; its usage will be estimated."""
    reader = Reader(TEXT + FINISH + rest, b"")
    assert await reader.all() == ["Hi", ""]
    assert reader.attempt.tally.usage is None


@pytest.mark.parametrize("trouble", [LOST, UpstreamTimeout("slow", Outcome.TIMEOUT_IDLE)])
async def test_before_the_finish_trouble_is_told(trouble: Exception) -> None:
    """Whatever was read before it."""
    reader = Reader(TEXT, trouble)
    await reader.next()
    with pytest.raises(type(trouble)):
        await reader.next()


@pytest.mark.parametrize("rest", [b"", TEXT[:20]])
async def test_an_end_before_the_finish_is_truncated(rest: bytes) -> None:
    """Also in the middle of an event."""
    reader = Reader(TEXT + rest, b"")
    with pytest.raises(UpstreamTruncated):
        await reader.all()


@pytest.mark.parametrize("together", [True, False])
async def test_what_came_before_an_error_counts_however_the_bytes_arrive(together: bool) -> None:
    """An error is raised after the text that precedes it, even in the same bytes."""
    reader = Reader(TEXT + FAILURE) if together else Reader(TEXT, FAILURE)
    assert await reader.next() == ["Hi"]
    if not together:
        assert await reader.next() == []
    with pytest.raises(UpstreamError, match="overloaded"):
        await reader.next()
    assert reader.attempt.committed
    assert reader.attempt.tally.output_tokens == estimate("Hi")


# --- the vendor's own bytes -------------------------------------------------------------------------------------------


async def test_native_bytes_wait_from_the_finish_on() -> None:
    """Earlier bytes pass as received, including pings; the rest waits for the settlement."""
    reader = Reader(TEXT + PING, FINISH[:10], FINISH[10:] + USAGE, DONE)
    reader.attempt.native = native = NativeAnswer()
    await reader.next()
    assert native.take() == TEXT + PING
    await reader.next()
    assert native.take() == b""
    await reader.all()
    assert native.take() == b""
    assert native.tail() == FINISH + USAGE + DONE


# --- what a client that left leaves over ------------------------------------------------------------------------------


async def drained(reader: Reader) -> float:
    """Drains what is left; the seconds it took."""
    begun = asyncio.get_running_loop().time()
    await reader.reading.drain()
    return asyncio.get_running_loop().time() - begun


async def test_what_a_client_left_is_read_to_its_usage() -> None:
    """At once where it is there, and no further."""
    reader = Reader(TEXT + FINISH, PING, USAGE, b"more")
    await reader.next()
    assert await drained(reader) < DRAIN_S / 2
    assert reader.attempt.tally.usage is not None
    assert len(reader.script.limits) == 3


async def test_a_usage_that_does_not_come_is_given_up() -> None:
    """After a second."""
    reader = Reader(TEXT + FINISH)
    await reader.next()
    assert await drained(reader) == pytest.approx(DRAIN_S, abs=0.3)
    assert reader.attempt.tally.usage is None


@pytest.mark.parametrize("rest", [LOST, FAILURE + DONE, b""])
async def test_a_stream_that_breaks_while_it_is_drained_is_the_end(rest: bytes | Exception) -> None:
    """Nobody is told."""
    reader = Reader(TEXT + FINISH, rest)
    await reader.next()
    assert await drained(reader) < DRAIN_S / 2


@pytest.mark.parametrize("is_apart", [True, False])
@pytest.mark.slow
async def test_an_error_after_the_finish_does_not_hide_the_usage_behind_it(is_apart: bool) -> None:
    """The answer is whole; a second is enough to wait for the rest."""
    rest = (FAILURE, USAGE + DONE) if is_apart else (FAILURE + USAGE + DONE,)
    reader = Reader(TEXT + FINISH, *rest)
    await reader.all()
    assert reader.attempt.tally.usage is not None
    silent = Reader(TEXT + FINISH, FAILURE)
    await silent.reading.next()
    await silent.reading.next()
    await drained(silent)
    assert silent.script.left_s[-1] <= DRAIN_S < AFTER_FINISH_S


async def test_an_error_after_the_finish_may_carry_the_usage_itself() -> None:
    """In the same event."""
    counted = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    reader = Reader(TEXT + FINISH + sse({"error": {"message": "late", "code": 502}, "usage": counted}) + DONE)
    await reader.all()
    assert reader.attempt.tally.usage is not None
    assert reader.attempt.tally.usage.billed.total == 4


async def test_a_stream_without_end_is_cut_off() -> None:
    """Comments count too: the limit is on what was read, not on what it meant."""
    comment = b":" + b"x" * (4 * 1024 * 1024 - 2) + b"\n"
    reader = Reader(ROLE + TEXT, *[comment] * (MAX_STREAM_BYTES // len(comment) + 1))
    with pytest.raises(UpstreamError, match=f"a stream of more than {MAX_STREAM_BYTES} bytes"):
        await reader.all()
    assert len(reader.script.limits) == MAX_STREAM_BYTES // len(comment) + 1


@pytest.mark.parametrize("size", [LARGE_BYTES // 2, 2 * LARGE_BYTES])
async def test_a_large_event_reads_like_a_small_one(size: int) -> None:
    """It is decoded in a thread; its order among the others, and an error behind it, stay the same."""
    data = ROLE + TEXT + delta(content="x" * size) + TEXT + FAILURE
    pieces = [data[at : at + 65_536] for at in range(0, len(data), 65_536)]
    reader = Reader(*pieces)
    texts: list[str] = []
    with pytest.raises(UpstreamError, match="overloaded"):
        while (more := await reader.next()) is not None:
            texts += more
    assert "".join(texts) == "Hi" + "x" * size + "Hi"


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
async def test_a_byte_order_mark_may_be_cut(cut: int) -> None:
    """Before a whole answer, and before a stream."""
    whole = b'{"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}'
    for body in (whole, TEXT + FINISH):
        data = b"\xef\xbb\xbf" + body
        reader = Reader(data[:cut], data[cut:], b"")
        assert "".join(await reader.all()) == "Hi"


def test_a_long_text_is_written_in_turns():
    """Nothing of it is lost, and what is not a long text stays as it is."""
    text = "Gr\u00f6\u00dfe \U0001f600" * 100_000
    usage: Any = {"choices": [], "usage": {"total_tokens": 3}}
    chunks: Any = [TextChunk(1, "short"), TextChunk(1, text), usage]
    turns: Any = list(in_turns(chunks))
    assert all(len(turn) == 1 for turn in turns)
    assert turns[0] == [chunks[0]] and turns[-1] == [usage]
    long = [turn[0] for turn in turns[1:-1]]
    assert {each.index for each in long} == {1} and max(len(each.text) for each in long) == LARGE_BYTES
    assert "".join(each.text for each in long) == text


def test_a_long_text_beside_other_things_is_written_in_turns_too():
    """What came with it comes with its last part; a text beside thoughts stays as it is."""
    text, finish = "\u6f22\u5b57 " * 200_000, {"finish_reason": "stop", "logprobs": None}
    chunk: Any = {"id": "a", "choices": [{"index": 2, "delta": {"role": "assistant", "content": text}, **finish}]}
    *parts, (last,) = cast(Any, list(in_turns([chunk])))
    (choice,) = last["choices"]
    assert last["id"] == "a" and {name: choice[name] for name in finish} == finish
    assert "".join(part.text for (part,) in parts) + choice["delta"]["content"] == text
    beside: Any = {"choices": [{"index": 0, "delta": {"content": text, "reasoning_content": "x"}}]}
    assert list(in_turns([beside])) == [[beside]]
    two: Any = {"choices": [{"index": 0, "delta": {"content": "x"}}, {"index": 0, "delta": {}}], "usage": {}}
    assert list(in_turns([two])) == [[{"choices": [two["choices"][0]]}], [{**two, "choices": two["choices"][1:]}]]
