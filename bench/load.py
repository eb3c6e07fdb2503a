"""Performs I/O: sends chat requests over keep-alive connections as fast as they are answered; checks each answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import cast

from msgspec import Struct

from bench.answers import LAST_CHUNK, WrongAnswer, check_stream, check_whole, looks_streamed, looks_whole
from bench.cases import NUMBER, Case

_END_OF_HEAD = b"\r\n\r\n"
_ROUND_S = 120


class Target(Struct, frozen=True):
    """Where requests go. `prefix`: what a gateway wants before the model's name at the upstream; `named`: other names
    of single models; `headers`: more of them."""

    port: int
    path: str = "/v1/chat/completions"
    prefix: str = ""
    named: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    key: str = "any"


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


def request(target: Target, case: Case) -> bytes:
    """The bytes of one request."""
    body = case.body(case.ours or target.named.get(case.model) or target.prefix + case.model)
    lines = [
        f"POST {target.path} HTTP/1.1",
        f"host: 127.0.0.1:{target.port}",
        "content-type: application/json",
        f"authorization: Bearer {target.key}",
        f"content-length: {len(body)}",
        *(f"{name}: {value}" for name, value in target.headers.items()),
    ]
    return "\r\n".join([*lines, "\r\n"]).encode() + body


async def run(target: Target, case: Case) -> Round:
    """One round of `case`, shared by its connections. Raises WrongAnswer, OSError, TimeoutError."""
    asked = request(target, case)
    left = iter(range(case.requests))
    loop = asyncio.get_running_loop()
    clients: list[_Client] = []
    started = time.perf_counter()
    try:
        for _ in range(min(case.connections, case.requests)):
            _, client = await loop.create_connection(
                lambda: _Client(asked, case.stream, left), "127.0.0.1", target.port
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

    def __init__(self, asked: bytes, stream: bool, left: Iterator[int]) -> None:
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.latencies_s: list[float] = []
        self.answer_bytes = 0
        self._asked = asked
        self._stream = stream
        self._left = left
        self._pieces = bytearray()
        self._body_at = 0
        self._size: int | None = None
        self._sent_at = 0.0

    def close(self) -> None:
        self._transport.close()
        if not self.finished.cancel() and not self.finished.cancelled():
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
        number = next(self._left, None)
        if number is None:
            if not self.finished.done():
                self.finished.set_result(None)
            return
        self._pieces.clear()
        self._body_at, self._size = 0, None
        # Another question each time: what was found out about one is kept for its next turns.
        self._transport.write(self._asked.replace(NUMBER, b"%07d" % number, 1))
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
        return self._pieces.endswith(LAST_CHUNK)

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
