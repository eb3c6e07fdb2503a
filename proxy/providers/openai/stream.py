"""Translates: the events of one OpenAI-shaped stream into canonical chunks, whatever its server makes of the shape."""

from __future__ import annotations

from typing import Any, cast

from proxy.errors import UpstreamError, UpstreamTruncated
from proxy.framing import Event
from proxy.providers.openai.errors import error_in
from proxy.providers.openai.response import arguments_text, decode, finish_reason, listed, plain, usage_of
from proxy.schema import ChatChunk

_PADDING = ("obfuscation", "x_groq", "prompt", "usage", "choices")


class _Calls:
    """Gives the tool calls of one choice dense indexes, and lets id, type and name through once per call."""

    def __init__(self, choice: int) -> None:
        self._choice = choice
        self._by_key: dict[object, int] = {}
        self._named: set[int] = set()

    def delta(self, raw: object) -> dict[str, Any] | None:
        if not isinstance(raw, dict):
            return None
        function = raw.get("function")
        function = function if isinstance(function, dict) else {}
        index = self._index(raw)
        arguments = arguments_text(function.get("arguments"))
        if index in self._named:
            return {"index": index, "function": {"arguments": arguments}} if arguments else None
        name = function.get("name")
        if not name:
            raise UpstreamError("The provider's stream has a tool call without a function name.")
        self._named.add(index)
        identity = raw.get("id") or f"call_{self._choice}_{index}"
        return {"index": index, "id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}

    def _index(self, raw: dict[str, Any]) -> int:
        """By the server's index, else by id, else the call that is being written."""
        key = raw.get("index")
        if not isinstance(key, int):
            key = raw.get("id")
        if key is None and self._by_key:
            return len(self._by_key) - 1
        return self._by_key.setdefault(key, len(self._by_key))

    def __bool__(self) -> bool:
        return bool(self._by_key)


class OpenAIStreamDecoder:
    """One stream. `expected` is the number of choices that was asked for; a server may send fewer."""

    def __init__(self, expected: int = 1) -> None:
        self._expected = expected
        self._calls: dict[int, _Calls] = {}
        self._finished: set[int] = set()
        self.done = False

    @property
    def finished(self) -> bool:
        return len(self._finished) >= self._expected and len(self._finished) >= len(self._calls)

    def feed(self, event: Event) -> list[ChatChunk]:
        data = event.data.strip()
        if not data or self.done:
            return []
        if data == b"[DONE]":
            self.done = True
            return []
        body = decode(data)
        error = error_in(body if event.name != "error" else {"error": body, **body})
        if error is not None:
            raise error
        chunk = {name: value for name, value in body.items() if name not in _PADDING}
        chunk["choices"] = [self._choice(choice) for choice in listed(body.get("choices")) if isinstance(choice, dict)]
        usage = usage_of(body)
        if usage is not None:
            chunk["usage"] = usage
        return [cast(ChatChunk, chunk)]

    def close(self) -> list[ChatChunk]:
        """Raises UpstreamTruncated unless every choice that began has finished; `[DONE]` alone finishes nothing."""
        if not self._finished or len(self._finished) < len(self._calls):
            raise UpstreamTruncated("The provider's stream ended before the answer did.")
        return []

    def _choice(self, raw: dict[str, Any]) -> dict[str, Any]:
        index = raw.get("index")
        index = index if isinstance(index, int) else 0
        calls = self._calls.setdefault(index, _Calls(index))
        delta = self._delta(raw.get("delta"), calls)
        choice = {name: value for name, value in raw.items() if name not in ("text", "seed")}
        choice |= {"index": index, "delta": delta, "finish_reason": None}
        if index in self._finished:
            return choice
        reason, native = finish_reason(raw.get("finish_reason"), bool(calls))
        if reason is not None:
            self._finished.add(index)
            choice |= {"finish_reason": reason} | native
        return choice

    def _delta(self, raw: object, calls: _Calls) -> dict[str, Any]:
        """What this piece adds: empty strings and nulls add nothing, the role is the writer's business."""
        if not isinstance(raw, dict):
            return {}
        raw = plain(raw)
        delta = {
            name: value
            for name, value in raw.items()
            if value not in (None, "", []) and name not in ("role", "tool_calls", "token_id")
        }
        fragments = [fragment for fragment in map(calls.delta, listed(raw.get("tool_calls"))) if fragment is not None]
        if fragments:
            delta["tool_calls"] = fragments
        return delta
