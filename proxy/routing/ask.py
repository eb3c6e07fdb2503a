"""Values: `Ask`, the interface through which an ensemble or a route asks other models, and its answers.

An ask has its own fallback order and its own gate `COMMITTED`, and does not touch the call it serves. Asks may run
concurrently. Cancelling the task that awaits an ask closes its upstream connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from msgspec import Struct

from proxy.routing.deployment import Deployment
from proxy.schema.chat import ChatChunk, ChatRequest
from proxy.schema.endpoints import AnyRequest, AnyResponse

Sink = Callable[[list[ChatChunk]], Awaitable[None] | None]
"""Takes a batch of chunks. A returned awaitable is awaited before the next batch: that is the back-pressure."""


class Origin(Struct, frozen=True):
    """An ask's place in the tree of attempts: the attempt that caused it, and its seat among concurrent ones."""

    parent: str | None = None
    seat: int = 0


CALL = Origin()  # an ask of the call itself


class Answer(Struct, frozen=True):
    """The answer to one ask. `response` is None if it was streamed.

    `attempts` are the ids of the attempts that make up the answer, `deployments` their deployments in the same order.
    There are several if choices or members were asked concurrently.
    """

    response: AnyResponse | None
    attempts: tuple[str, ...]
    deployments: tuple[Deployment, ...]


class Ask(Protocol):
    """Asks models by name, on behalf of one call."""

    async def ask(self, name: str, request: AnyRequest, origin: Origin = CALL) -> Answer:
        """The whole answer of the model that `name` stands for.

        Raises ProxyError for an unknown or forbidden model, the last candidate's UpstreamError, or BadRequest for a
        request the first candidate cannot take.
        """
        ...

    async def stream(self, name: str, request: ChatRequest, sink: Sink, origin: Origin = CALL) -> Answer:
        """The same, streamed into `sink`. After the first batch, no other candidate answers."""
        ...
