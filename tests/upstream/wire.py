"""Values: what a vendor's wire is to the fault layer. One module per wire; the fault layer knows none of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from msgspec import Struct

from tests.upstream.http1 import Request
from tests.upstream.modes import Script


class Ask(Struct):
    """One understood request: `body` as its wire decoded it, `raw` as it came; `seq` makes the answer's ids unique."""

    model: str
    stream: bool
    body: Any
    raw: bytes
    seq: int


class Refused(Exception):
    """The request is not one the vendor would take: answered with `status` and `body`."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


class Frame(Struct):
    """A piece of an answer: one event of a stream with its line ends, or the whole of an answer that is not streamed.

    `tokens`: how many tokens it carries. `finish`: it says why the answer ended. `end`: it is the end marker.
    """

    data: bytes
    tokens: int = 0
    finish: bool = False
    end: bool = False
    usage: dict[str, Any] | None = None


class Wire(Protocol):
    """One vendor's way to say it."""

    def claims(self, path: str) -> bool:
        """Whether requests to this path are answered by this wire."""
        ...

    def lookup(self, request: Request) -> tuple[int, bytes] | None:
        """Status and body for what is not an attempt (lists of models); None for the rest."""
        ...

    def headers(self, seq: int, script: Script) -> list[tuple[str, str]]:
        """Response headers of every answer, besides those of HTTP itself."""
        ...

    def ask(self, request: Request, seq: int) -> Ask:
        """Raises Refused."""
        ...

    def frames(self, ask: Ask, script: Script) -> Iterator[Frame]:
        """A streamed answer, event by event."""
        ...

    def whole(self, ask: Ask, script: Script) -> Frame:
        """The same answer in one piece."""
        ...

    def error(self, status: int, code: str | None, model: str) -> bytes:
        """The body of an error answer; `code` overrides the one that is usual for the status."""
        ...

    def error_frame(self, status: int, code: str | None, model: str) -> bytes:
        """An error as an event of a stream that already began."""
        ...
