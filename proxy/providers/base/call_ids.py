"""Translates: a request into the facts that the calls of its answer depend on: the names on offer, and the
ids in use.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import cached_property

from proxy.providers.base.answers import listed, objects
from proxy.providers.base.tools import tool_name
from proxy.schema.chat import ChatRequest

_NO_LETTER = re.compile(r"[^a-zA-Z0-9]")


class Offer:
    """The tools on offer. Computed at an answer's first call, because most have none."""

    def __init__(self, request: ChatRequest | None) -> None:
        self._request = request

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of functions and custom tools."""
        fields = self._request.fields if self._request is not None else {}
        tools = objects(fields.get("tools")) + [{"function": each} for each in objects(fields.get("functions"))]
        found = [tool_name(tool) or tool_name({"function": tool.get("custom")}) for tool in tools]
        return frozenset(name for name in found if name)

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self.names)

    @cached_property
    def is_legacy(self) -> bool:
        """True if the client reads `function_call`, because its request has no `tools`."""
        return self._request is None or not self._request.fields.get("tools")

    @cached_property
    def ids(self) -> frozenset[str]:
        """The ids of the calls so far in the conversation."""
        messages = self._request.messages if self._request is not None else []
        calls = [call for message in messages for call in listed(message.tool_calls)]
        return frozenset(call["id"] for call in calls if isinstance(call.get("id"), str))

    def extends(self, name: str) -> bool:
        """True if an offered name starts with `name` and is longer."""
        place = bisect_right(self._sorted, name)
        return place < len(self._sorted) and self._sorted[place].startswith(name)

    def begins(self, name: str) -> bool:
        """True if an offered name is `name` or starts with it."""
        return name in self.names or self.extends(name)


class CallIds:
    """Gives each call of one choice an id that no other call of the conversation has: clients, and the vendor on the
    next turn, find results by it.
    """

    def __init__(self, offer: Offer, answer_id: object = None, choice: int = 0) -> None:
        self.offer = offer
        self._answer_id = answer_id
        self._choice = choice
        self._own: set[str] = set()

    def unique(self, given: str | None, place: int) -> str:
        """`given` if it is free."""
        spare = self._spare(place)
        found, tries = given or spare, 0
        while found in self._own or found in self.offer.ids:
            tries += 1
            found = spare if tries == 1 else f"{spare}_{tries}"
        self._own.add(found)
        return found

    def _spare(self, place: int) -> str:
        """A spare id: unique to the answer, whether whole or streamed. OpenAI accepts 40 characters."""
        own = _NO_LETTER.sub("", self._answer_id)[-24:] if isinstance(self._answer_id, str) else ""
        return f"call_{own}_{self._choice}_{place}" if own else f"call_{self._choice}_{place}"
