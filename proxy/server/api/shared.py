"""Performs I/O: calls that several clients share: one request pays for the answer, its repeats join or get a replay.

The call runs in a task of its own, so that it can outlive the client that began it. Every client, including the first,
reads the recording of the call.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Protocol

import structlog
from litestar.types import Receive, Scope, Send
from msgspec import Struct

from proxy.metering.ledger import Ledger
from proxy.pipeline.call import Call
from proxy.pipeline.format import CutShort, Format
from proxy.pipeline.idempotency import Replays
from proxy.pipeline.labels import labels
from proxy.pipeline.pipeline import Pipeline
from proxy.pipeline.recording import KeptAnswer, Reader, Recording
from proxy.pipeline.running import ClientLeft, stopping
from proxy.pipeline.sharing import Share, Sharing, without_patience
from proxy.schema.errors import ProxyError, UpstreamError
from proxy.schema.records import NO_LABELS, CallEnd, Caller, CallOpen, Labels, Outcome
from proxy.server.api.answers import header_lines, send_json
from proxy.server.api.replies import (
    HEADERS_AFTER_S,
    cut_short,
    facts_of,
    frames_of,
    identity_of,
    internal_error,
    send_stream,
)
from proxy.server.api.request import LeaveWatch, Places
from proxy.server.http1.peer import EXTENSION, Peer, peer_of

_PIECE_BYTES = 64 * 1024  # of a replayed stream, sent while the client reads
_NO_COST = {"x-proxy-cost-usd": "0.000000000"}
_OF_THE_CALL = ("x-request-id", "x-ratelimit-")  # headers that a repeat does not get


class Live(Protocol):
    """The parts of the running configuration that a call needs."""

    @property
    def pipeline(self) -> Pipeline: ...
    @property
    def sharing(self) -> Sharing: ...
    @property
    def ledger(self) -> Ledger: ...


class Asked(Struct):
    """One request; its `body` is dropped once it is read, because the answer may take minutes."""

    call_id: str
    caller: Caller
    path: str
    headers: Mapping[str, str]
    body: bytes
    format: Format


class SharedCalls:
    """`live` lends the current configuration, `replays` the calls in flight; `count` counts the repeats by kind."""

    def __init__(
        self,
        live: Callable[[], AbstractContextManager[Live]],
        replays: Callable[[], Replays],
        places: Places,
        log: structlog.typing.FilteringBoundLogger,
        count: Callable[[str], None],
        headers_after_s: float = HEADERS_AFTER_S,
    ) -> None:
        self.places = places
        self._live = live
        self._replays = replays
        self._log = log
        self._count = count
        self._headers_after_s = headers_after_s

    async def share(self, sharing: Sharing, asked: Asked) -> Share | None:
        """As `Sharing.share`."""
        find = partial(sharing.share, asked.caller, asked.path, asked.headers, asked.body)
        return await self._replays().off_loop.run(len(asked.body), find)

    async def serve(
        self, share: Share, asked: Asked, scope: Scope, receive: Receive, send: Send, *, alone: bool
    ) -> None:
        """Answers one client. Raises ProxyError before anything is sent, and ClientLeft."""
        with ExitStack() as place:
            place.enter_context(self.places)
            replays = self._replays()
            recording = replays.join(share)
            buying = None
            if recording is None:
                recording = replays.begin(asked.call_id, share)
                buying = replays.run(self._buy(recording, asked))
            reader = recording.reader(is_repeat=buying is None)
            answer = _Answer(self, asked, recording, reader, is_repeat=buying is None)
            answer.aborts = EXTENSION in (scope.get("extensions") or {})
            try:
                with LeaveWatch(scope, receive, reader.leave):
                    await answer.send(peer_of(scope) if alone else Peer(), send)
            finally:
                reader.leave()
                if buying is not None and not buying.done():  # the call keeps its place after its client disconnects
                    kept = place.pop_all()
                    buying.add_done_callback(lambda _: kept.close())

    async def _buy(self, recording: Recording, asked: Asked) -> None:
        """Fills the recording with a stored answer or from a call."""
        replays, answer = self._replays(), None
        try:
            with self._live() as live:  # as long as the call runs, also across a reload
                kept = await replays.find(recording, live.sharing.deadline_s)
                if kept is None:
                    answer = await self._call(live.pipeline, recording, asked)
                else:
                    recording.replay(kept)
        except ProxyError as error:
            recording.end(error=error)
        except Exception:
            self._log.exception("internal_error", request_id=asked.call_id)
            recording.end(error=internal_error())
        finally:
            recording.end(error=stopping())  # has no effect on one that has ended
            await replays.end(recording, answer)

    async def _call(self, pipeline: Pipeline, recording: Recording, asked: Asked) -> KeptAnswer | None:
        """Runs the call to its end. Returns the answer, if it is complete."""
        if recording.lost_call is not None:
            self._log.warning("answer_lost", request_id=asked.call_id, lost_call=recording.lost_call)
        headers = without_patience(asked.headers)
        call, route = await pipeline.admit(asked.call_id, asked.caller, asked.body, asked.format, headers)
        asked.body = b""
        running = pipeline.start(call, route, asked.format, recording)
        recording.begin(running, pipeline.config_version)
        await running.ended()
        if recording.error is not None or call.settled is None or call.settled.outcome is not Outcome.OK:
            return None
        said = facts_of(recording.version, call)
        shown = {name: value for name, value in said.items() if not name.startswith(_OF_THE_CALL)}
        return _told(call, shown, b"" if recording.is_too_large else recording.body())

    def note(self, asked: Asked, recording: Recording, started: float, failed: BaseException | None) -> None:
        """Writes the row, the log line and the count of a repeat. It has no attempt and costs nothing."""
        kept, running = recording.kept, recording.running
        if kept is None and running is not None:
            kept = _told(running.call, {}, b"")
        if kept is None:  # the call never began
            return
        self._count(recording.share.kind)
        outcome, status = _ended(failed)
        code = failed.code if isinstance(failed, ProxyError) else None
        latency_ms = (time.perf_counter() - started) * 1000
        with self._live() as live:
            opening = CallOpen(
                asked.call_id,
                time.time_ns() - int(latency_ms * 1e6),
                asked.caller.key_id,
                kept.requested,
                kept.stream,
                config_version=live.pipeline.config_version,
                labels=_labels(asked, kept),
                replay_of=kept.call_id,
            )
            end = CallEnd(asked.call_id, outcome, status, code, kept.provider, kept.model, latency_ms)
            live.ledger.reject(opening, end)
        self._log.info(
            "replay",
            request_id=asked.call_id,
            replay_of=kept.call_id,
            kind=recording.share.kind,
            key=asked.caller.key_id,
            requested=kept.requested,
            stream=kept.stream,
            outcome=str(outcome),
            status=status,
            code=code,
            latency_ms=round(latency_ms, 1),
        )

    async def stream(
        self, send: Send, recording: Recording, reader: Reader, headers: Mapping[str, str], *, aborts: bool
    ) -> None:
        """Sends the frames of a call in flight. `headers`: those in addition to the facts of the call. `aborts`:
        the server can abort a connection.
        """
        if recording.running is None:
            raise RuntimeError("the call does not run")
        call, writer = recording.running.call, recording.running.writer
        is_begun = await reader.wait(self._headers_after_s)
        first = await reader.read() if is_begun else writer.keep_alive  # headers are sent with the first frame
        known = facts_of(recording.version, call) if is_begun else identity_of(recording.version, call)
        frames = frames_of(first, reader, call, writer, self._log)
        if isinstance(writer, CutShort) and aborts:
            frames = cut_short(frames, writer, send)
        await send_stream(send, frames, _merged(known, headers))


class _Answer:
    """One client's answer from a recording."""

    def __init__(self, calls: SharedCalls, asked: Asked, recording: Recording, reader: Reader, is_repeat: bool) -> None:
        self._calls = calls
        self._asked = asked
        self._recording = recording
        self._reader = reader
        self._joins = is_repeat
        self._started = time.perf_counter()
        self.aborts = False  # the server can abort a connection

    @property
    def _is_repeat(self) -> bool:
        return self._joins or self._recording.kept is not None

    async def send(self, peer: Peer, send: Send) -> None:
        failed: BaseException | None = None
        try:
            await self._reader.begun()
            await self._send(peer, send)
            if self._reader.has_left:
                failed = ClientLeft()
            elif self._recording.error is not None:  # reported in the last frame
                failed = self._recording.error
        except BaseException as error:
            failed = error
            raise
        finally:
            if self._is_repeat:
                self._calls.note(self._asked, self._recording, self._started, failed)

    async def _send(self, peer: Peer, send: Send) -> None:
        recording, kept = self._recording, self._recording.kept
        if kept is not None:
            headers = _merged(kept.headers, self._marks())
            if kept.stream:
                await send_stream(send, _pieces(await self._reader.read()), headers)
            else:
                await _send_whole(peer, send, headers, await self._reader.read())
        elif recording.is_stream:
            await self._calls.stream(send, recording, self._reader, self._marks(), aborts=self.aborts)
        elif recording.running is not None:
            body, call = await self._reader.read(), recording.running.call
            headers = facts_of(recording.version, call)
            if (cost := call.cost_usd()) is not None:
                headers["x-proxy-cost-usd"] = f"{cost:.9f}"
            headers["x-proxy-overhead-ms"] = f"{call.time.overhead_ms():.2f}"
            await _send_whole(peer, send, _merged(headers, self._marks()), body)

    def _marks(self) -> dict[str, str]:
        """The headers that show whether the answer was paid for by this request."""
        recording, share = self._recording, self._recording.share
        marks = {"x-request-id": self._asked.call_id}
        if share.bypasses_cache:
            marks["x-proxy-cache"] = "bypass"
        if share.kind == "cache":
            marks["x-proxy-cache"] = "hit" if self._is_repeat else "miss"
        elif self._is_repeat:
            marks["idempotent-replayed"] = "true"
        if self._is_repeat:
            of = recording.kept.call_id if recording.kept is not None else recording.call_id
            return marks | _NO_COST | {"x-proxy-replay-of": of}
        if recording.lost_call is not None:
            marks["x-proxy-lost-call"] = recording.lost_call
        if recording.is_too_large and share.is_strict:
            marks["x-proxy-kept"] = "false"
        return marks


async def _send_whole(peer: Peer, send: Send, headers: Mapping[str, str], body: bytes) -> None:
    """Sends a whole answer, in one write if the server supports that."""
    if not peer.answer(header_lines(headers), body):
        await send_json(send, 200, body, headers)


async def _pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(body), _PIECE_BYTES):
        yield body[start : start + _PIECE_BYTES]


def _merged(known: Mapping[str, str], marks: Mapping[str, str]) -> dict[str, str]:
    """The facts of the call plus the marks of this answer. A repeat omits headers that belong to the first client."""
    if "x-proxy-replay-of" in marks:
        known = {name: value for name, value in known.items() if not name.startswith(_OF_THE_CALL)}
    return {**known, **marks}


def _told(call: Call, headers: dict[str, str], body: bytes) -> KeptAnswer:
    """The answer of a call as a repeat gets it, with the values for the repeat's row."""
    answering = call.answering.deployment if call.attempts else None
    return KeptAnswer(
        call.id,
        call.request.model,
        answering.provider_name if answering else None,
        answering.model if answering else None,
        call.request.stream,
        headers,
        body,
        call.labels,
    )


def _labels(asked: Asked, kept: KeptAnswer) -> Labels:
    """The labels in the headers of this request, else those of the first, which has the same body."""
    own = labels(asked.format.unread(kept.requested), asked.headers)
    return kept.labels if own == NO_LABELS else own


def _ended(failed: BaseException | None) -> tuple[Outcome, int]:
    """The outcome and the status of a repeat."""
    if failed is None:
        return Outcome.OK, 200
    if isinstance(failed, UpstreamError):
        return failed.outcome, failed.status
    if isinstance(failed, ProxyError):
        return Outcome.REJECTED, failed.status
    return (Outcome.CLIENT_CLOSED, 499) if isinstance(failed, ClientLeft) else (Outcome.CANCELLED, 503)
