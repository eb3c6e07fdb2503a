"""Performs I/O: sends chat requests over raw keep-alive connections, and checks each answer."""

from __future__ import annotations

import asyncio
import json
import time

from msgspec import Struct

_END_OF_HEAD = b"\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_ANSWER_S = 30


class Case(Struct, frozen=True):
    """One kind of request. `model` is a mode of the fake upstream, `requests` how many make one round."""

    name: str
    model: str
    stream: bool
    requests: int


class Round(Struct, frozen=True):
    """`answer_bytes`: the body of one answer as it came, framing included."""

    requests: int
    wall_s: float
    answer_bytes: int


class WrongAnswer(Exception):
    """An answer that is not a complete 200: a figure made of it would be worth nothing."""


async def run(port: int, case: Case, connections: int) -> Round:
    """One round of `case`, shared by so many connections. Raises WrongAnswer, OSError, TimeoutError."""
    body = json.dumps(
        {"model": case.model, "stream": case.stream, "messages": [{"role": "user", "content": "one two three " * 20}]}
    ).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    request = f"{head}authorization: Bearer any\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    left = iter(range(case.requests))
    sizes: list[int] = []
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(min(connections, case.requests)):
            group.create_task(_send_all(port, request, case.stream, left, sizes))
    return Round(len(sizes), time.perf_counter() - started, max(sizes))


async def _send_all(port: int, request: bytes, stream: bool, left: object, sizes: list[int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for _ in left:  # type: ignore[attr-defined]
            writer.write(request)
            async with asyncio.timeout(_ANSWER_S):
                sizes.append(len(await (_read_stream(reader) if stream else _read_whole(reader))))
    finally:
        writer.close()


async def _read_whole(reader: asyncio.StreamReader) -> bytes:
    head = await _read_head(reader)
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    body = await reader.readexactly(length)
    if b'"finish_reason":"stop"' not in body:
        raise WrongAnswer(body[:500].decode(errors="replace"))
    return body


async def _read_stream(reader: asyncio.StreamReader) -> bytes:
    await _read_head(reader)
    body = bytearray()
    while not body.endswith(_LAST_CHUNK):
        piece = await reader.read(65536)
        if not piece:
            raise WrongAnswer("the connection closed inside a stream")
        body += piece
    if b"data: [DONE]" not in body:
        raise WrongAnswer(body[-500:].decode(errors="replace"))
    return bytes(body)


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(_END_OF_HEAD)
    if not head.startswith(b"HTTP/1.1 200 "):
        raise WrongAnswer((head + await reader.read(500)).decode(errors="replace"))
    return head
