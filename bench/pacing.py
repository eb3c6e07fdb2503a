"""Performs I/O: streams in real time: the upstream's half, which writes each event at its time, and the clients' half.

An event carries the time when it was due, on the clock that all processes of a machine share. So a gateway that is late
cannot make the next event look early.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from itertools import pairwise
from typing import cast

from msgspec import Struct

from bench.answers import DONE, LAST_CHUNK, STREAM_HEAD, WrongAnswer, chunk, dechunked, event, usage_event
from bench.cases import Case
from bench.load import Round, Target, request

_DUE = re.compile(rb"at (\d+) ")
_HEAD_END = b"\r\n\r\n"
_WAIT_S = 60
_MARK_BYTES = 30  # of a due time, which two reads may share


class Pace(Struct, frozen=True):
    """So many events, one every so many seconds; the first leaves at once."""

    events: int
    every_s: float


PACES = {"paced": Pace(200, 0.02), "slow": Pace(8, 1.5)}


class Pacer:
    """Writes one stream to a client of the upstream."""

    def __init__(self, transport: asyncio.Transport, pace: Pace) -> None:
        self._transport = transport
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._begun_s = self._loop.time()  # in whole milliseconds with uvloop, like its timers
        transport.write(STREAM_HEAD + chunk(event({"role": "assistant", "content": ""})))
        self._tick(0)

    def _tick(self, number: int) -> None:
        """uvloop's timers fire a little early at times; what counts is when the event was due."""
        if self._transport.is_closing():
            return
        due_s = self._begun_s + number * self._pace.every_s
        self._transport.write(chunk(event({"content": f"at {int(due_s * 1e6)} "})))
        number += 1
        if number < self._pace.events:
            self._loop.call_at(self._begun_s + number * self._pace.every_s, self._tick, number)
        else:
            end = event({}, "stop") + usage_event(self._pace.events) + DONE
            self._transport.write(chunk(end) + LAST_CHUNK)


class PacedRound(Struct, frozen=True):
    """`round`: its latencies are those of the first event; `gaps_ms`: how much longer the pauses between two events
    were than the upstream's, sorted."""

    round: Round
    gaps_ms: list[float]

    def gap_ms(self, share: float) -> float:
        return self.gaps_ms[min(len(self.gaps_ms) - 1, int(share * len(self.gaps_ms)))]


async def run_paced(target: Target, case: Case, opened: Callable[[], None]) -> PacedRound:
    """One round of paced streams, each begun at its own time however late others are. Calls `opened` when all of them
    have had their first event. Raises WrongAnswer, OSError, TimeoutError."""
    loop = asyncio.get_running_loop()
    started_s = time.monotonic()
    streams: list[_Stream] = []
    asked = request(target, case)
    try:
        async with asyncio.timeout(_WAIT_S):
            for number in range(case.requests):
                due_s = started_s + number * case.spread_s / case.requests
                await asyncio.sleep(due_s - time.monotonic())
                stream = _Stream(asked, PACES[case.model].events, due_s)
                streams.append(stream)
                await loop.create_connection(lambda stream=stream: stream, "127.0.0.1", target.port)  # type: ignore[misc]
            await asyncio.gather(*(stream.begun for stream in streams))
            opened()
            await asyncio.gather(*(stream.finished for stream in streams))
    finally:
        for stream in streams:
            stream.close()
    gaps_ms = sorted(gap for stream in streams for gap in stream.gaps_ms())
    firsts_s = sorted(stream.first_s for stream in streams)
    return PacedRound(Round(time.monotonic() - started_s, firsts_s, streams[0].answer_bytes), gaps_ms)


class _Stream(asyncio.Protocol):
    """One stream on a connection of its own. `due_s`: when its request was to leave."""

    def __init__(self, asked: bytes, events: int, due_s: float) -> None:
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = loop.create_future()
        self.finished: asyncio.Future[None] = loop.create_future()
        self.first_s = 0.0
        self._asked, self._events, self._due_s = asked, events, due_s
        self._received = bytearray()
        self._searched = 0
        self._arrived: list[tuple[float, int]] = []
        self._transport: asyncio.Transport | None = None

    @property
    def answer_bytes(self) -> int:
        return len(self._received)

    def gaps_ms(self) -> list[float]:
        return [
            (later_s - earlier_s) * 1e3 - (due - before) / 1e3
            for (earlier_s, before), (later_s, due) in pairwise(self._arrived)
        ]

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        for each in (self.begun, self.finished):
            if not each.cancel() and not each.cancelled():
                each.exception()  # the first of them was raised

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._transport.write(self._asked)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or WrongAnswer(f"the connection closed after {len(self._arrived)} of {self._events} events"))

    def data_received(self, data: bytes) -> None:
        now_s = time.monotonic()
        self._received += data
        for found in _DUE.finditer(self._received, self._searched):
            self._arrived.append((now_s, int(found[1])))
            self._searched = found.end()
        self._searched = max(self._searched, len(self._received) - _MARK_BYTES)
        if self._arrived and not self.begun.done():
            self.first_s = now_s - self._due_s
            self.begun.set_result(None)
        if self._received.endswith(LAST_CHUNK):
            self._complete()
        elif not self._arrived and not b"HTTP/1.1 200 ".startswith(self._received[:13]):
            self._fail(WrongAnswer(self._received[:500].decode(errors="replace")))

    def _complete(self) -> None:
        head, _, body = bytes(self._received).partition(_HEAD_END)
        try:
            text = dechunked(body)
        except ValueError:
            text = b""
        due = [int(each) for each in _DUE.findall(text)]
        if due != [each for _, each in self._arrived] or len(due) != self._events or DONE.strip() not in text[-50:]:
            self._fail(WrongAnswer(f"{len(due)} of {self._events} events: {head[:100]!r} {text[-200:]!r}"))
        elif not self.finished.done():
            self.finished.set_result(None)

    def _fail(self, error: Exception) -> None:
        for each in (self.begun, self.finished):
            if not each.done():
                each.set_exception(error)
