"""Translates: the events of one stream of `/v2/chat` into canonical chunks, by the `type` of each event."""

from __future__ import annotations

from typing import Any, cast

from proxy.providers.base.answers import arguments_text, call_id, decode, listed, mapping, text
from proxy.providers.base.call_arguments import Arguments
from proxy.providers.base.call_ids import CallIds, Offer
from proxy.providers.base.finish import at_limit
from proxy.providers.base.stream import EventDecoder
from proxy.providers.cohere.errors import error_in
from proxy.providers.cohere.response import BETWEEN, finish_reason, logprobs, spare_id, text_of, url_citations
from proxy.providers.cohere.usage import usage_of
from proxy.schema.chat import ChatChunk, ChatRequest, TextChunk
from proxy.schema.errors import UpstreamError, UpstreamTruncated


class _Call:
    """One tool call in progress, and its index among the calls."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.arguments = Arguments()
        self.has_ended = False


class CohereStreamDecoder(EventDecoder):
    """One stream: one choice."""

    def __init__(self, request: ChatRequest | None = None) -> None:
        self._request = request
        self._id = ""
        self._has_begun = False
        self._calls: dict[object, _Call] = {}  # the last one of each index
        self._begun = 0
        self._ids = CallIds(Offer(request))
        self._starts: dict[int, int] = {}  # content block -> where its text begins in the content
        self._length = 0  # of the content
        self._citations: list[dict[str, Any]] = []
        self._thought = self._planned = False
        self.finished = False

    def read(self, data: bytes, name: str) -> list[ChatChunk]:
        body = decode(data)
        if name == "error" and "type" not in body:
            body["type"] = "error"
        error = error_in(body)
        if error is not None:
            raise error
        match body.get("type") or name:
            case "message-start":
                self._id = text(body.get("id"))
                return []
            case "message-end":
                return self._end(mapping(body.get("delta")))
        if self.finished:
            return []
        self._has_begun = True
        return self._said(body)

    def close(self) -> list[ChatChunk]:
        if not self.finished:
            raise UpstreamTruncated("The provider's stream ended before the answer did.")
        return []

    def _said(self, body: dict[str, Any]) -> list[ChatChunk]:
        message = mapping(mapping(body.get("delta")).get("message"))
        index = body["index"] if isinstance(body.get("index"), int) else None
        match body.get("type"):
            case "content-start" | "content-delta":
                said = body.get("logprobs")
                return self._content(index, message.get("content"), logprobs([said] if said else []))
            case "tool-plan-delta":
                return self._plan(message.get("tool_plan"))
            case "tool-call-start":
                return self._call_start(index, message.get("tool_calls"))
            case "tool-call-delta":
                return self._call_delta(index, message.get("tool_calls"))
            case "tool-call-end":
                return self._call_end(self._calls.get(index))
            case "citation-start":
                return self._citation(message.get("citations"))
        return []

    def _content(self, index: int | None, block: object, said: dict[str, Any] | None) -> list[ChatChunk]:
        spoken, thinking = text_of(block, "text"), text_of(block, "thinking")
        self._starts.setdefault(index or 0, self._length)
        has_spoken = self._length > 0
        self._length += len(spoken)
        self._thought = self._thought or bool(thinking)
        if has_spoken and spoken and not thinking and said is None:
            return [cast(ChatChunk, TextChunk(0, spoken))]
        delta = {name: value for name, value in (("reasoning_content", thinking), ("content", spoken)) if value}
        if not delta and said is None:
            return []
        return [self._chunk({"delta": delta, **({"logprobs": said} if said else {})})]

    def _plan(self, plan: object) -> list[ChatChunk]:
        if not isinstance(plan, str) or not plan:
            return []
        between = BETWEEN if self._thought and not self._planned else ""
        self._planned = True
        return [self._chunk({"delta": {"reasoning_content": between + plan}})]

    def _call_start(self, index: int | None, raw: object) -> list[ChatChunk]:
        """The start of a call: here `tool_calls` is one call, not a list."""
        fields = mapping(raw)
        function = mapping(fields.get("function"))
        name = function.get("name")
        if not isinstance(name, str) or not name:
            raise UpstreamError("The provider's stream has a tool call without a function name.", retryable=True)
        ended = self._call_end(self._calls.get(index))  # some gateways number every call 0
        call = self._calls[index] = _Call(self._begun)
        self._begun += 1
        call.arguments.add(arguments_text(function.get("arguments")))
        started = {
            "index": call.place,
            "id": self._ids.unique(call_id(fields.get("id")) or spare_id(self._id, call.place), call.place),
            "type": "function",
            "function": {"name": name, "arguments": call.arguments.take()},
        }
        return [*ended, self._chunk({"delta": {"tool_calls": [started]}})]

    def _call_delta(self, index: int | None, raw: object) -> list[ChatChunk]:
        call = self._calls.get(index)
        if call is None:
            raise UpstreamError("The provider's stream has arguments of a tool call that never began.", retryable=True)
        call.arguments.add(arguments_text(mapping(mapping(raw).get("function")).get("arguments")))
        return self._arguments(call, call.arguments.take())

    def _call_end(self, call: _Call | None) -> list[ChatChunk]:
        if call is None or call.has_ended:
            return []
        call.has_ended = True
        return self._arguments(call, call.arguments.rest())

    def _arguments(self, call: _Call, piece: str) -> list[ChatChunk]:
        if not piece:
            return []
        return [self._chunk({"delta": {"tool_calls": [{"index": call.place, "function": {"arguments": piece}}]}})]

    def _citation(self, raw: object) -> list[ChatChunk]:
        """One citation. The whole list is sent at the end, because a field of a delta replaces the one before."""
        new = [each for each in (listed(raw) or [raw]) if isinstance(each, dict)]
        self._citations += new
        found = [each for citation in new for each in url_citations(citation, self._starts)]
        return [self._chunk({"delta": {"annotations": found}})] if found else []

    def _end(self, delta: dict[str, Any]) -> list[ChatChunk]:
        chunks = [chunk for call in self._calls.values() for chunk in self._call_end(call)]
        told = delta.get("error"), delta.get("error_type")
        usage = usage_of(delta.get("usage"))
        is_cut = at_limit(self._request, usage)
        reason, native = finish_reason(delta.get("finish_reason"), bool(self._calls), is_cut, *told)
        if not self.finished and (self._has_begun or native["native_finish_reason"] is not None):
            self.finished = True
            extra = {"citations": self._citations} if self._citations else {}
            chunks.append(self._chunk({"delta": extra, "finish_reason": reason, **native}))
        if usage is not None:
            chunks.append(cast(ChatChunk, {"choices": [], "usage": usage}))
        return chunks

    def _chunk(self, choice: dict[str, Any]) -> ChatChunk:
        head = {"id": self._id} if self._id else {}
        return cast(ChatChunk, {**head, "choices": [{"index": 0, "finish_reason": None, **choice}]})
