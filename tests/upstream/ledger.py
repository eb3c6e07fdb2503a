"""Values: what the fake upstream saw, one `Seen` per attempt, in order of arrival.

Times are seconds of the machine's monotonic clock, so that they compare with `time.monotonic()` in other processes.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from typing import Any

from msgspec import Struct


class Seen(Struct, kw_only=True):
    """One request that arrived whole, and how far its answer got.

    `id` is the X-Client-Request-Id; `authorization` the `key_hash` of the key that came, never the key, and
    `key_headers` where it came; `headers` are the other ones, lower-cased, repeated ones joined by ", ". `bytes_sent`
    and `tokens_sent` count what the kernel took; `tokens_sent` is the same number as `completion_tokens` once all went
    out. `usage` is what was sent as usage (None: none was). `complete`: the answer went out to its last byte and its
    mode did not cut it short (an error answer can be complete, a stream that ends in an error frame is not).
    `peer_closed_early`: the client hung up first.
    """

    seq: int
    id: str | None
    method: str
    path: str
    model: str
    attempt: int
    stream: bool
    connection: int
    authorization: str | None
    key_headers: list[str]
    headers: dict[str, str]
    request_bytes: int
    t_recv: float
    status: int | None = None
    bytes_sent: int = 0
    tokens_sent: int = 0
    usage: dict[str, Any] | None = None
    t_first_byte: float | None = None
    t_finish_sent: float | None = None
    t_peer_close: float | None = None
    t_end: float | None = None
    complete: bool = False
    peer_closed_early: bool = False


def key_hash(key: str) -> str:
    """The first 16 hex digits of a key's SHA-256: enough to tell which key came, without keeping it."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


class Ledger:
    """The attempts seen since the last reset; `open` counts those still being answered, resets or not."""

    def __init__(self) -> None:
        self.attempts: list[Seen] = []
        self.open = 0
        self._seq = 0
        self._per_model: Counter[str] = Counter()
        self._waiters: list[asyncio.Future[None]] = []

    def next_attempt(self, model: str) -> int:
        """The number of this request among those with the same model name, from 1."""
        self._per_model[model] += 1
        return self._per_model[model]

    def next_seq(self) -> int:
        """The number of this request among all, from 1; it never starts again."""
        self._seq += 1
        return self._seq

    def begin(self, seen: Seen) -> None:
        self.attempts.append(seen)
        self.open += 1
        self.touch()

    def end(self, seen: Seen) -> None:
        seen.t_end = time.monotonic()
        self.open -= 1
        self.touch()

    def reset(self) -> None:
        """Forget all attempts and start counting per model from 1 again."""
        self.attempts.clear()
        self._per_model.clear()
        self.touch()

    def touch(self) -> None:
        """Wake whoever waits for a change."""
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def changed(self) -> None:
        """Wait for the next change."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter
