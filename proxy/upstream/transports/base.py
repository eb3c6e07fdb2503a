"""The contract of a transport: one HTTP request to an origin, its answer read piece by piece.

No redirects, no cookies, no proxies from the environment, no decompression (requests ask for `identity`). Cancelling
the
awaiting task closes the connection at once, in every phase, so that the provider stops working.
"""

from __future__ import annotations

from typing import Protocol


class ConnectFailed(Exception):
    """No connection: nothing was sent."""


class ConnectTimedOut(ConnectFailed):
    """No connection within the time given."""


class ConnectionLost(Exception):
    """The connection broke or spoke something that is not HTTP; what arrived so far is all there is."""


class Answer(Protocol):
    """An answer whose headers have arrived. Header names are lower case; of repeated ones the first counts."""

    status: int
    headers: dict[str, str]

    async def read(self) -> bytes:
        """The next piece of the body, `b""` at its end. Raises ConnectionLost when it ends before its end."""
        ...

    async def close(self) -> None:
        """Gives the connection back when the body was read to its end, else closes it at once; waits for nobody."""
        ...


class Transport(Protocol):
    async def send(
        self, method: str, url: str, headers: dict[str, str], body: bytes, connect_timeout_s: float
    ) -> Answer:
        """Sends one request and waits for the headers of its answer. Raises ConnectFailed, ConnectTimedOut,
        ConnectionLost.
        """
        ...

    async def close(self) -> None:
        """Closes every connection."""
        ...

    @property
    def active(self) -> int:
        """Requests in flight, for tests and metrics."""
        ...
