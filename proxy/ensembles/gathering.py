"""Orchestrates: waits for all members of a panel, and groups equal answers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from typing import Any

from msgspec import Struct

from proxy.ensembles.base import Panel, Reply, Seat, missed
from proxy.ensembles.tool_votes import calls_of, parts_of
from proxy.schema.chat import ResponseMessage, text_of


class Gathered(Struct, frozen=True):
    """Members that gave the same answer. `reply` is the first of theirs, `digest` identifies the answer.

    No difference that a client can see depends on the order of the members.
    """

    digest: str
    replies: tuple[Reply, ...]

    @property
    def reply(self) -> Reply:
        return self.replies[0]

    @property
    def weights(self) -> list[float]:
        return [reply.seat.weight for reply in self.replies if reply.seat]

    @property
    def weight(self) -> float:
        return sum(self.weights)

    @property
    def models(self) -> list[str]:
        return [reply.seat.name for reply in self.replies if reply.seat]

    @property
    def is_empty(self) -> bool:
        """True for an answer without text and calls, a refusal included."""
        return not calls_of(self.reply.message) and not self.reply.text.strip()


async def gather(panel: Panel, quorum: int) -> list[Reply]:
    """The replies of all seats, in the order of the seats. Raises QuorumMissed if too few of them answered."""
    replies: list[Reply] = []
    async with aclosing(panel.replies(panel.seats)) as coming:
        async for reply in coming:
            replies.append(reply)
            if reply.response is not None:
                count = sum(each.response is not None for each in replies)
                panel.progress(f"{count} of {len(panel.seats)} answered.")
    replies.sort(key=lambda reply: reply.seat.index if reply.seat else -1)
    if sum(reply.response is not None for reply in replies) < quorum:
        raise missed(panel, replies, quorum)
    return replies


async def one(panel: Panel, seat: Seat) -> Reply:
    """The reply of a single seat."""
    async with aclosing(panel.replies([seat])) as coming:
        return await anext(coming)


def distinct(replies: Iterable[Reply]) -> list[Gathered]:
    """The distinct answers: those of heavier members first, then by their digest."""
    groups: dict[str, list[Reply]] = {}
    for reply in replies:
        if reply.response is not None:
            groups.setdefault(digest_of(reply.message), []).append(reply)
    found = [Gathered(digest, tuple(group)) for digest, group in groups.items()]
    return sorted(found, key=lambda each: (-each.weight, each.digest))


def digest_of(message: ResponseMessage) -> str:
    """A digest of what a message says."""
    digest = hashlib.sha256()
    for piece in said_by(message):
        data = piece.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()


def said_by(message: ResponseMessage) -> list[str]:
    """The content of a message: its text and tool calls, without the ids of the calls."""
    pieces = [text_of(message.get("content")).strip(), message.get("refusal") or ""]
    return [*pieces, *(part for call in calls_of(message) for part in parts_of(call))]


def attempts_of(replies: Sequence[Reply]) -> tuple[str, ...]:
    return tuple(attempt for reply in replies for attempt in reply.attempts)


def error_of(reply: Reply) -> dict[str, Any]:
    """The error of an ask, for the report."""
    error = reply.error
    return {"code": error.code or "error", "message": error.message[:300]} if error else {}
