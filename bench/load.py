"""Performs I/O: sends chat requests over keep-alive connections as fast as they are answered; checks each answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from itertools import chain
from typing import cast

from msgspec import Struct

from bench.answers import Case, WrongAnswer, check_stream, check_whole, looks_streamed, looks_whole

_END_OF_HEAD = b"\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_ROUND_S = 120


class Target(Struct, frozen=True):
    """Where requests go. `prefix`: what a gateway wants before the model's name at the upstream."""

    port: int
    path: str = "/v1/chat/completions"
    prefix: str = ""


class Round(Struct, frozen=True):
    """`latencies_s`: from a request's last byte to its answer's, sorted; `answer_bytes`: one body, framing included."""

    wall_s: float
    latencies_s: list[float]
    answer_bytes: int

    @property
    def requests(self) -> int:
        return len(self.latencies_s)

    def percentile_ms(self, share: float) -> float:
        return self.latencies_s[min(len(self.latencies_s) - 1, int(share * len(self.latencies_s)))] * 1000


async def run(target: Target, case: Case, connections: int) -> Round:
    """One round of `case`, shared by so many connections. Raises WrongAnswer, OSError, TimeoutError."""
    model = target.prefix + case.model
    fields = {"model": model, "stream": case.stream}
    body = json.dumps({**fields, "messages": [{"role": "user", "content": "one two three " * 20}]}).encode()
    head = f"POST {target.path} HTTP/1.1\r\nhost: 127.0.0.1:{target.port}\r\ncontent-type: application/json\r\n"
    request = f"{head}authorization: Bearer any\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    left = iter(range(case.requests))
    loop = asyncio.get_running_loop()
    clients: list[_Client] = []
    started = time.perf_counter()
    try:
        for _ in range(min(connections, case.requests)):
            _, client = await loop.create_connection(
                lambda: _Client(request, case.stream, left), "127.0.0.1", target.port
            )
            clients.append(client)
        async with asyncio.timeout(_ROUND_S):
            await asyncio.gather(*(client.finished for client in clients))
        wall_s = time.perf_counter() - started
    finally:
        for client in clients:
            client.close()
    latencies_s = sorted(chain.from_iterable(client.latencies_s for client in clients))
    return Round(wall_s, latencies_s, clients[0].answer_bytes)


class _Client(asyncio.Protocol):
    """One connection: the next request leaves when the last answer is complete. Its first answer is checked in full."""

    def __init__(self, request: bytes, stream: bool, left: Iterator[int]) -> None:
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.latencies_s: list[float] = []
        self.answer_bytes = 0
        self._request = request
        self._stream = stream
        self._left = left
        self._pieces = bytearray()
        self._body_at = 0
        self._size: int | None = None
        self._sent_at = 0.0

    def close(self) -> None:
        self._transport.close()
        if self.finished.done() and not self.finished.cancelled():
            self.finished.exception()  # the first of them was raised

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or WrongAnswer("the connection closed inside an answer"))

    def data_received(self, data: bytes) -> None:
        self._pieces += data
        try:
            if self._body_at == 0 and not self._has_head():
                return
            if self._is_complete():
                self._note(time.perf_counter())
                self._next()
        except WrongAnswer as error:
            self._fail(error)

    def _next(self) -> None:
        if next(self._left, None) is None:
            if not self.finished.done():
                self.finished.set_result(None)
            return
        self._pieces.clear()
        self._body_at, self._size = 0, None
        self._transport.write(self._request)
        self._sent_at = time.perf_counter()

    def _has_head(self) -> bool:
        end = self._pieces.find(_END_OF_HEAD)
        if end < 0:
            return False
        head = bytes(self._pieces[:end])
        if not head.startswith(b"HTTP/1.1 200 "):
            raise WrongAnswer(self._pieces[:1000].decode(errors="replace"))
        self._body_at = end + len(_END_OF_HEAD)
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                self._size = int(line[15:])
        return True

    def _is_complete(self) -> bool:
        if self._size is not None:
            return len(self._pieces) >= self._body_at + self._size
        return self._pieces.endswith(_LAST_CHUNK)

    def _note(self, now: float) -> None:
        """The first answer is checked thoroughly, the others only where they do not look like it."""
        body = bytes(self._pieces[self._body_at :])
        known = bool(self.latencies_s)
        self.latencies_s.append(now - self._sent_at)
        self.answer_bytes = len(body)
        if self._stream:
            if not (known and looks_streamed(body)):
                check_stream(body)
        elif not (known and looks_whole(body)):
            check_whole(body)

    def _fail(self, error: Exception) -> None:
        if not self.finished.done():
            self.finished.set_exception(error)
