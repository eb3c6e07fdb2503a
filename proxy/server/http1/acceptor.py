"""Performs I/O: accepts connections, many in one turn of the event loop.

libuv accepts one connection per turn. Under overload turns are long and many connections wait, so calls and `/livez`
took seconds to be accepted. While requests are refused at their heads, a new connection whose small request has fully
arrived is refused on its bare socket: a transport and a protocol would double the processor time.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import uvloop

from proxy.schema.errors import ProxyError
from proxy.server.http1.connections import Connections, Limits
from proxy.server.http1.protocol import HTTP1Protocol
from proxy.server.http1.refusal import WHOLE_MAX, whole_post

_PER_TURN = 256
_PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)  # joining the flags each time would take longer than the peek
# For a last answer, which is sent with the end of the connection in one segment.
_WITH_END = int(socket.MSG_DONTWAIT | getattr(socket, "MSG_MORE", 0))
_RETRY_S = 0.1  # if accepting fails because the process has no descriptor left, or the system no memory


class Loop(uvloop.Loop):
    """uvicorn's usual event loop, except that its server on a given socket is an `Acceptor`."""

    async def create_server(self, protocol_factory: Any, *args: Any, **options: Any) -> Any:
        sock = options.get("sock")
        if sock is None or options.get("ssl") is not None:
            return await super().create_server(protocol_factory, *args, **options)
        return Acceptor(self, protocol_factory, sock)


class Acceptor:
    """Accepts on one listening socket, which remains its owner's. Used like an asyncio server."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, protocol_factory: Callable[[], HTTP1Protocol], listener: socket.socket
    ) -> None:
        self._loop = loop
        self._protocol_factory = protocol_factory
        self._front = protocol_factory()  # has no connection; it holds what all protocols share
        self._listener = listener
        self._rested: set[_Rested] = set()
        self._opening: set[asyncio.Task[tuple[asyncio.Transport, HTTP1Protocol]]] = set()
        self._retry: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._kind = int(listener.family), int(listener.type), listener.proto
        listener.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Stops accepting, and closes the connections that uvicorn does not know."""
        self._is_closed = True
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_reader(self._listener.fileno())
        for rested in list(self._rested):
            rested.evict()

    async def wait_closed(self) -> None:
        """Does nothing: uvicorn waits for its connections itself."""

    def _listen(self) -> None:
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        now = self._loop.time()
        sheds = self._front.connections.sheds(now)
        for _ in range(_PER_TURN):
            try:
                # `accept` would take twice as long because of the enums of the new socket's kind.
                descriptor, _ = self._listener._accept()  # type: ignore[attr-defined]
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:
                self._loop.remove_reader(self._listener.fileno())
                self._retry = self._loop.call_later(_RETRY_S, self._listen)
                return
            sock = socket.socket(*self._kind, descriptor)
            protocol = self._let_in(sock, now) if sheds else self._protocol_factory()
            if protocol is not None:
                self._open(sock, protocol)

    def _let_in(self, sock: socket.socket, now: float) -> HTTP1Protocol | None:
        """The protocol of an admitted connection, whose bytes stay in the socket; None: its whole request is
        refused.
        """
        try:
            data = sock.recv(WHOLE_MAX, _PEEK)
        except OSError:
            data = b""
        post = whole_post(data)
        connections = self._front.connections
        error = None if post is None else connections.shed("POST", post.path)
        if post is not None and error is not None:
            connections.shed_at = now
            self._refuse(sock, error, len(data), keep_alive=post.keep_alive)
            return None
        protocol = self._protocol_factory()
        if post is not None:
            connections.expect(protocol)
        return protocol

    def _refuse(self, sock: socket.socket, error: ProxyError, size: int, *, keep_alive: bool) -> None:
        connections = self._front.connections
        keep_alive = keep_alive and connections.has_room and connections.resting.has_room
        answer = connections.refusals.write(error, self._front.default_headers, keep_alive=keep_alive)
        try:
            sock.recv(size)  # closing with unread bytes would reset the connection
            sock.send(answer, socket.MSG_DONTWAIT if keep_alive else _WITH_END)
        except OSError:  # the client has disconnected
            keep_alive = False
        if keep_alive:
            self._rested.add(_Rested(sock, connections, self._end_rest))
        else:
            sock.close()

    def _end_rest(self, rested: _Rested, sock: socket.socket | None) -> None:
        self._rested.discard(rested)
        if sock is not None:
            protocol = self._protocol_factory()
            protocol.is_used = True
            self._open(sock, protocol)

    def _open(self, sock: socket.socket, protocol: HTTP1Protocol) -> None:
        """Gives the connection a transport."""
        sock.setblocking(False)
        task = self._loop.create_task(self._loop.connect_accepted_socket(lambda: protocol, sock))
        self._opening.add(task)
        task.add_done_callback(partial(self._opened, protocol))

    def _opened(self, protocol: HTTP1Protocol, task: asyncio.Task[tuple[asyncio.Transport, HTTP1Protocol]]) -> None:
        self._opening.discard(task)
        if task.cancelled() or task.exception() is not None:
            protocol.connections.remove(protocol)
        elif self._is_closed:
            protocol.shutdown()  # it came too late for uvicorn to notify it


class _Rested:
    """A kept connection whose request was refused on its bare socket; the next one is not read for a moment. Most
    clients have disconnected by then. `ended` is called with the socket of one that has not.
    """

    __slots__ = ("_connections", "_ended", "_is_closed", "_sock")
    unfinished_bytes = 0

    def __init__(
        self,
        sock: socket.socket,
        connections: Connections,
        ended: Callable[[_Rested, socket.socket | None], None],
    ) -> None:
        self._sock = sock
        self._connections = connections
        self._ended = ended
        self._is_closed = False
        connections.add_idle(self)
        connections.resting.add(self._resume)

    def _resume(self) -> None:
        if self._is_closed:
            return
        try:
            has_left = not self._sock.recv(1, _PEEK)
        except BlockingIOError:
            has_left = False
        except OSError:
            has_left = True
        if has_left:
            self.evict()
        else:
            self._connections.remove(self)
            self._ended(self, self._sock)

    def evict(self) -> None:
        self._is_closed = True
        self._connections.remove(self)
        self._sock.close()
        self._ended(self, None)

    def overdue(self, now: float, limits: Limits) -> None:
        """Does nothing: its rest ends by itself."""

    def refuse_body(self) -> None:
        """Does nothing: there is no body."""
