"""Performs I/O: one connection, as an asyncio protocol under uvicorn's server.

    bytes -RequestReader-> Exchange, Exchange, ...   answered one at a time, in order of arrival

uvicorn's own protocol waits forever for heads, bodies and readers, and does not notice every client that disconnects.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from proxy.schema.errors import ProxyError
from proxy.server.api.answers import NO_STORE, new_id, raw_headers
from proxy.server.http1.connections import Connections, Limits, connections_of
from proxy.server.http1.exchange import UNREAD_MAX, Exchange
from proxy.server.http1.peer import EXTENSION
from proxy.server.http1.reader import Head, RequestReader
from proxy.server.http1.reading import Reading
from proxy.server.http1.refusal import overloaded
from proxy.server.http1.system import prepared

_PIPELINED_MAX = 16  # requests queued after the one being answered
_DISCARD_MAX = 1024 * 1024  # of a refused body, so that its connection stays usable
_LINGER_MAX = 64 * 1024 * 1024  # discarded after the last answer of a connection
_BURST_MAX = 64 * 1024  # bytes written before the loop turns


class HTTP1Protocol(asyncio.Protocol):
    """One connection. The arguments are uvicorn's."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self.loop = _loop or asyncio.get_running_loop()
        self.transport: asyncio.Transport
        self._app: Any = config.loaded_app
        self._server = server_state
        self.connections: Connections = connections_of(app_state)
        self._reader = RequestReader(self)
        self._exchanges: deque[Exchange] = deque()  # in order of arrival; the first is being answered
        self._receiving: Exchange | None = None  # whose body is being read
        self._last_error: ProxyError | None = None  # to be sent once all exchanges are answered
        self._lingers_until: float | None = None  # everything is sent, and further input is discarded
        self._lingered = 0
        self._is_broken = False  # further input on this connection is not a request
        self._has_begun = False  # part of a head has arrived
        self._origin: dict[str, Any] = {}  # the common part of all requests' scopes
        self._refusal: ProxyError | None = None  # of the request being read; not sent yet
        self._is_refused = False  # the rest of a refused request is still arriving
        self._writable: asyncio.Event | None = None  # exists while the client does not read
        self.is_used = False  # it has had a request
        self._burst = 0
        self._written = self._taken = 0  # bytes handed to the transport, and to the kernel
        self._since = self._last_byte = self._body_since = self._taken_at = self.loop.time()

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        return self._server.default_headers

    @property
    def is_writable(self) -> bool:
        """True if the client reads what is written, as far as known, and the loop need not turn first (`drained`)."""
        return self._writable is None and self._burst <= _BURST_MAX and not self.transport.is_closing()

    # --- asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._input = Reading(self.transport, self.connections.resting, self._left)
        self._server.connections.add(cast(Any, self))
        if not self.connections.add(self):
            self._reader.done = True
            self._answer(Exchange(self, _NO_REQUEST), overloaded("Too many connections. Try again in a moment."))

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(cast(Any, self))
        self.connections.remove(self)
        self._reader.done = True
        self.resume_writing()
        self._drop_exchanges()

    def eof_received(self) -> bool:
        """The client sends no more. Requests that have fully arrived are answered, unless their handlers give up."""
        self._reader.done = True
        if self._receiving is not None or not self._exchanges:
            return False  # closes the transport
        self._left()
        self._exchanges[-1].keep_alive = False
        return True

    def pause_writing(self) -> None:
        self._writable = self._writable or asyncio.Event()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None:
            writable.set()

    def data_received(self, data: bytes) -> None:
        self._last_byte = self.loop.time()
        if self._lingers_until is not None:
            self._lingered += len(data)
            if self._lingered > _LINGER_MAX:
                self.transport.abort()
            return
        try:
            self._reader.feed(data)
        except ProxyError as error:
            self.connections.counters.malformed += 1
            self._refuse(error)
            return
        if (refusal := self._refusal) is not None:
            self._send_refusal(refusal, is_whole=False)

    # --- the reader's events ---

    def begin(self) -> None:
        self._has_begun = True
        if not self._exchanges:
            self._since = self._last_byte

    def head(self, head: Head) -> None:
        self._has_begun, self.is_used = False, True
        self.connections.note_busy(self)
        if not self._exchanges and (refusal := self.connections.shed(head.method, head.path, self)) is not None:
            self._refusal, self._stays_open = refusal, head.may_be_refused_alone(_DISCARD_MAX)
            return
        self._origin = self._origin or prepared(self.transport)
        scope = head.scope(self._origin)
        exchange = Exchange(self, scope, keep_alive=head.keep_alive, expects_continue=head.expects_continue)
        exchange.starts_early |= (head.length or 0) > UNREAD_MAX
        self._receiving = exchange
        self._exchanges.append(exchange)
        self._body_since = self._last_byte
        if len(self._exchanges) > 1:
            if len(self._exchanges) > _PIPELINED_MAX:
                self.pause_reading()
        elif exchange.starts_early:
            self._start(exchange)

    def body(self, piece: bytes) -> None:
        exchange = self._receiving
        if exchange is not None and exchange.feed(piece):
            if exchange.is_ready and exchange is self._exchanges[0]:
                self._start(exchange)
            self.connections.hold(len(piece))

    def end(self) -> None:
        exchange, self._receiving = self._receiving, None
        if exchange is not None:
            exchange.end()
            if not exchange.complete and exchange is self._exchanges[0]:
                self._start(exchange)
        elif (refusal := self._refusal) is not None:
            self._send_refusal(refusal, is_whole=True)
        elif self._is_refused:
            self._is_refused = False
            self._input.rest()

    # --- answering ---

    def _send_refusal(self, error: ProxyError, *, is_whole: bool) -> None:
        """Refuses the request that is being read, which has no scope, exchange or task."""
        self._refusal, self._is_refused = None, not is_whole
        self._server.total_requests += 1
        self.connections.shed_at = self._last_byte
        self.write(self.connections.refusals.write(error, self.default_headers, keep_alive=self._stays_open))
        if not self._stays_open:
            self._finish()
            return
        self._since = self._last_byte
        self.connections.note_idle(self)
        if is_whole:
            self._input.rest()

    def _start(self, exchange: Exchange) -> None:
        if exchange.task is None:
            exchange.scope["extensions"][EXTENSION] = exchange.peer
            if exchange.whole and self.connections.sheds(self._last_byte):
                self.connections.expect(self)
            exchange.task = self.loop.create_task(exchange.run(self._app))
            self._server.tasks.add(exchange.task)
            exchange.task.add_done_callback(self._server.tasks.discard)

    def answered(self, exchange: Exchange) -> None:
        """The last byte of an answer has been sent. Continues with the next request, or waits for one."""
        self._server.total_requests += 1
        self._release(exchange)
        if exchange in self._exchanges:
            self._exchanges.remove(exchange)
        if not exchange.keep_alive:
            self._finish()
            return
        self.resume_reading()
        if self._exchanges:
            if self._exchanges[0].is_ready:
                self._start(self._exchanges[0])
        elif self._last_error is not None:
            self._answer(Exchange(self, _NO_REQUEST), self._last_error)
        else:
            self._since = self.loop.time()
            self.connections.note_idle(self)

    def _answer(self, exchange: Exchange, error: ProxyError) -> None:
        headers = {**NO_STORE, **error.headers, "x-request-id": new_id()}
        exchange.answer_error(error, raw_headers(headers))

    def _refuse(self, error: ProxyError) -> None:
        """Sends an error after the answers in progress, and reads no further request."""
        self._reader.done = self._is_broken = True
        broken, self._receiving = self._receiving, None
        if broken is not None:
            broken.leave()
            self._release(broken)
            if broken.started and not broken.complete:
                self.transport.abort()  # an unfinished answer has no place for an error
                return
            if broken in self._exchanges:
                self._exchanges.remove(broken)
        if self._exchanges:
            self._last_error = error
        else:
            self._answer(Exchange(self, _NO_REQUEST), error)

    def _finish(self) -> None:
        """Closes once everything is sent. With unread bytes that would be a reset, and a client that reads its answer
        only after its own last byte would lose it: so further input is read for a moment.
        """
        lingers = self._receiving is not None or self._is_refused or self._is_broken
        self._drop_exchanges()
        self._reader.done = True
        if not lingers or not self.transport.can_write_eof():
            self.transport.close()
        elif not self.transport.is_closing():
            self._lingers_until = self.loop.time() + self.connections.limits.linger_s
            self.resume_reading()
            self.transport.write_eof()

    def _drop_exchanges(self) -> None:
        self._receiving = None
        for exchange in self._exchanges:
            exchange.leave()
            self._release(exchange)
        self._exchanges.clear()

    def _release(self, exchange: Exchange) -> None:
        self.connections.release(exchange.size)
        exchange.size = 0

    # --- called by exchanges ---

    def write(self, data: bytes | memoryview) -> None:
        if not self.transport.is_closing():
            self._written += len(data)
            self._burst += len(data)
            self.transport.write(data)

    async def drained(self) -> None:
        """Returns once the client reads again, or is gone. uvloop writes, and notices that the client does not read,
        only when the loop turns: so an application that never waits must let it turn.
        """
        if self._burst > _BURST_MAX:
            self._burst = 0
            await asyncio.sleep(0)
        while self._writable is not None and not self.transport.is_closing():
            await self._writable.wait()

    def close(self) -> None:
        self.transport.close()

    def pause_reading(self) -> None:
        self._input.pause()

    def resume_reading(self) -> None:
        if len(self._exchanges) <= _PIPELINED_MAX and self._input.resume():
            self._last_byte = self.loop.time()

    def _left(self) -> None:
        for exchange in self._exchanges:
            exchange.leave()

    # --- called by `Connections` and by uvicorn ---

    @property
    def unfinished_bytes(self) -> int:
        receiving = self._receiving
        return 0 if receiving is None or receiving.complete else receiving.size

    def overdue(self, now: float, limits: Limits) -> None:
        """Closes the connection if it has waited too long."""
        if self._is_stuck(now, limits):
            self.connections.counters.timed_out += 1
            self.transport.abort()
        elif self._lingers_until is not None:
            if now >= self._lingers_until:
                self.transport.abort()
        elif self._receiving is not None and not self._receiving.complete:
            if not self._input.is_paused and (
                now - self._last_byte > limits.body_s or now - self._body_since > limits.whole_body_s
            ):
                self._time_out("The rest of the request's body did not come in time.")
        elif not self._exchanges:
            if self._has_begun and now - self._since > limits.head_s:
                self._time_out("The rest of the request's head did not come in time.")
            elif now - self._since > (limits.idle_s if self.is_used else limits.head_s):
                self.transport.close()

    def _time_out(self, message: str) -> None:
        self.connections.counters.timed_out += 1
        self._refuse(ProxyError(message, status=408, code="request_timeout"))

    def _is_stuck(self, now: float, limits: Limits) -> bool:
        """True if the client has read nothing of the pending output."""
        unsent = self.transport.get_write_buffer_size()
        taken = self._written - unsent
        if not unsent or taken != self._taken:
            self._taken, self._taken_at = taken, now
        return now - self._taken_at > limits.send_s

    def evict(self) -> None:
        """Closes at once, without an answer: lingering would keep the descriptor that others need."""
        self._reader.done = True
        self._drop_exchanges()
        self.transport.abort()

    def refuse_body(self) -> None:
        self._refuse(overloaded("Other requests use all the memory for bodies. Try again in a moment."))

    def shutdown(self) -> None:
        """The server is stopping: answers the pending requests and closes."""
        if not self._exchanges:
            self.transport.close()
        else:
            self._exchanges[-1].keep_alive = False


_NO_REQUEST = {"method": "GET", "http_version": "1.1", "path": ""}
