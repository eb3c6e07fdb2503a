"""Orchestrates: requests that are paid for once. A repeat joins the call in flight, or gets the stored answer.

    in this process    the recording of the call, from its beginning, live
    in another one     its open row in the store, until the answer is stored there or the row is gone
    ended              the stored answer; a failure is not stored, so its repeat is a new call

A call whose process died leaves an open row until the ledger's sweep finds that its owner is dead. Then the call is
`unknown` in the books, at the cost of its hold, and its repeat is a new call: the answer is lost, and may be billed
twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import msgspec

from proxy.pipeline.off_loop import OffLoop
from proxy.pipeline.recording import KeptAnswer, Memory, Recording
from proxy.pipeline.running import stopping
from proxy.pipeline.sharing import Share
from proxy.pipeline.side_thread import SideThread
from proxy.schema.errors import Conflict, ProxyError, StorageUnavailable
from proxy.storage.base import StoreError
from proxy.storage.kept_answers import LOST, OPEN, Kept, KeptAnswers

MAX_ANSWER_BYTES = 8 * 1024 * 1024
MAX_MEMORY_BYTES = 128 * 1024 * 1024  # of all recorded calls in flight
WAIT_S = 5.0  # how long a call waits for the store
PAUSE_S = 2.0  # pause after a failure of the store
FIRST_LOOK_S, LAST_LOOK_S = 0.05, 1.0  # pauses between two polls for an answer that another process is getting
CLAIM_S = 60.0  # a claim outlives the deadline of its call by this
EXPIRE_EVERY_S = 60.0

T = TypeVar("T")
_decode = msgspec.msgpack.Decoder(KeptAnswer).decode


class Replays:
    """One per process. `refuses`: a client's key is refused while the store is down, as the ledger refuses calls."""

    def __init__(
        self,
        store: KeptAnswers,
        off_loop: OffLoop,
        warn: Callable[..., object],
        *,
        refuses: bool = True,
        clock_ns: Callable[[], int] = time.time_ns,
        memory: Memory | None = None,
    ) -> None:
        self.off_loop = off_loop
        self.memory = memory or Memory(MAX_ANSWER_BYTES, MAX_MEMORY_BYTES)
        self._store = store
        self._refuses = refuses
        self._clock_ns = clock_ns
        self._thread = SideThread("kept_answers", warn, WAIT_S, PAUSE_S)
        self._live: dict[tuple[str, bytes], Recording] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    @property
    def failures(self) -> int:
        """Failed writes and look-ups."""
        return self._thread.failures

    def join(self, share: Share) -> Recording | None:
        """The call in flight that this request repeats. Raises ProxyError 422 for another request of the same key,
        and 409 if its answer has grown too large to share.
        """
        recording = None if share.begins else self._live.get(_place(share))
        if recording is None or recording.error is not None or recording.is_abandoned:
            return None
        if recording.share.place.request != share.place.request:
            raise _mismatch()
        if recording.is_too_large and share.is_strict:
            raise _too_large(recording.call_id)
        return None if recording.is_too_large else recording

    def begin(self, call_id: str, share: Share) -> Recording:
        """The recording of a new call. `run` must follow at once."""
        recording = self._live[_place(share)] = Recording(call_id, share, self.memory)
        return recording

    def run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs the work that fills a recording. The task belongs to no client: it goes on when clients disconnect."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def find(self, recording: Recording, deadline_s: float) -> KeptAnswer | None:
        """The stored answer; None: the call must be made.

        Waits for an answer that another process is getting, for `deadline_s` at most. Raises ProxyError 409, 422 or
        503.
        """
        share, loop = recording.share, asyncio.get_running_loop()
        until_s, pause_s = loop.time() + deadline_s, FIRST_LOOK_S
        while True:
            try:
                found = await self._thread.run(partial(self._look, recording, deadline_s))
            except StoreError:
                if share.is_strict and self._refuses:
                    raise StorageUnavailable from None
                return None
            if found is None or found.state == LOST:
                recording.lost_call = None if found is None else found.call_id
                return None
            if found.request != share.place.request:
                raise _mismatch()
            if found.data is not None:
                return _decode(found.data)
            if found.state != OPEN:
                raise _too_large(found.call_id)
            if loop.time() + pause_s > until_s or recording.is_discarded:
                raise _in_flight(found.call_id)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), pause_s)
                raise stopping()
            pause_s = min(LAST_LOOK_S, 2 * pause_s)

    async def end(self, recording: Recording, answer: KeptAnswer | None) -> None:
        """The call has ended. Stores a complete `answer`, or that it was too large; None: it failed, or was stored."""
        share, now_ns = recording.share, self._clock_ns()
        if answer is None or (recording.is_too_large and not share.is_strict):
            self._forget(recording)
            if recording.kept is None and share.kind != "cache":
                with suppress(StoreError):
                    await self._thread.run(partial(self._store.free, share.place, recording.call_id))
            return
        data = None if recording.is_too_large else msgspec.msgpack.encode(answer)
        until_ns = now_ns + int(share.ttl_s * 1e9)
        with suppress(StoreError):
            await self._thread.run(partial(self._store.keep, share.place, recording.call_id, data, now_ns, until_ns))
        self._forget(recording)

    async def expire(self) -> None:
        """Drops expired answers periodically until cancelled. Otherwise only writes would drop them."""
        while True:
            with suppress(StoreError):
                await self._thread.run(partial(self._store.expire, self._clock_ns()))
            await asyncio.sleep(EXPIRE_EVERY_S)

    async def drain(self, timeout_s: float) -> None:
        """Waits for calls that go on without a client, for at most `timeout_s`."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    async def close(self) -> None:
        """Ends all waits for other processes, and closes the store after its pending work. All calls have ended."""
        self._closing.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=WAIT_S)
        await self._thread.close(self._store.close)

    def _look(self, recording: Recording, deadline_s: float) -> Kept | None:
        """What is stored for a request; if nothing is, this claims it. Runs on the store's thread."""
        share, now_ns = recording.share, self._clock_ns()
        if share.kind == "cache":
            found = self._store.find(share.place, now_ns)
            is_fresh = found is not None and found.kept_ns + share.ttl_s * 1e9 > now_ns
            return found if is_fresh else None
        until_ns = now_ns + int((deadline_s + CLAIM_S) * 1e9)
        return self._store.claim(share.place, recording.call_id, now_ns, until_ns, anew=share.begins)

    def _forget(self, recording: Recording) -> None:
        if self._live.get(_place(recording.share)) is recording:
            del self._live[_place(recording.share)]
        recording.release()


def _place(share: Share) -> tuple[str, bytes]:
    return share.place.caller, share.place.name


def _mismatch() -> ProxyError:
    message = "This Idempotency-Key was used with another request. Use a new key for a new request."
    return ProxyError(message, status=422, code="idempotency_mismatch", param="idempotency-key")


def _in_flight(call_id: str) -> ProxyError:
    message = f"The first request with this Idempotency-Key is still being answered ({call_id}). Try again."
    return ProxyError(message, status=409, code="conflict", param="idempotency-key", headers={"retry-after": "1"})


def _too_large(call_id: str) -> ProxyError:
    """No new call is made: the answer was paid for, and the first client got it."""
    message = (
        f"The answer to this Idempotency-Key was too large to store ({call_id}). "
        "The request is not sent again: use a new key for that."
    )
    return Conflict(message, param="idempotency-key")
