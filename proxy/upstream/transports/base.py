"""The contract of a transport: it sends one HTTP request to an origin and hands out the answer piece by piece.

No redirects, no cookies, no HTTP proxy but the given one, no decompression (requests ask for `identity`). Cancelling
the awaiting task closes the connection at once, in every phase, so that the provider stops working.

A failure is one of three, each a statement about the request:

    ConnectFailed         nothing was sent: no connection, no such name, TLS refused
      ConnectTimedOut     the same, because looking up the name and connecting took too long
    ConnectionLost        the request was sent; no whole answer will come
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from msgspec import Struct

MAX_PIECE_BYTES = 32 * 1024  # of one read, so that a reader's work on one piece is a bounded step on the event loop
SLICE_BYTES = 1024 * 1024  # of a request's body that leave in one turn of the loop: to encrypt 30 MB takes 20 to 80 ms
READ_BUFFER_BYTES = 16 * 1024  # beyond twice this the socket is not read: a slow client slows the provider
SOCKET_BUFFER_BYTES = 128 * 1024  # SO_RCVBUF, so that the kernel does not take in megabytes for a client that stalls

# Servers end a stream's body in a packet of its own, after their end marker. A connection is kept for the next request
# if that packet comes within this time; no caller waits for it.
LINGER_S = 0.05
MAX_LINGERING = 256  # connections of one transport; more are closed at once

# A server may close an idle connection at the moment a request is on its way to it. A client may then send the request
# again if it knows that the first one was not applied (RFC 9110, 9.2.2; RFC 9112, 9.3.1). The evidence here: the
# connection was kept from an earlier request, it ended before one byte of an answer, and it ended at once, within a
# round trip and not after a time in which a model may have worked. Browsers and curl repeat requests on these terms,
# POST included, though without the time limit. A request on a new connection is never repeated.
STALE_S = 1.0

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Looks up a host (and port): its addresses as text. Raises OSError."""


class ConnectFailed(Exception):
    """No connection: nothing was sent. The text is the reason as a phrase, "" if it is unknown."""


class ConnectTimedOut(ConnectFailed):
    """No connection within the time given, the look-up of the name included."""


class ConnectionLost(Exception):
    """The connection broke or spoke something that is not HTTP; no more will arrive. The text is as in
    ConnectFailed if the head of the answer is missing.
    """


class HeaderBlock:
    """Header lines, checked and encoded once, that every request to one origin carries. Names become lower case."""

    __slots__ = ("lines", "names", "pairs")

    def __init__(self, headers: Mapping[str, str]) -> None:
        """Raises ValueError for a name or value that would end its line."""
        self.pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        self.names = frozenset(name.lower() for name in headers)
        self.lines = encoded(headers)


class Outgoing(Struct, frozen=True):
    """One request: `fixed` headers are its origin's, `headers` its own. No name is in both."""

    method: str
    url: str
    fixed: HeaderBlock
    headers: Mapping[str, str] = {}
    body: bytes = b""


class Answer(Protocol):
    """An answer whose headers have arrived. Header names are lower case; of repeated ones the first counts."""

    status: int
    headers: dict[str, str]

    def read_nowait(self) -> bytes | None:
        """The next piece if it has arrived, as `read` returns it; None: `read` has to wait, or to raise."""
        ...

    async def read(self) -> bytes:
        """The next piece of the body, at most MAX_PIECE_BYTES; `b""` at its end.

        Raises ConnectionLost when the connection breaks before that, after it has returned everything that had arrived.
        """
        ...

    def close(self, *, complete: bool = False) -> None:
        """Keeps the connection if the body was read to its end, else closes it at once. Returns immediately.

        `complete`: the caller has all it needs, and only the end of the body is missing. The connection is kept if that
        comes within LINGER_S.
        """
        ...


class Transport(Protocol):
    async def send(self, request: Outgoing, connect_timeout_s: float, on_sent: Callable[[], None]) -> Answer:
        """Sends one request and waits for the headers of its answer.

        `connect_timeout_s` covers the name look-up, the connection and TLS. `on_sent` is called when there is a
        connection and the request's first byte is about to be sent; twice if a stale connection is replaced
        (STALE_S). Raises ConnectFailed, ConnectTimedOut, ConnectionLost.
        """
        ...

    async def close(self) -> None:
        """Closes every connection."""
        ...

    @property
    def active(self) -> int:
        """Requests in flight, for tests and metrics."""
        ...


def encoded(headers: Mapping[str, str]) -> bytes:
    """Header lines as they are sent. Raises ValueError for a name or value that would end its line."""
    text = "".join([f"{name.lower()}: {value}\r\n" for name, value in headers.items()])
    if text.count("\n") != len(headers) or text.count("\r") != len(headers) or "\0" in text:
        raise ValueError("a header holds a line end or a zero byte")
    return text.encode()
