"""Orchestrates: reading one upstream's stream, from bytes to chunks, and noting on the attempt what is seen."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from proxy.pipeline.call import Attempt
from proxy.providers.base.contract import StreamDecoder
from proxy.schema.chat import ChatChunk
from proxy.schema.errors import UpstreamError
from proxy.schema.records import Outcome, Timeouts
from proxy.schema.sse import Event, EventFraming
from proxy.upstream.upstream import Exchange

DRAIN_S = 1.0  # after the finish, how long the usage of a client that left is waited for
MAX_STREAM_BYTES = 512 * 1024 * 1024  # 100,000 tokens with 20 log probabilities each are half; its text is kept
AFTER_FINISH_S = 5.0  # after the finish, how long usage and end marker are waited for at most


class StreamReader:
    """The state of one stream as it is read."""

    def __init__(self, attempt: Attempt, decoder: StreamDecoder, timeouts: Timeouts) -> None:
        self._attempt = attempt
        self._decoder = decoder
        self._timeouts = timeouts
        self._framing = EventFraming()
        self._now = asyncio.get_running_loop().time
        self._paused_at = self._progress_at = self._now()
        self._first_by = self._progress_at + timeouts.first_token
        self._bytes = 0
        self._ended = False
        self._failure: UpstreamError | None = None

    async def next(self, exchange: Exchange) -> list[ChatChunk] | None:
        """The chunks of the next bytes, None at the end. Raises UpstreamError when it ends before the answer does.

        Once the finish is here nothing can go wrong any more: a connection that breaks or stalls then is the end.
        """
        if self._failure is not None and not self._decoder.finished:
            raise self._failure
        if self._failure is not None or self._ended or self._decoder.done:
            self._decoder.close()
            return None
        self._progress_at += self._now() - self._paused_at  # a slow client held the upstream back: its time stood still
        try:
            piece = await exchange.read(*self._limit())
        except UpstreamError:
            if not self._decoder.finished:
                raise
            piece = b""
        self._paused_at = self._now()
        if piece:
            self._bytes += len(piece)
            if self._bytes > MAX_STREAM_BYTES:
                raise UpstreamError(f"The provider sent a stream of more than {MAX_STREAM_BYTES} bytes.")
            chunks = self._note(self._framing.feed(piece))
            if self._attempt.native is not None:
                self._attempt.native.add(piece, self._decoder.finished)
            return chunks
        self._ended = True
        chunks = self._note(self._framing.close())
        if self._failure is not None and self._failure.upstream_status is None:
            self._failure = None  # half an event at the end: truncated, unless the answer was complete
        return chunks

    def _limit(self) -> tuple[float, Outcome]:
        """Comments and pings are not progress: only events push the idle limit on."""
        if self._decoder.finished:
            return self._progress_at + min(AFTER_FINISH_S, self._timeouts.idle), Outcome.TIMEOUT_IDLE
        if self._attempt.committed:
            return self._progress_at + self._timeouts.idle, Outcome.TIMEOUT_IDLE
        return self._first_by, Outcome.TIMEOUT_FIRST_TOKEN

    def _note(self, events: list[Event]) -> list[ChatChunk]:
        if events:
            self._progress_at = self._paused_at
        chunks: list[ChatChunk] = []
        for event in events:
            try:
                chunks += self._decoder.feed(event)
            except UpstreamError as error:
                self._failure = error  # raised by the next call: what came before it in the same bytes still counts
                break
        for chunk in chunks:
            self._attempt.fold.add(chunk)
        self._attempt.finished = self._decoder.finished
        if not self._attempt.committed and (self._decoder.finished or any(map(_has_delta, chunks))):
            self._attempt.note_first_token()
        return chunks


def _has_delta(chunk: ChatChunk) -> bool:
    return any(choice.get("delta") for choice in chunk.get("choices", []))


class UsageDrain:
    """A finished stream whose client left: what is still to come is its usage."""

    def __init__(self, stack: AsyncExitStack, exchange: Exchange, reading: StreamReader) -> None:
        self._stack = stack
        self._exchange = exchange
        self._reading = reading

    async def drain(self) -> None:
        """Reads on for at most DRAIN_S, then closes the connection."""
        async with self._stack:
            try:
                async with asyncio.timeout(DRAIN_S):
                    while await self._reading.next(self._exchange) is not None:
                        continue
            except (TimeoutError, UpstreamError):
                return
