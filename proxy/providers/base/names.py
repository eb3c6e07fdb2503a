"""Translates: tool names into names that a vendor accepts, and back. The mapping depends only on the request, so the
builder of the request and the reader of the answer compute the same one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from msgspec import Struct

from proxy.providers.base.answers import objects
from proxy.providers.base.contract import StreamDecoder
from proxy.providers.base.tools import plain_tools, tool_name
from proxy.schema.chat import ChatChunk, ChatRequest, ChatResponse, TextChunk
from proxy.schema.sse import Event, Events


class NameRule(Struct, frozen=True):
    """The names that one vendor accepts. `signs`: the characters, as in a regular expression; `first`: those
    allowed at the start, if they are fewer.
    """

    longest: int
    signs: str = "a-zA-Z0-9_-"
    first: str | None = None

    def accepts(self, name: str) -> bool:
        return self.fitting(name) == name

    def fitting(self, name: str) -> str:
        """The nearest name that the vendor accepts."""
        fit = re.sub(f"[^{self.signs}]", "_", name) or "_"
        if self.first is not None and re.match(f"[{self.first}]", fit) is None:
            fit = f"_{fit}"
        return fit[: self.longest]


OPENAI = NameRule(64)


class FreeNames:
    """Hands out each name once; a name that is taken gets a numeric suffix. `longest`: characters, suffix included."""

    def __init__(self, taken: set[str], longest: int) -> None:
        self._taken = taken
        self._longest = longest
        self._next: dict[str, int] = {}  # by prefix of a name, so that thousands of equal names are not counted anew

    def take(self, wanted: str) -> str:
        name, start = wanted[: self._longest], wanted[: self._longest - 12]
        count = self._next.get(start, 2)
        while name in self._taken:
            suffix = f"_{count}"
            name, count = wanted[: self._longest - len(suffix)] + suffix, count + 1
        if count > 2:
            self._next[start] = count
        self._taken.add(name)
        return name


class ToolNames:
    """The names of the functions in one request. `fields`: its body, over the provider's defaults. `native`: names of
    the vendor's own tools in the request, which the history may call; `reserved`: other names that no function may
    have.

    Names that the vendor accepts stay unchanged.
    """

    def __init__(
        self, fields: Mapping[str, Any], rule: NameRule, native: Collection[str] = (), reserved: Collection[str] = ()
    ) -> None:
        declared = _names_in(plain_tools(fields.get("tools")))
        calls = [call for message in objects(fields.get("messages")) for call in objects(message.get("tool_calls"))]
        given = dict.fromkeys([*declared, *(name for name in _names_in(calls) if name not in native)])
        taken = {*native, *reserved}
        right = {name for name in given if name not in taken and rule.accepts(name)}
        self.free = FreeNames(taken | right, rule.longest)
        self.changed = {name: self.free.take(rule.fitting(name)) for name in given if name not in right}
        self._given = {sent: name for name, sent in self.changed.items()}

    def sent(self, name: str) -> str:
        """The vendor's name for one of the client's."""
        return self.changed.get(name, name)

    def given(self, name: str) -> str:
        """The client's name for one of the vendor's."""
        return self._given.get(name, name)

    # --- in bodies of OpenAI's shape ----------------------------------------------------------------------------------

    def named(self, carrier: Any) -> Any:
        """A tool, a call or a choice with the vendor's name; the same object if nothing changes."""
        name = tool_name(carrier)
        if name is None or name not in self.changed:
            return carrier
        return {**carrier, "function": {**carrier["function"], "name": self.changed[name]}}

    def restore(self, answer: ChatResponse) -> ChatResponse:
        """The answer with the client's names."""
        for choice in answer["choices"] if self.changed else []:
            self._restore(choice["message"].get("tool_calls"))
        return answer

    def restoring(self, decoder: StreamDecoder) -> StreamDecoder:
        """A decoder whose chunks have the client's names."""
        return _Restoring(decoder, self) if self.changed else decoder

    def restore_chunk(self, chunk: ChatChunk) -> None:
        for choice in chunk["choices"]:
            self._restore(choice.get("delta", {}).get("tool_calls"))

    def _restore(self, calls: Any) -> None:
        for call in objects(calls):
            name = tool_name(call)
            if name is not None:
                call["function"]["name"] = self.given(name)


class _Restoring:
    def __init__(self, decoder: StreamDecoder, names: ToolNames) -> None:
        self._decoder = decoder
        self._names = names

    def feed(self, event: Event) -> list[ChatChunk]:
        return self._restored(self._decoder.feed(event))

    def texts(self, events: Events, at: int) -> TextChunk | None:
        return self._decoder.texts(events, at)

    def close(self) -> list[ChatChunk]:
        return self._restored(self._decoder.close())

    @property
    def finished(self) -> bool:
        return self._decoder.finished

    @property
    def done(self) -> bool:
        return self._decoder.done

    def _restored(self, chunks: list[ChatChunk]) -> list[ChatChunk]:
        for chunk in chunks:
            if not isinstance(chunk, TextChunk):
                self._names.restore_chunk(chunk)
        return chunks


def _names_in(carriers: list[dict[str, Any]]) -> Iterator[str]:
    """The names in tools, or in tool calls."""
    for carrier in carriers:
        if name := tool_name(carrier):
            yield name


_NONE = ToolNames({}, OPENAI)


def names_of(request: ChatRequest, defaults: Mapping[str, Any], rule: NameRule = OPENAI) -> ToolNames:
    """The names in a request over the provider's `defaults`. Most requests have none, and are not searched for them."""
    has_tools = "tools" in request.fields or "tools" in defaults
    if not has_tools and not any(message.tool_calls for message in request.messages):
        return _NONE
    return ToolNames({**defaults, **request.fields}, rule)
