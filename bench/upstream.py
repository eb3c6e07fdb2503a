"""Performs I/O: an upstream that is faster than every gateway: canned answers on raw sockets, and streams in real
time, in a process of its own.

It reads of a request only its length and its model. `python -m bench.upstream` prints its port and serves until its
standard input closes.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import uvloop

from bench.answers import writes
from bench.pacing import PACES, Pacer

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_MODEL = re.compile(rb'"model" *: *"(?:[^"]*[/:])?(\w+)"')
_ANSWERS = {model.encode(): writes(model) for model in ("whole", "few", "each", "claude")}
# More deployments with the same answer: members of an ensemble, and candidates.
_ANSWERS |= {f"whole_{letter}".encode(): writes("whole") for letter in "bcdefgh"}
_ROOT = Path(__file__).parents[1]


class _Connection(asyncio.Protocol):
    """One request at a time. Each item of an answer has a turn of the event loop, and so a write, of its own."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._received = bytearray()
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._received, 0, end + 2)
        size = end + 4 + (int(length[1]) if length else 0)
        if len(self._received) < size:
            return
        model = _MODEL.search(self._received, end)
        name = bytes(model[1]) if model else b""
        del self._received[:size]
        pace, items = PACES.get(name.decode()), _ANSWERS.get(name)
        if pace is not None:
            Pacer(self._transport, pace)
        elif items is None:
            self._transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
        else:
            self._send(items, 0)

    def _send(self, items: list[bytes], place: int) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(items[place])
        if place + 1 < len(items):
            self._loop.call_soon(self._send, items, place + 1)


@contextmanager
def upstream() -> Iterator[str]:
    """Runs it in a process of its own; its base URL. It also ends when this process dies."""
    command = [sys.executable, "-m", "bench.upstream"]
    with subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    threading.Thread(target=_await_end, args=(loop, stop), daemon=True).start()
    server = await loop.create_server(_Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stop.wait()


def _await_end(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    sys.stdin.buffer.read()
    loop.call_soon_threadsafe(stop.set)


if __name__ == "__main__":
    uvloop.run(_serve())
