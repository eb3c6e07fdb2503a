"""Translates: Perplexity's additions to OpenAI's stream events: thoughts and search results."""

from __future__ import annotations

from typing import Any

from proxy.providers.base.answers import objects
from proxy.providers.compatible.responses.answer import Reader
from proxy.providers.compatible.responses.stream import ResponsesDecoder
from proxy.providers.perplexity.response import results_of
from proxy.schema.chat import ChatChunk

# `thought` also reports the progress of a search ("Searching the web..."), which whole answers do not have.
_THOUGHTS = (".started", ".stopped")


class PerplexityStreamDecoder(ResponsesDecoder):
    def __init__(self, reader: Reader) -> None:
        super().__init__(reader)
        self._told: object = None  # the latest thought, which its end event may repeat
        self._searched: list[dict[str, Any]] = []

    def event(self, kind: str, body: dict[str, Any]) -> list[ChatChunk]:
        if kind == "response.output_item.added":
            return []  # its own searches begin like calls; a call arrives whole
        if not kind.startswith("response.reasoning."):
            return super().event(kind, body)
        self._searched += objects(body.get("results")) if kind.endswith(".search_results") else []
        if not kind.endswith(_THOUGHTS):
            return []
        told, self._told = self._told, body.get("thought") or self._told
        return self.text("reasoning_content", self._told) if self._told != told else []

    def items_of(self, response: dict[str, Any]) -> list[dict[str, Any]]:
        items = super().items_of(response)
        if not results_of(items) and self._searched:
            items.append({"type": "search_results", "results": self._searched})
        return items
