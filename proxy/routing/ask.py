"""Values: `Ask`, by which an ensemble or a route asks other names, and what it gets.

An ask has its own fallback order and its own gate `COMMITTED`, and touches nothing of the call it serves. Several may
run at once. Cancelling the task that awaits one closes its upstream connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from msgspec import Struct

from proxy.routing.names import Deployment
from proxy.schema.chat import AnyRequest, AnyResponse, ChatChunk, ChatRequest

Sink = Callable[[list[ChatChunk]], Awaitable[None] | None]
"""Takes a batch of chunks. What it returns is awaited before the next batch: that is the back-pressure."""


class Origin(Struct, frozen=True):
    """Where an ask stands in the tree of attempts: the attempt that it follows from, and its seat beside others."""

    parent: str | None = None
    seat: int = 0


CALL = Origin()  # an ask of the call itself


class Answer(Struct, frozen=True):
    """The answer to one ask. `response` is None where it was streamed.

    `attempts` are the ids of the attempts whose answers it is made of, `deployments` who made them, in the same order:
    several where choices or members were asked for side by side.
    """

    response: AnyResponse | None
    attempts: tuple[str, ...]
    deployments: tuple[Deployment, ...]


class Ask(Protocol):
    """Lent for one call."""

    async def ask(self, name: str, request: AnyRequest, origin: Origin = CALL) -> Answer:
        """The whole answer of whoever `name` stands for.

        Raises ProxyError for a name that nobody answers to or that is not for this caller, else the last candidate's
        UpstreamError, or BadRequest for what the first candidate cannot be sent.
        """
        ...

    async def stream(self, name: str, request: ChatRequest, sink: Sink, origin: Origin = CALL) -> Answer:
        """The same, streamed into `sink`. Once a batch was taken, no other candidate answers."""
        ...
