"""Many clients that hardly read (R23): their providers wait, and the server holds little for each of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from pathlib import Path

import psutil
import pytest

from tests.faults.books import TIMEOUTS, files
from tests.faults.talking import ask
from tests.serving import spawned
from tests.upstream import spawn

READERS = 100
GROWTH_MB = 30
STEADY_S, STEADY_MB = 2.0, 0.5
OTHERS_S = 1.0


async def slow_reader(port: int, number: int) -> socket.socket:
    """A client with room for 4 kB that has asked for an endless stream."""
    question = [{"role": "user", "content": "one two three"}]
    body = json.dumps({"model": f"fake/flood(tag={number})", "stream": True, "messages": question})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await loop.sock_connect(sock, ("127.0.0.1", port))
    await loop.sock_sendall(sock, (head + body).encode())
    return sock


def drip(socks: list[socket.socket]) -> None:
    """One byte for each of them."""
    for sock in socks:
        with contextlib.suppress(BlockingIOError):
            assert sock.recv(1)


async def steady_mb(process: psutil.Process, socks: list[socket.socket]) -> float:
    """Resident memory, once it grows no more."""
    seen_mb: float = process.memory_info().rss / 1e6
    async with asyncio.timeout(100):
        while True:
            drip(socks)
            await asyncio.sleep(STEADY_S)
            before_mb, seen_mb = seen_mb, process.memory_info().rss / 1e6
            if seen_mb - before_mb < STEADY_MB:
                return seen_mb


@pytest.mark.slow
async def test_a_hundred_slow_readers_hold_little_memory_and_nobody_up(tmp_path: Path) -> None:
    """At most 0.3 MB each, whatever their providers would send; others are answered as if they were not there."""
    with spawn() as upstream, spawn() as other:
        patient = {"timeout_s": {**TIMEOUTS, "total": 300}}
        routing = files(tmp_path, upstream.url, fake=patient)
        rules = json.loads(routing.read_text())
        rules["providers"]["backup"]["base_url"] = other.url
        routing.write_text(json.dumps(rules))
        with spawned(routing) as server:
            process = psutil.Process(server.process.pid)
            for _ in range(3):
                await asyncio.gather(*[ask(server.port, "backup/ok") for _ in range(READERS)])
            before_mb = await steady_mb(process, [])
            socks = [await slow_reader(server.port, number) for number in range(READERS)]
            grown_mb = await steady_mb(process, socks) - before_mb
            took_s = []
            for _ in range(20):
                drip(socks)
                begun = time.monotonic()
                assert (await ask(server.port, "backup/ok(n_tokens=20)")).whole
                took_s.append(time.monotonic() - begun)
            print(f"\n  {READERS} slow readers: memory {grown_mb:+.1f} MB; another stream of 20 tokens took", end=" ")
            print(f"p50 {sorted(took_s)[10] * 1e3:.0f}, at most {max(took_s) * 1e3:.0f} ms")
            for sock in socks:
                sock.close()
            assert server.stop() == 0
    assert grown_mb < GROWTH_MB
    assert max(took_s) < OTHERS_S
