"""Translates: answers that continue a message of the client, and begin by repeating it."""

from __future__ import annotations

from typing import Any

from proxy.providers.base.content import parts, thoughts_in
from proxy.providers.base.errors import ErrorRules
from proxy.providers.compatible.stream import CompatibleStreamDecoder
from proxy.schema.chat import ChatChunk, ChatRequest


class ContinuingDecoder(CompatibleStreamDecoder):
    """A stream whose answer repeats `begun`; the repetition is withheld."""

    has_quick_text = False

    def __init__(self, request: ChatRequest, rules: ErrorRules, begun: str) -> None:
        super().__init__(request, rules)
        self._begun = begun
        self._held: dict[int, int] = {}  # choice -> how many characters of `begun` arrived
        self._through: set[int] = set()

    def read(self, data: bytes, name: str) -> list[ChatChunk]:
        return self._continued(super().read(data, name))

    def at_end_marker(self) -> list[ChatChunk]:
        return self._continued(super().at_end_marker())

    def close(self) -> list[ChatChunk]:
        return self._continued(super().close())

    def _continued(self, chunks: list[ChatChunk]) -> list[ChatChunk]:
        for choice in (choice for chunk in chunks for choice in chunk["choices"]):
            index, delta = choice["index"], choice["delta"]
            if index not in self._through:
                self._hold(index, delta, choice["finish_reason"] is not None)
        return chunks

    def _hold(self, index: int, delta: Any, is_last: bool) -> None:
        held = self._held.get(index, 0)
        text = delta.pop("content", None) or ""
        self._held[index] = held + len(text)
        if self._held[index] < len(self._begun) and self._begun.startswith(text, held) and not is_last:
            return
        self._through.add(index)
        rest = len(self._begun) - held
        said = text[rest:] if text[:rest] == self._begun[held:] else self._begun[:held] + text
        if said:
            delta["content"] = said


def text_to_continue(request: ChatRequest) -> str:
    """The text of a trailing assistant message that the vendor is asked to continue. "" if there is none, or if the
    client itself set the vendor's `prefix`.
    """
    for message in reversed(request.fields["messages"]):
        if message["role"] != "assistant" or message.get("tool_calls"):
            return ""
        content = thoughts_in(message.get("content"))[1] or message.get("refusal")
        text = content if isinstance(content, str) else "".join(part.text for part in parts(content, "messages"))
        if text:
            return text if message.get("prefix") is None else ""
    return ""
