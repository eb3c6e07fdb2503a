"""Orchestrates: reads one upstream's stream, from bytes to chunks, and records its progress on the attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from functools import partial
from itertools import chain
from typing import Any, cast

from proxy.pipeline.attempt import Attempt
from proxy.pipeline.off_loop import LARGE_BYTES, OffLoop
from proxy.providers.base.answers import json_or_none
from proxy.providers.base.contract import HTTPResponse, StreamDecoder
from proxy.providers.base.reading import parse
from proxy.schema.chat import ChatChunk, ChatResponse, TextChunk
from proxy.schema.errors import UpstreamError
from proxy.schema.records import Outcome, Timeouts
from proxy.schema.sse import Event, EventFraming, Events
from proxy.schema.unfold import chunks_of
from proxy.upstream.inflate import MEMBER, unzipped
from proxy.upstream.upstream import MAX_ANSWER_BYTES, Exchange
from proxy.upstream.whole_json import is_whole_json

DRAIN_S = 1.0  # wait for usage after the finish, if the client has left
MAX_STREAM_BYTES = 512 * 1024 * 1024  # twice the size of 100,000 tokens with 20 log probabilities each
_BOM = b"\xef\xbb\xbf"
_BEGINNING = 4096  # white space that may come before the first event
_FEW = 2  # events that cost less one by one than as a run
AFTER_FINISH_S = 5.0  # wait for usage and the end marker after the finish, at most


class _Unfolded:
    """The decoder of an answer that arrived whole: nothing is missing."""

    finished = done = True

    def feed(self, event: Event) -> list[ChatChunk]:
        return []

    def texts(self, events: Events, at: int) -> TextChunk | None:
        return None

    def close(self) -> list[ChatChunk]:
        return []


class StreamReader:
    """The state of one stream as it is read."""

    def __init__(
        self, attempt: Attempt, decoder: StreamDecoder, timeouts: Timeouts, exchange: Exchange, off_loop: OffLoop
    ) -> None:
        self._attempt = attempt
        self._decoder: StreamDecoder = decoder
        self._timeouts = timeouts
        self._exchange = exchange
        self._off_loop = off_loop
        self._framing = EventFraming()
        self._now = asyncio.get_running_loop().time
        self._progress_at = self._now()
        self._first_by = self._progress_at + timeouts.first_token
        self._start = bytearray()  # of a stream, before it is recognized as one; or the whole answer so far
        self._is_whole: bool | None = None
        self._bytes = 0
        self._ended = False
        self._failure: UpstreamError | None = None
        self.is_large = False  # the last chunks may hold a text of megabytes
        self._has_failed_late = False  # an error came after the finish
        self._has_several = attempt.request.n > 1  # choices, which need not finish together

    async def next(self) -> list[ChatChunk] | None:
        """The chunks of the next bytes; None at the end. Raises UpstreamError if the stream ends before the answer.

        After the finish nothing is an error: a connection that breaks or stalls then just ends the stream.
        """
        if self._failure is not None and not self._decoder.finished:
            raise self._failure
        if self._failure is not None or self._ended or self._decoder.done:
            return self._note(rest) if (rest := self._decoder.close()) else None
        try:
            piece = await self._exchange.read(*self._limit())
        except UpstreamError:
            if not self._decoder.finished and not (self._is_whole and await is_whole_json(self._start)):
                raise
            piece = b""
        if piece:
            self._bytes += len(piece)
            if self._bytes > MAX_STREAM_BYTES:
                raise UpstreamError(f"The provider sent a stream of more than {MAX_STREAM_BYTES} bytes.")
            if self._is_whole is not False and not (piece := self._begin(piece)):
                return []
            self.is_large = self._framing.pending > LARGE_BYTES
            if not self.is_large:
                chunks = self._note(self._decode(self._framing.take(piece)))
            else:
                chunks = self._note(await self._decode_large(piece))
            if self._attempt.native is not None:
                self._attempt.native.add(piece, self._decoder.finished)
            return chunks
        self._ended = True
        if self._is_whole:
            return self._note(await self._unfolded())
        chunks = self._note(self._decode(self._framing.end()))
        if self._failure is not None and self._failure.upstream_status is None:
            self._failure = None  # a partial event at the end: truncated, unless the answer was complete
        return chunks

    def _begin(self, piece: bytes) -> bytes:
        """The bytes of a stream; b"" as long as it is not recognized as one. Its first byte decides, not its content
        type: a whole answer in JSON is collected until it is complete, and so is gzip that no header names.
        """
        self._start += piece
        if self._is_whole is None:
            start = bytes(self._start[:_BEGINNING])
            first = b"" if _BOM.startswith(start) else start.removeprefix(_BOM).lstrip()[:1]
            if not first and len(self._start) < _BEGINNING:
                return b""
            if first == b"<":
                raise self._exchange.no_stream()
            self._is_whole = first in (b"{", b"[", MEMBER[:1])
        if self._is_whole:
            if len(self._start) > MAX_ANSWER_BYTES:
                raise UpstreamError(f"The provider sent an answer of more than {MAX_ANSWER_BYTES} bytes.")
            return b""
        begun, self._start = bytes(self._start), bytearray()
        return begun

    async def _unfolded(self) -> list[ChatChunk]:
        """The chunks of a whole answer. Several objects in a row are events."""
        body, self._start = unzipped(bytes(self._start)), bytearray()
        answer = await self._off_loop.run(len(body), partial(self._whole_answer, body))
        self._attempt.native = None  # the client waits for events as the vendor writes them, and these are none
        if answer is None:
            self._is_whole = False
            events = self._framing.take(body)
            events.extend(self._framing.end())
            return self._decode(events)
        self._decoder = _Unfolded()
        chunks = [chunk for batch in chunks_of(answer) for chunk in batch]
        if (usage := answer.get("usage")) is not None:
            chunks[-1]["usage"] = usage
        return chunks

    def _whole_answer(self, body: bytes) -> ChatResponse | None:
        """The answer in a body; None if that is not one JSON value."""
        if json_or_none(body.removeprefix(_BOM)) is None:
            return None
        response = HTTPResponse(self._exchange.status, self._exchange.headers, body)
        return cast(ChatResponse, parse(self._attempt.deployment.provider, self._attempt.request, response))

    async def pause(self, wait: Awaitable[None]) -> None:
        """Waits for a slow client. The idle time-out is suspended during the wait."""
        paused_at = self._now()
        await wait
        self._progress_at += self._now() - paused_at

    async def drain(self) -> None:
        """Reads on for at most DRAIN_S after the finish, to get the exact usage of an abandoned stream."""
        try:
            async with asyncio.timeout(DRAIN_S):
                while not self._attempt.tally.is_counted and await self.next() is not None:
                    continue
        except (TimeoutError, UpstreamError):
            return

    def _limit(self) -> tuple[float, Outcome]:
        """When to give up, and with which outcome. Comments, pings and empty chunks do not reset the idle time-out."""
        if self._decoder.finished:
            wait_s = DRAIN_S if self._has_failed_late else AFTER_FINISH_S
            return self._progress_at + min(wait_s, self._timeouts.idle), Outcome.TIMEOUT_IDLE
        if self._attempt.committed:
            return self._progress_at + self._timeouts.idle, Outcome.TIMEOUT_IDLE
        return self._first_by, Outcome.TIMEOUT_FIRST_TOKEN

    async def _decode_large(self, piece: bytes) -> list[ChatChunk]:
        """The chunks of bytes that may complete a large event."""
        try:
            work = partial(self._feed_and_decode, piece)
            return await self._off_loop.run(self._framing.pending if b"\n" in piece else 0, work)
        except asyncio.CancelledError:
            self._ended = True  # the work continues unattended
            raise

    def _feed_and_decode(self, piece: bytes) -> list[ChatChunk]:
        return self._decode(self._framing.take(piece))

    def _decode(self, events: Events) -> list[ChatChunk]:
        chunks: list[ChatChunk] = []
        at = 0
        while at < len(events):
            if at + _FEW < len(events) and (run := self._decoder.texts(events, at)) is not None:
                chunks.append(cast(ChatChunk, run))
                at += len(run.pieces)
                continue
            at += 1
            try:
                chunks += self._decoder.feed(events[at - 1])
            except UpstreamError as error:
                if self._decoder.finished:  # the answer is whole, and its usage may follow, or be in this event
                    self._has_failed_late = True
                    chunks += [{"choices": [], "usage": error.usage}] if error.usage is not None else []
                    continue
                self._failure = error  # raised by the next call: chunks before it in the same bytes still count
                break
        return chunks

    def _note(self, chunks: list[ChatChunk]) -> list[ChatChunk]:
        attempt = self._attempt
        attempt.tally.add_all(chunks)
        is_progress = any(isinstance(chunk, TextChunk) or _says_something(chunk) for chunk in chunks)
        if is_progress:
            self._progress_at = self._now()
        if (is_finished := self._decoder.finished) or self._has_several:
            said = (chunk for chunk in chunks if not isinstance(chunk, TextChunk))
            attempt.note_finishes(choice for chunk in said for choice in chunk.get("choices", ()))
        if is_finished:
            attempt.note_finished()
        if not attempt.committed and (is_finished or is_progress):
            attempt.note_first_token()
        return chunks


def _says_something(chunk: ChatChunk) -> bool:
    return any(choice.get("delta") for choice in chunk.get("choices", ()))


def in_turns(chunks: list[Any]) -> Iterator[list[ChatChunk]]:
    """The same chunks, of which each is written in a turn of its own, and a long text in several."""
    for chunk in chain.from_iterable(map(_by_choice, chunks)):
        index, text = _only_text(chunk)
        at = 0
        while len(text) - at > LARGE_BYTES:
            yield [cast(ChatChunk, TextChunk(index, text[at : at + LARGE_BYTES]))]
            at += LARGE_BYTES
        yield [_with_text(chunk, text[at:]) if at else chunk]


def _by_choice(chunk: Any) -> list[Any]:
    """A chunk of each entry of a chunk with several; usage stays with the last."""
    if type(chunk) is TextChunk or len(choices := chunk["choices"]) < 2:
        return [chunk]
    others = {name: value for name, value in chunk.items() if name != "usage"}
    return [*({**others, "choices": [each]} for each in choices[:-1]), {**chunk, "choices": choices[-1:]}]


def _only_text(chunk: Any) -> tuple[int, str]:
    """The choice and the text of a chunk that says nothing else; no text for any other chunk."""
    if type(chunk) is TextChunk:
        return chunk.index, chunk.text
    choices = chunk["choices"]
    delta = (choices[0].get("delta") or {}) if len(choices) == 1 else {}
    if not delta or not delta.keys() <= {"role", "content"}:
        return 0, ""
    return choices[0].get("index", 0), delta.get("content") or ""


def _with_text(chunk: Any, text: str) -> ChatChunk:
    if type(chunk) is TextChunk:
        return cast(ChatChunk, TextChunk(chunk.index, text))
    (choice,) = chunk["choices"]
    return cast(ChatChunk, {**chunk, "choices": [{**choice, "delta": {**choice["delta"], "content": text}}]})
