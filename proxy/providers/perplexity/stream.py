"""Translates: the named events of one Agent API stream into canonical chunks."""

from __future__ import annotations

from typing import Any, cast

from proxy.providers.base.answers import decode, mapping, objects
from proxy.providers.base.errors import ErrorRules, build
from proxy.providers.compatible.errors import error_in
from proxy.providers.compatible.stream import CompatibleStreamDecoder
from proxy.providers.perplexity.response import (
    envelope,
    finish_reason,
    refusal_of,
    refuse_unfinished,
    results_of,
    sources,
    text_of,
    thoughts_of,
    tool_call,
    usage_of,
)
from proxy.schema.chat import ChatChunk
from proxy.schema.errors import UpstreamTruncated
from proxy.schema.sse import Event

_LAST = ("response.completed", "response.incomplete")
# Beside these, `thought` says how a search goes ("Searching the web..."), which whole answers do not.
_THOUGHTS = (".started", ".stopped")
_FAILED = ("response.failed", "response.cancelled", "response.error", "error")


class PerplexityStreamDecoder:
    """Decodes one stream. Content that the last event repeats is skipped; content that only it has is sent then.

    Chunks of the older, OpenAI-shaped API are read too.
    """

    def __init__(self, rules: ErrorRules) -> None:
        self._rules = rules
        self._chat: CompatibleStreamDecoder | None = None
        self._head: dict[str, Any] = {}
        self._wrote: set[str] = set()  # of content, refusal and reasoning_content: what was streamed
        self._thought: object = None  # the latest; the end of one may say it again
        self._calls = 0
        self._searched: list[dict[str, Any]] = []
        self._over = False

    @property
    def finished(self) -> bool:
        return self._chat.finished if self._chat is not None else self._over

    @property
    def done(self) -> bool:
        return self._chat.done if self._chat is not None else self._over

    def feed(self, event: Event) -> list[ChatChunk]:
        data = event.data.strip()
        if not data or self.done:
            return []
        if self._chat is not None or data == b"[DONE]":
            return self._chat.feed(event) if self._chat is not None else []
        body = decode(data)
        if "choices" in body:
            self._chat = CompatibleStreamDecoder(1, self._rules)
            return self._chat.feed(event)
        kind = body.get("type") or event.name
        if kind in _FAILED:
            raise self._failure(body)
        error = error_in(body, self._rules)
        if error is not None:
            raise error
        return self._events(str(kind), body)

    def close(self) -> list[ChatChunk]:
        """Raises UpstreamTruncated unless the last event arrived."""
        if self._chat is not None:
            return self._chat.close()
        if not self._over:
            raise UpstreamTruncated("The provider's stream ended before the answer did.")
        return []

    def _events(self, kind: str, body: dict[str, Any]) -> list[ChatChunk]:
        if kind in _LAST:
            return self._end(body)
        if kind == "response.output_text.delta":
            return self._text("content", body.get("delta"))
        if kind == "response.refusal.delta":
            return self._text("refusal", body.get("delta"))
        if kind.startswith("response.reasoning."):
            self._searched += objects(body.get("results")) if kind.endswith(".search_results") else []
            if not kind.endswith(_THOUGHTS):
                return []
            thought, self._thought = self._thought, body.get("thought") or self._thought
            return self._text("reasoning_content", self._thought) if self._thought != thought else []
        item = body.get("item")
        if kind == "response.output_item.done" and isinstance(item, dict) and item.get("type") == "function_call":
            return self._call(item)
        response = body.get("response")
        if isinstance(response, dict):
            self._head = envelope(response)
        return []

    def _text(self, name: str, text: object) -> list[ChatChunk]:
        if not isinstance(text, str) or not text:
            return []
        self._wrote.add(name)
        return [self._chunk({name: text})]

    def _call(self, item: dict[str, Any]) -> list[ChatChunk]:
        call = {"index": self._calls, **tool_call(item, self._calls)}
        self._calls += 1
        return [self._chunk({"tool_calls": [call]})]

    def _end(self, body: dict[str, Any]) -> list[ChatChunk]:
        """Finish, usage, citations, and content that no earlier event had."""
        response = mapping(body.get("response"))
        refuse_unfinished(response, self._rules)
        self._head = envelope(response)
        items = objects(response.get("output"))
        if not results_of(items) and self._searched:
            items.append({"type": "search_results", "results": self._searched})
        text, annotations = text_of(items)
        chunks: list[ChatChunk] = []
        whole = {
            "reasoning_content": "".join(thoughts_of(item) for item in items),
            "content": text,
            "refusal": refusal_of(items),
        }
        for name, value in whole.items():
            if name not in self._wrote:
                chunks += self._text(name, value)
        calls = [item for item in items if item.get("type") == "function_call"]
        for item in calls[self._calls :]:
            chunks += self._call(item)
        if annotations:
            chunks.append(self._chunk({"annotations": annotations}))
        last: dict[str, Any] = cast("dict[str, Any]", self._chunk({}, finish_reason(response, self._calls > 0)))
        usage = usage_of(response, items)
        if usage is not None:
            last["usage"] = usage
        self._over = True
        return [*chunks, cast(ChatChunk, last | sources(items))]

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> ChatChunk:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        chunk = {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
        return cast(ChatChunk, chunk)

    def _failure(self, body: dict[str, Any]) -> Exception:
        """The error is beside the type, inside the response, or is the event itself."""
        inner = mapping(body.get("response")).get("error")
        said = {name: value for name, value in body.items() if name != "type"}
        error = error_in({"error": body.get("error") or inner or said}, self._rules)
        return error or build({}, 502, {}, self._rules)
