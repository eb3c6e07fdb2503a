"""Orchestrates: all connections of this process: their number, how long each may wait, and the bytes of request bodies
in memory.

One timer serves them all. A connection states what it waits for; `overdue` decides.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, MutableMapping
from typing import Any, Protocol

from msgspec import Struct

from proxy.schema.errors import ProxyError
from proxy.server.http1.reading import Resting
from proxy.server.http1.refusal import RefusalWriter
from proxy.server.http1.system import give_back

STATE = "mmproxy.connections"  # the key in the ASGI lifespan state
_SHEDS_S = 1.0
_TRIM_BYTES = 16 * 1024 * 1024  # after this many bytes were freed, the allocator returns its pages to the system


class Limits(Struct, frozen=True):
    """Seconds and bytes. `idle_s`: a connection between two requests; `send_s`: a client that reads nothing."""

    head_s: float = 10.0
    body_s: float = 30.0  # without a byte
    whole_body_s: float = 600.0
    idle_s: float = 75.0  # longer than the idle time-outs of clients' pools, so that they close first
    send_s: float = 30.0
    linger_s: float = 1.0
    sweep_s: float = 0.5  # the precision of all these times
    connections: int = 4096
    body_bytes: int = 256 * 1024 * 1024  # of all requests together, until their answers are complete


class Connection(Protocol):
    """The interface of a connection."""

    @property
    def unfinished_bytes(self) -> int:
        """Bytes of the body that is being read."""

    def overdue(self, now: float, limits: Limits) -> None:
        """Closes the connection if it has waited too long."""

    def evict(self) -> None:
        """Closes the connection to make room for others."""

    def refuse_body(self) -> None:
        """Answers 503 instead of reading on."""


class Counters(Struct):
    """For metrics, changed in place."""

    timed_out: int = 0  # heads, bodies, idle connections and readers
    evicted: int = 0  # to make room for others
    refused_bodies: int = 0
    malformed: int = 0


class Connections:
    """All connections of one process. `shed` returns why a request (method, path) is refused at its head, given
    the number of requests that are `coming`.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        shed: Callable[[str, str, int], ProxyError | None] = lambda _method, _path, _coming: None,
    ) -> None:
        self.limits = limits or Limits()
        self._shed = shed
        # Under overload, connections whose whole request is admitted but not with its handler yet. Without them, all
        # requests of one turn of the loop would see the same free place, and be refused only after the work that a
        # refusal should save.
        self._coming: set[Connection] = set()
        self.shed_at = -math.inf  # the loop's time when a request was last refused at its head
        self.counters = Counters()
        self.body_bytes = 0
        self.refusals = RefusalWriter()
        self.resting = Resting()
        self._all: dict[Connection, None] = {}
        # Both in order of age: connections without a whole head yet, and connections between two requests.
        self._silent: dict[Connection, None] = {}
        self._idle: dict[Connection, None] = {}
        self._freed = 0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._all)

    def read(self) -> dict[str, float]:
        """The values for metrics, by family."""
        return {
            "mmproxy_connections": len(self._all),
            "mmproxy_body_bytes": self.body_bytes,
            "mmproxy_connections_timed_out": self.counters.timed_out,
            "mmproxy_connections_evicted": self.counters.evicted,
            "mmproxy_bodies_refused": self.counters.refused_bodies,
            "mmproxy_malformed_requests": self.counters.malformed,
        }

    @property
    def has_room(self) -> bool:
        """True if one more connection fits without evicting another."""
        return len(self._all) < self.limits.connections

    def shed(self, method: str, path: str, connection: Connection | None = None) -> ProxyError | None:
        """Why a request is refused at its head; None: it is not, or was already admitted."""
        return None if connection in self._coming else self._shed(method, path, len(self._coming))

    def sheds(self, now: float) -> bool:
        """True if a request was refused at its head so recently that the next ones are likely to be."""
        return now - self.shed_at < _SHEDS_S

    def expect(self, connection: Connection) -> None:
        """Records that its whole request is admitted. `arrived` or `remove` follows."""
        self._coming.add(connection)

    def arrived(self, connection: object) -> None:
        """Records that its request is with its handler."""
        self._coming.discard(connection)

    def add(self, connection: Connection) -> bool:
        """Adds a connection; the one idle for the longest time makes room. False: there is no room."""
        if not self.has_room:
            victim = next(iter(self._silent), None) or next(iter(self._idle), None) or self._largest_unfinished()
            if victim is None:
                return False
            self.counters.evicted += 1
            self.remove(victim)
            victim.evict()
        self._silent[connection] = None
        self._enter(connection)
        return True

    def add_idle(self, connection: Connection) -> None:
        """Adds one whose first request is already answered. Only while it `has_room`."""
        self._idle[connection] = None
        self._enter(connection)

    def _enter(self, connection: Connection) -> None:
        self._all[connection] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.limits.sweep_s, self._sweep)

    def remove(self, connection: Connection) -> None:
        """Removes a connection that is closed, or about to be."""
        self._all.pop(connection, None)
        self._silent.pop(connection, None)
        self._idle.pop(connection, None)
        self._coming.discard(connection)

    def note_busy(self, connection: Connection) -> None:
        """Records that it has sent a whole head."""
        self._silent.pop(connection, None)
        self._idle.pop(connection, None)

    def note_idle(self, connection: Connection) -> None:
        """Records that its last request is answered."""
        if connection in self._all:
            self._idle[connection] = None

    def hold(self, size: int) -> None:
        """Counts bytes of a body. Beyond the limit the largest unfinished body is refused, so that a few slow ones
        cannot block all others.
        """
        self.body_bytes += size
        while self.body_bytes > self.limits.body_bytes:
            largest = self._largest_unfinished()
            if largest is None:
                return
            self.counters.refused_bodies += 1
            largest.refuse_body()

    def release(self, size: int) -> None:
        """Releases the bytes of a body whose request has ended."""
        self.body_bytes -= size
        self._freed += size

    def _largest_unfinished(self) -> Connection | None:
        found = max(self._all, key=lambda each: each.unfinished_bytes, default=None)
        return found if found is not None and found.unfinished_bytes else None

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in list(self._all):
            connection.overdue(now, self.limits)
        if self._freed > _TRIM_BYTES:
            self._freed = 0
            give_back()
        self._timer = loop.call_later(self.limits.sweep_s, self._sweep) if self._all else None


def connections_of(state: MutableMapping[str, Any]) -> Connections:
    """The connections from the application's lifespan state; without any, unshared ones with default limits."""
    found = state.get(STATE)
    if found is None:
        found = state[STATE] = Connections()
    assert isinstance(found, Connections)
    return found
