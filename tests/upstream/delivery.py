"""I/O: puts one answer on the socket as its script says, faults included. Knows no vendor's wire.

The order of an answer's life: delay, interim answers, head, first token, tokens, finish, usage, end marker. A script
may stop it at any of them; the peer may too, then the task that runs this is cancelled.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Iterable
from functools import lru_cache

import msgspec

from tests.upstream.http1 import LAST_CHUNK, Connection, chunk, head
from tests.upstream.ledger import Seen
from tests.upstream.modes import Script
from tests.upstream.wire import Ask, Frame, Wire, quoting

_JSON = "application/json"
_HTML = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\n"
_BAD_JSON = b'{"error": {"message": "upstream exploded", "type": "server_err'
_WRITE_BYTES = 65536
_PING = b": ping\n\n"
_NAMED_PING = b'event: ping\ndata: {"type": "ping"}\n\n'  # as Anthropic sends it, before and in the midst of answers


@lru_cache(maxsize=8)
def _bomb(blank_bytes: int, body: bytes) -> bytes:
    """gzip of that much white space and the body: a valid answer for whoever has the memory."""
    press = zlib.compressobj(1, zlib.DEFLATED, 31)
    blanks = b" " * 2**20
    parts = [press.compress(blanks[: min(2**20, blank_bytes - done)]) for done in range(0, blank_bytes, 2**20)]
    return b"".join([*parts, press.compress(b"\n" + body), press.flush()])


class Delivery:
    """One answer to one request."""

    def __init__(self, connection: Connection, seen: Seen, script: Script, wire: Wire) -> None:
        self._connection = connection
        self._seen = seen
        self._script = script
        self._wire = wire
        self._chunked = False

    async def run(self, ask: Ask) -> None:
        """Answer; `Seen.complete` is set when everything went out."""
        script = self._script
        await _pause(script.delay_s + (0 if ask.stream else script.delay_whole_s))
        if script.answers == "never":
            await self._forever()
        if script.answers == "close" or (script.answers == "close_if_reused" and self._reused):
            self._connection.close()
            return
        if script.answers == "half_head":
            data = head(200, [("content-type", "text/event-stream" if ask.stream else _JSON), ("content-length", "9")])
            await self._send(data[: len(data) // 2])
            self._connection.close()
            return
        for status in script.interim:
            await self._connection.send(head(status, []))
        if script.redirect_to is not None:
            await self._whole(Frame(b"", end=True), [("location", self._location(script.redirect_to))])
        elif script.error:
            await self._error(ask)
        elif ask.stream:
            await self._stream(ask)
        else:
            await self._first_whole(ask)

    # --- kinds of answers ---------------------------------------------------------------------------------------------

    async def _first_whole(self, ask: Ask) -> None:
        script = self._script
        await _pause(script.first_token_s)
        if script.stop == "error" and script.stop_after is not None:
            await self._error(ask)
            return
        await self._whole(self._wire.whole(ask, script))

    async def _error(self, ask: Ask) -> None:
        script = self._script
        status = script.status
        if script.stop == "error" and script.stop_after is not None:
            status = script.fail_status
        body, content_type = self._wire.error(status, script.error_code, ask.model), _JSON
        if script.error == "bad_json":
            body = _BAD_JSON
        elif script.error == "quoting":
            body = quoting(ask)
        elif script.error == "html":
            body, content_type = _HTML, "text/html"
        elif script.error == "empty":
            body = b""
        await self._send_head(status, [("content-type", content_type), ("content-length", str(len(body)))])
        await self._send(body, self._complete)

    async def _whole(self, frame: Frame, headers: Iterable[tuple[str, str]] = (("content-type", _JSON),)) -> None:
        script = self._script
        body = b"\xef\xbb\xbf" + frame.data if script.bom else frame.data
        encoding: list[tuple[str, str]] = []
        if script.gzip_bytes is not None:
            body = await asyncio.to_thread(_bomb, script.gzip_bytes, body)
            encoding = [("content-encoding", "gzip")]
        cut = script.stop_after is not None and script.pieces != "giant"
        half = body[: len(body) // 2] if script.stop_after is not None and script.stop_after > 0 else b""
        promised = half if cut and script.stop == "end" else body
        if script.chunked_whole and not cut:
            self._chunked = True
            await self._send_head(script.status, [*headers, *encoding, ("transfer-encoding", "chunked")])
            middle = len(body) // 2
            await self._send(chunk(body[:middle]))
            await self._send(chunk(body[middle:]), lambda: self._note([frame]))
            await self._send_last_chunk()
            return
        await self._send_head(script.status, [*headers, *encoding, ("content-length", str(len(promised)))])
        if cut:
            await self._send(half)
            await self._stop(b"")
        else:
            await self._send(body, lambda: self._note([frame]))

    async def _stream(self, ask: Ask) -> None:
        script = self._script
        self._chunked = True
        headers = [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache")]
        if script.gzip_bytes is not None:
            headers.append(("content-encoding", "gzip"))
        await self._send_head(script.status, [*headers, ("transfer-encoding", "chunked")])
        frames = self._wire.frames(ask, script)
        if script.gzip_bytes is not None:
            await self._send_compressed(list(frames), script.gzip_bytes)
        elif not await self._send_frames(frames, ask):
            return
        await self._send_last_chunk(self._complete if script.no_end else None)
        if script.close_after:
            self._connection.close()

    async def _send_last_chunk(self, taken: Callable[[], None] | None = None) -> None:
        """The end of a chunked body, in a write and a packet of its own, as servers send it."""
        script = self._script
        if script.no_last_chunk:
            await self._forever()
        if script.rst_after:
            await asyncio.sleep(script.end_gap_s)
            self._connection.reset()
            return
        await asyncio.sleep(script.end_gap_s)
        await self._connection.send(LAST_CHUNK, taken)

    async def _send_frames(self, frames: Iterable[Frame], ask: Ask) -> bool:
        """Event by event, or in batches; False if the script stopped it."""
        script = self._script
        await _pause(script.first_token_s)
        batch: list[Frame] = []
        size = tokens = 0
        finished = False
        for number, frame in enumerate(frames):
            frame.data = self._dressed(frame, first=number == 0)
            if script.flood and frame.tokens:
                await self._flood(frame)
            if self._stops_before(frame, tokens):
                await self._send_batch(batch)
                await self._stop(frame.data, ask)
                return False
            wait_s = script.pace_s if frame.tokens and tokens else 0.0
            if finished and not frame.finish:
                wait_s += script.usage_delay_s
            if wait_s > 0:
                await self._send_batch(batch)
                await asyncio.sleep(wait_s)
            batch.append(frame)
            size += len(frame.data)
            tokens += frame.tokens
            finished = frame.finish
            if size >= script.batch_bytes:
                await self._send_batch(batch)
                size = 0
        await self._send_batch(batch)
        return True

    async def _flood(self, frame: Frame) -> None:
        """One token over and over, as fast as the socket takes it, until the client hangs up."""
        many = chunk(frame.data * (_WRITE_BYTES // len(frame.data)))
        while True:
            await self._connection.send(many)
            await asyncio.sleep(0)

    def _stops_before(self, frame: Frame, tokens: int) -> bool:
        stop_after = self._script.stop_after
        if stop_after is None:
            return False
        return stop_after < 0 or (tokens >= stop_after and bool(frame.tokens or frame.finish or frame.end))

    async def _send_batch(self, batch: list[Frame]) -> None:
        """Send and empty it."""
        if batch:
            frames = batch.copy()
            batch.clear()
            await self._send_body(b"".join(frame.data for frame in frames), frames)

    async def _send_compressed(self, frames: list[Frame], blank_bytes: int) -> None:
        body = b"".join(frame.data for frame in frames)
        await self._send_body(await asyncio.to_thread(_bomb, blank_bytes, body), frames)

    # --- faults -------------------------------------------------------------------------------------------------------

    async def _stop(self, next_frame: bytes, ask: Ask | None = None) -> None:
        """Stop before `next_frame`, in the script's way."""
        script, connection = self._script, self._connection
        await _pause(script.stop_wait_s)
        if script.stop == "stall":
            await self._stall()
        elif script.stop == "rst":
            connection.reset()
            return
        elif script.stop == "end" and self._chunked:
            await self._send_last_chunk()
        elif script.stop == "error" and ask is not None:
            error = self._wire.error_frame(script.fail_status, script.error_code, ask.model)
            await connection.send(chunk(self._dressed(Frame(error), first=False)))
            await self._send_last_chunk()
        elif script.stop == "mid_frame" and next_frame:
            whole = chunk(next_frame)
            await connection.send(whole[: len(whole) // 2])
        connection.close()

    def _dressed(self, frame: Frame, *, first: bool) -> bytes:
        """The frame as this script writes events. JSON holds no raw line end: those in `data` are the events' own."""
        script, data = self._script, frame.data
        if script.many_data_lines:
            data = b"".join(_many_lines(line) for line in data.splitlines(keepends=True))
        if script.pieces == "giant" and frame.tokens:
            data = data.rstrip(b"\n")
        if script.pings:
            data = _PING + data
        if script.named_pings:
            data = _NAMED_PING + data
        if script.newline == "crlf":
            data = data.replace(b"\n", b"\r\n")
        return b"\xef\xbb\xbf" + data if script.bom and first else data

    @property
    def _reused(self) -> bool:
        """Whether this connection already carried an answer before this request."""
        return self._connection.answered > 0

    async def _stall(self) -> None:
        """Nothing more, or pings only: the connection lives, the model does not."""
        every_s = self._script.stall_pings_s
        while every_s is not None and self._chunked:
            await self._connection.send(chunk(_NAMED_PING if self._script.named_pings else _PING))
            await asyncio.sleep(every_s)
        await self._forever()

    async def _forever(self) -> None:
        """Wait for the peer: when it hangs up, this task is cancelled."""
        await asyncio.get_running_loop().create_future()

    def _location(self, to: str) -> str:
        if to == "self":
            return f"http://{self._seen.headers.get('host', '127.0.0.1')}/v1/redirected/chat/completions"
        return "http://169.254.169.254/latest/meta-data/" if to == "metadata" else f"http://{to}/"

    # --- bytes --------------------------------------------------------------------------------------------------------

    async def _send_head(self, status: int, headers: list[tuple[str, str]]) -> None:
        script = self._script
        if script.content_type is not None:
            headers = [(name, script.content_type if name == "content-type" else value) for name, value in headers]
        data = head(status, [*headers, *self._wire.headers(self._seen.seq, script), *script.headers])
        self._seen.status = status
        if script.head_byte_s is not None:
            await self._one_by_one(data, script.head_byte_s)
        elif script.split == "bytes":
            await self._one_by_one(data, 0)
        else:
            await self._connection.send(data)

    async def _send_body(self, data: bytes, frames: list[Frame]) -> None:
        """These frames' bytes, as a part of a chunked body. A client that hangs up on the end marker had everything."""
        if self._script.split == "utf8":
            pieces = list(_inside_characters(data))
        else:
            pieces = [data[start : start + _WRITE_BYTES] for start in range(0, len(data), _WRITE_BYTES)]
        for piece in pieces[:-1]:
            await self._send(chunk(piece))
        await self._send(chunk(pieces[-1]), lambda: self._note(frames))

    async def _send(self, data: bytes, taken: Callable[[], None] | None = None) -> None:
        """Bytes of a body, in the script's portions; other tasks run after each."""
        script = self._script
        if not data:
            if taken is not None:
                taken()
        elif script.split == "bytes":
            await self._one_by_one(data, 0, taken)
        elif script.body_byte_s is not None:
            await self._one_by_one(data, script.body_byte_s, taken)
        else:
            await self._connection.send(data, taken)
            await asyncio.sleep(0)

    async def _one_by_one(self, data: bytes, every_s: float, taken: Callable[[], None] | None = None) -> None:
        for start in range(len(data)):
            last = start == len(data) - 1
            await self._connection.send(data[start : start + 1], taken if last else None)
            await asyncio.sleep(every_s)

    def _note(self, frames: list[Frame]) -> None:
        """The kernel took these."""
        seen = self._seen
        for frame in frames:
            seen.tokens_sent += frame.tokens
            if frame.finish:
                seen.t_finish_sent = time.monotonic()
            if frame.usage is not None:
                seen.usage = frame.usage
            if frame.end:
                self._complete()

    def _complete(self) -> None:
        self._seen.complete = True


async def _pause(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)


def _many_lines(line: bytes) -> bytes:
    """An event's data line as several: JSON allows line ends between its tokens, and SSE joins data lines with them."""
    if not line.startswith(b"data: {"):
        return line
    pretty = msgspec.json.format(line.removeprefix(b"data: ").strip(), indent=1)
    return b"".join(b"data: " + each + b"\n" for each in pretty.splitlines())


def _inside_characters(data: bytes) -> Iterable[bytes]:
    """Cut after the first byte of every character that has several."""
    start = 0
    for index, byte in enumerate(data):
        if byte >= 0xC0:
            yield data[start : index + 1]
            start = index + 1
    if start < len(data):
        yield data[start:]
