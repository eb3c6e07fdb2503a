"""Orchestrates: the output of a call that several clients share. Each reads it from its beginning, live.

It is kept whole, so that a slow reader delays no other, until it is too large for that. From then on it is bounded like
any output: the slowest reader slows the call down, and no client can join any more.
"""

from __future__ import annotations

import asyncio

from msgspec import Struct

from proxy.pipeline.output import MAX_BUFFERED_BYTES
from proxy.pipeline.running import ClientLeft, RunningCall
from proxy.pipeline.sharing import Share
from proxy.schema.json import encode
from proxy.schema.records import NO_LABELS, Labels
from proxy.schema.usage import Usage

NOT_KEPT = b": this answer is too large to be kept for its Idempotency-Key\n\n"  # a comment of a stream


class KeptAnswer(Struct, frozen=True):
    """A complete answer as a repeat gets it. `headers` name what answered; `body` has all frames of a stream.

    `provider`, `model` and `labels` are those of the call's row.
    """

    call_id: str
    requested: str
    provider: str | None
    model: str | None
    stream: bool
    headers: dict[str, str]
    body: bytes
    labels: Labels = NO_LABELS


class Memory:
    """The bytes of all recordings, and their limits: of one, and of all together."""

    def __init__(self, most_of_one: int, most: int) -> None:
        self.used = 0
        self._most_of_one = most_of_one
        self._most = most

    def take(self, size: int, added: int) -> bool:
        """True if a recording of `size` bytes may grow by `added`, which are then taken."""
        if size + added > self._most_of_one or self.used + added > self._most:
            return False
        self.used += added
        return True


class Recording:
    """The output of a shared call (see `Output`), or a stored answer that is replayed."""

    def __init__(self, call_id: str, share: Share, memory: Memory) -> None:
        self.call_id = call_id
        self.share = share
        self.running: RunningCall | None = None
        self.version = ""  # of the configuration that the call runs on
        self.kept: KeptAnswer | None = None
        self.lost_call: str | None = None  # an earlier call of this key, whose process died
        self.is_too_large = False
        self.error: BaseException | None = None
        self.is_ended = False
        self._memory = memory
        self._taken = 0  # bytes of it in `memory`
        self._pieces: list[bytes] = []
        self._dropped = 0  # pieces that every reader has read, after it became too large
        self._last_again: bytes | None = None  # the last piece as a repeat gets it
        self._readers: set[Reader] = set()
        self._writers: list[asyncio.Future[None]] = []
        self._is_released = False

    # --- the call's side ---

    @property
    def is_discarded(self) -> bool:
        """True if no client reads. The call goes on if its repeat may come."""
        return not self._readers

    @property
    def is_abandoned(self) -> bool:
        """True if no client reads, and none will come back for the answer."""
        return not self._readers and not self.share.survives

    @property
    def is_stream(self) -> bool:
        if self.kept is not None:
            return self.kept.stream
        return self.running is not None and self.running.call.request.stream

    def begin(self, running: RunningCall, version: str) -> None:
        """The call runs, on the configuration `version`."""
        self.running, self.version = running, version
        if self.is_abandoned:
            running.leave()
        self._wake()

    def write(self, frames: bytes) -> asyncio.Future[None] | None:
        """As `Output.write`."""
        self._add(frames)
        self._wake()
        if not self.is_too_large or sum(map(len, self._pieces)) <= MAX_BUFFERED_BYTES:
            return None
        waiter = asyncio.get_running_loop().create_future()
        self._writers.append(waiter)
        return waiter

    def end(self, last: bytes = b"", error: BaseException | None = None) -> None:
        """As `Output.end`."""
        if self.is_ended:
            return
        if last:
            if self.running is not None:
                self._last_again = at_no_cost(last, self.running.call.usage())
            self._add(last)
            is_lost = self.is_too_large and self.share.is_strict and self.kept is None and self.is_stream
            if is_lost and self._pieces:  # somebody reads
                self._pieces[-1] = NOT_KEPT + last
        self.is_ended, self.error = True, error
        self._wake()

    def replay(self, kept: KeptAnswer) -> None:
        """Replays a stored answer in place of a call."""
        self.kept = kept
        self.end(kept.body)

    def discard(self, error: BaseException) -> None:
        """As `Output.discard`."""
        self._pieces.clear()
        self._wake_writers()
        self.end(error=error)

    def body(self) -> bytes:
        """The whole output, as a repeat gets it."""
        return b"".join([*self._pieces[:-1], self._last_again or b""])

    def release(self) -> None:
        """The call has ended. Its memory is freed once the last reader has left."""
        self._is_released = True
        self._free()

    def _add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        if self.is_too_large:
            self._drop_read()
        elif self._memory.take(self._taken, len(piece)):
            self._taken += len(piece)
        else:
            self.is_too_large = True
            self._drop_read()

    def _drop_read(self) -> None:
        """Drops pieces that every reader has read; all of them if there is no reader."""
        end = self._dropped + len(self._pieces)
        read = min((reader.place for reader in self._readers), default=end)
        del self._pieces[: read - self._dropped]
        self._dropped = read

    # --- the readers' side ---

    def reader(self, *, is_repeat: bool) -> Reader:
        """A reader from the beginning. `is_repeat`: another client's call pays for the answer."""
        reader = Reader(self, is_repeat)
        self._readers.add(reader)
        return reader

    def piece(self, place: int, *, is_repeat: bool) -> bytes | None:
        """The piece at `place`; None: it is not written yet, or there is none."""
        index = place - self._dropped
        if index >= len(self._pieces):
            return None
        is_last = self.is_ended and index == len(self._pieces) - 1
        return self._last_again if is_repeat and is_last and self._last_again is not None else self._pieces[index]

    def note_read(self) -> None:
        if self.is_too_large:
            self._drop_read()
            self._wake_writers()

    def leave(self, reader: Reader) -> None:
        """The reader is done. A call without readers is cancelled, unless its repeat may come."""
        if reader not in self._readers:
            return
        self._readers.discard(reader)
        self.note_read()
        if self.is_abandoned and self.running is not None:
            self.running.leave()
        self._free()

    def _free(self) -> None:
        if self._is_released and not self._readers:
            self._memory.used -= self._taken
            self._taken = 0
            self._pieces.clear()

    def _wake(self) -> None:
        for reader in self._readers:
            reader.wake()

    def _wake_writers(self) -> None:
        while self._writers:
            waiter = self._writers.pop()
            if not waiter.done():
                waiter.set_result(None)


class Reader:
    """One client's view of a recording."""

    def __init__(self, recording: Recording, is_repeat: bool) -> None:
        self.place = 0
        self.has_left = False
        self._recording = recording
        self._is_repeat = is_repeat
        self._waiter: asyncio.Future[None] | None = None

    async def begun(self) -> None:
        """Returns once it is known which model answers. Raises the error of a call that never began, and ClientLeft."""
        recording = self._recording
        while recording.running is None and recording.kept is None:
            self._check()
            if recording.is_ended and recording.error is not None:
                raise recording.error
            await self._wait()
        self._check()

    async def wait(self, timeout_s: float) -> bool:
        """As `Output.wait`."""
        if not self._is_ready():
            timer = asyncio.get_running_loop().call_later(timeout_s, self.wake)
            try:
                await self._wait()
            finally:
                timer.cancel()
        return self._is_ready()

    async def read(self) -> bytes:
        """As `Output.read`."""
        recording = self._recording
        while True:
            self._check()
            pieces = []
            while (piece := recording.piece(self.place, is_repeat=self._is_repeat)) is not None:
                pieces.append(piece)
                self.place += 1
            if pieces:
                recording.note_read()
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if recording.is_ended:
                if recording.error is not None:
                    raise recording.error
                return b""
            await self._wait()

    def leave(self) -> None:
        """The client is gone, or has everything. A pending read raises ClientLeft."""
        self.has_left = True
        self._recording.leave(self)
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _is_ready(self) -> bool:
        recording = self._recording
        return self.has_left or recording.is_ended or recording.piece(self.place, is_repeat=False) is not None

    def _check(self) -> None:
        if self.has_left:
            raise ClientLeft

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


def at_no_cost(last: bytes, usage: Usage) -> bytes:
    """The last piece of an answer with the cost of its usage at zero: a repeat pays nothing.

    Text inside a JSON string cannot be mistaken for the usage, because its quotes are escaped.
    """
    if not usage.get("cost"):
        return last
    known = {name: value for name, value in usage.items() if name in ("cost", "cost_details")}
    nothing = {name: dict.fromkeys(value, 0.0) if isinstance(value, dict) else 0.0 for name, value in known.items()}
    return last.replace(encode(known)[1:-1], encode(nothing)[1:-1])
