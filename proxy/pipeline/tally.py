"""Translates: the chunks of a stream into what the proxy itself needs from them: usage, a count, tool calls.

Texts are counted, not kept: `Fold` keeps them if the whole answer is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from proxy.metering import tokens
from proxy.schema.chat import ChatChunk, Delta, ResponseMessage, TextChunk, ToolCall
from proxy.schema.fold import Fold
from proxy.schema.usage import UsageReport, merged

MAX_THOUGHT = 1024 * 1024  # characters of reasoning kept beside calls; twice what `ReasoningState` stores of one call
_NEVER_KEPT = frozenset({"role", "content", "refusal", "annotations", "audio"})


class StreamTally:
    """Adds up one stream. `has_tools`: the request offers tools, so calls and the reasoning before them are kept."""

    __slots__ = ("_calls", "_letters", "_named", "_thought", "model", "tier", "usage")

    def __init__(self, has_tools: bool = True) -> None:
        self.usage: UsageReport | None = None
        self.model: object = None  # as the answer names it
        self.tier: object = None  # the service tier that it names
        self._letters = 0.0  # as `tokens.letters` counts them
        self._thought = 0
        self._named: set[tuple[int, int]] = set()
        self._calls = Fold() if has_tools else None

    def add_all(self, chunks: Iterable[ChatChunk]) -> None:
        """The next chunks, nearly all of which only add text."""
        each: Any
        for each in chunks:
            if type(each) is TextChunk:
                text: str = each.text
                self._letters += len(text) if text.isascii() else tokens.letters(text)
            else:
                self.add(each)

    def add(self, chunk: ChatChunk) -> None:
        """Adds the next chunk. Usage may come on any; `merged` combines it."""
        each: Any = chunk
        if type(each) is TextChunk:
            text: str = each.text
            self._letters += len(text) if text.isascii() else tokens.letters(text)
            return
        if (report := each.get("usage")) is not None:
            self.usage = merged(self.usage, report)
        self.note_served(each)
        for choice in chunk.get("choices", ()):
            if delta := choice.get("delta"):
                self._add_delta(choice.get("index", 0), delta)

    def note_served(self, answer: Mapping[str, Any]) -> None:
        """The model and the service tier that a chunk, or a whole answer, names."""
        if (model := answer.get("model")) is not None:
            self.model = model
        if (tier := answer.get("native_service_tier") or answer.get("service_tier")) is not None:
            self.tier = tier

    @property
    def is_counted(self) -> bool:
        """True once the vendor has reported how much the model wrote."""
        return self.usage is not None and self.usage.billed.output > 0

    @property
    def output_tokens(self) -> int:
        """A likely count of what the model wrote so far, over all choices."""
        return tokens.estimate_of(self._letters)

    def tool_messages(self) -> list[ResponseMessage]:
        """The messages with tool calls, so far, without their texts."""
        return [] if self._calls is None else self._calls.tool_messages()

    def _add_delta(self, index: int, delta: Delta) -> None:
        kept: dict[str, Any] = {}
        for name, value in delta.items():
            if name in ("content", "refusal", "reasoning_content"):
                self._count(value)
            if name == "tool_calls":
                for call in cast("list[ToolCall]", value):
                    self._count_call(index, call)
            elif name == "reasoning_content" and value:
                self._thought += len(cast(str, value))
                if self._thought > MAX_THOUGHT:
                    continue
            if name not in _NEVER_KEPT:
                kept[name] = value
        if kept and self._calls is not None:
            self._calls.add({"choices": [{"index": index, "delta": cast(Delta, kept)}]})

    def _count_call(self, index: int, call: ToolCall) -> None:
        function = call.get("function", {})
        self._count(function.get("arguments"))
        if (name := function.get("name")) and (place := (index, call.get("index", 0))) not in self._named:
            self._named.add(place)
            self._count(name)

    def _count(self, text: object) -> None:
        if isinstance(text, str):
            self._letters += len(text) if text.isascii() else tokens.letters(text)
