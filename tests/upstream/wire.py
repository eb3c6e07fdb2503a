"""Values: what a vendor's wire is to the fault layer. One module per wire; the fault layer knows none of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import msgspec
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


class Strict(Struct, forbid_unknown_fields=True):
    """A part of a request that has no fields but its own."""


class Wire(Protocol):
    """One vendor's way to say it."""

    def claims(self, path: str) -> bool:
        """Whether requests to this path are answered by this wire."""
        ...

    def lookup(self, request: Request) -> tuple[int, bytes] | None:
        """Status and body for what is not an attempt (lists of models); None for the rest."""
        return None

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
        return b"data: " + self.error(status, code, model) + b"\n\n"


class Wanted(Struct):
    """What a request of any vendor asks for, in one form: what the mode `actor` reads to answer like a model would.

    `choice`: auto, none, any, or the name of the tool that must be called. `schema`: of the JSON answer that is wanted;
    `json`: any JSON object. `media`: kinds of content parts beside text, in order. `results`: texts of tool results.
    """

    text: str = ""
    system: str = ""
    turns: int = 1
    tools: dict[str, dict[str, Any]] = {}
    choice: str = "auto"
    parallel: bool = True
    schema: dict[str, Any] | None = None
    json: bool = False
    stops: list[str] = []
    max_tokens: int | None = None
    n: int = 1
    media: list[str] = []
    results: list[str] = []
    reasoning: bool = False


class Said(Struct):
    """What the model says in one choice, before any vendor's wire: texts in tokens, calls as (name, JSON arguments).

    `finish`: one of OpenAI's five words.
    """

    tokens: list[str] = []
    reasoning: list[str] = []
    calls: list[tuple[str, str]] = []
    refusal: bool = False
    finish: str = "stop"


def quoting(ask: Ask) -> bytes:
    """An error that quotes the request, as vendors do."""
    text = ask.raw.decode()
    said = msgspec.json.decode(ask.raw)["messages"][-1]["content"]
    message = f"Invalid value at messages.0.content: it contains {said}, which is not supported. You sent: '{text}'"
    return msgspec.json.encode(
        {"error": {"message": message, "type": "invalid_request_error", "code": "invalid_value"}}
    )
