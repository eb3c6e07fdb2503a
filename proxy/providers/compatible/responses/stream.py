"""Translates: the named events of one stream of the Responses API into canonical chunks."""

from __future__ import annotations

from typing import Any, cast

from proxy.providers.base.answers import arguments_text, decode, mapping, objects, whole_arguments
from proxy.providers.base.call_arguments import Arguments
from proxy.providers.base.errors import build
from proxy.providers.base.stream import EventDecoder
from proxy.providers.compatible.errors import error_in
from proxy.providers.compatible.responses.answer import (
    CALLS,
    Item,
    Reader,
    calls_in,
    envelope,
    is_call,
    items_of,
    logprobs,
    refusal_of,
)
from proxy.providers.compatible.stream import CompatibleStreamDecoder
from proxy.schema.chat import ChatChunk, TextChunk
from proxy.schema.errors import UpstreamTruncated
from proxy.schema.sse import Event, Events

_LAST = ("response.completed", "response.incomplete")
_FAILED = ("response.failed", "response.cancelled", "response.error", "error")
_THOUGHTS = {  # events of reasoning -> the field that numbers the pieces of one item
    "response.reasoning_summary_text.delta": "summary_index",
    "response.reasoning_text.delta": "content_index",
}
_FRAGMENTS = ("response.function_call_arguments.delta", "response.custom_tool_call_input.delta")


class _Call:
    """A tool call in progress: its index among the calls, its kind, and how much of its text was sent."""

    def __init__(self, index: int, kind: str, field: str) -> None:
        self.index = index
        self.kind = kind
        self.field = field
        self.written = 0
        self.arguments = Arguments(is_free=kind == "custom")
        self.is_whole = False

    def delta(self, text: str) -> dict[str, Any]:
        self.written += len(text)
        return {"tool_calls": [{"index": self.index, self.kind: {self.field: text}}]}


class ResponsesDecoder(EventDecoder):
    """Decodes one stream. Content that the last event repeats is skipped; content that only it has is sent then."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._head: dict[str, Any] = {}
        self._wrote: set[str] = set()  # those of content, refusal and reasoning_content that were streamed
        self._message: object = None  # the message that was streamed last
        self._thought: object = None  # the piece of reasoning that was streamed last
        self._calls: dict[object, _Call] = {}
        self._items: dict[object, Item] = {}  # complete items, for servers whose last event repeats none
        self._over = False

    @property
    def finished(self) -> bool:
        return self._over

    def read(self, data: bytes, name: str) -> list[ChatChunk]:
        body = decode(data)
        kind = body.get("type") or name
        if kind in _FAILED:
            raise self._failure(body)
        error = error_in(body, self._reader.rules)
        if error is not None:
            raise error
        return self.event(str(kind), body)

    def close(self) -> list[ChatChunk]:
        """Raises UpstreamTruncated unless the last event arrived."""
        if not self._over:
            raise UpstreamTruncated("The provider's stream ended before the answer did.")
        return []

    def event(self, kind: str, body: dict[str, Any]) -> list[ChatChunk]:
        """The chunks of one event; unknown ones have none."""
        if kind == "response.output_text.delta":
            return self._content(_place(body), body.get("delta"), body.get("logprobs"))
        if kind == "response.refusal.delta":
            return self.text("refusal", body.get("delta"))
        if kind in _THOUGHTS:
            return self._piece((kind, _place(body), body.get(_THOUGHTS[kind])), body.get("delta"))
        if kind in _FRAGMENTS:
            return self._fragment(body)
        if kind in _LAST:
            return self._end(mapping(body.get("response")), is_cut=kind == "response.incomplete")
        item = body.get("item")
        if isinstance(item, dict) and kind == "response.output_item.added":
            return self._begin(_place(body), item)
        if isinstance(item, dict) and kind == "response.output_item.done":
            self._items[_place(body)] = item
            return self._complete(_place(body), item)
        response = body.get("response")
        if isinstance(response, dict):
            self._head = envelope(response)
            self._head.pop("service_tier", None)  # the requested one; the last event has the actual one
        return []

    def text(self, name: str, text: object, spoken: object = None) -> list[ChatChunk]:
        """A piece of content, refusal or reasoning."""
        if not isinstance(text, str) or not text:
            return []
        if name == "content" and name in self._wrote and not spoken:
            return [cast(ChatChunk, TextChunk(0, text))]
        self._wrote.add(name)
        chunk = self._chunk({name: text})
        if spoken and (tokens := logprobs(spoken)):
            chunk["choices"][0]["logprobs"] = {"content": tokens}
        return [chunk]

    def _content(self, message: object, text: object, spoken: object) -> list[ChatChunk]:
        """A piece of the text of one message."""
        if not isinstance(text, str) or not text:
            return []
        before, self._message = self._message, message
        joint = self.text("content", self._reader.text_joint) if before not in (None, message) else []
        return joint + self.text("content", text, spoken)

    def _piece(self, key: object, text: object) -> list[ChatChunk]:
        """A piece of reasoning; `key` identifies pieces that belong together."""
        if not isinstance(text, str) or not text:
            return []
        before, self._thought = self._thought, key
        joint = self._reader.thought_joint if before not in (None, key) else ""
        return self.text("reasoning_content", joint + text)

    # --- tool calls ---------------------------------------------------------------------------------------------------

    def _begin(self, place: object, item: Item) -> list[ChatChunk]:
        """A call opens as soon as its name is known. Its text follows: some servers send it here and again later."""
        if not is_call(item) or place in self._calls or not item.get("name"):
            return []
        index = len(self._calls)
        whole = self._reader.call(item, index)
        call = self._calls[place] = _Call(index, *CALLS[item["type"]])
        whole[call.kind] = {**whole[call.kind], call.field: ""}
        return [self._chunk({"tool_calls": [{"index": index, **whole}]})]

    def _fragment(self, body: dict[str, Any]) -> list[ChatChunk]:
        """More of a call's text. A call that is not known yet arrives whole."""
        call, text = self._calls.get(_place(body)), body.get("delta")
        if call is None or call.is_whole or not isinstance(text, str) or not text:
            return []
        call.arguments.add(text)
        return [self._chunk(call.delta(piece))] if (piece := call.arguments.take()) else []

    def _complete(self, place: object, item: Item) -> list[ChatChunk]:
        """The missing rest of a call that is complete now."""
        if not is_call(item):
            return []
        call = self._calls.get(place)
        if call is not None and call.is_whole:
            return []
        if call is None:
            whole = self._reader.call(item, len(self._calls))
            call = self._calls[place] = _Call(len(self._calls), *CALLS[item["type"]])
            call.is_whole = True
            return [self._chunk({"tool_calls": [{"index": call.index, **whole}]})]
        call.is_whole = True
        text = arguments_text(item.get(call.field))
        if text and call.kind == "function":
            text = whole_arguments(text)
        rest = text[call.written :] if text else call.arguments.rest()
        return [self._chunk(call.delta(rest))] if rest else []

    # --- the end ------------------------------------------------------------------------------------------------------

    def _end(self, response: Item, *, is_cut: bool) -> list[ChatChunk]:
        """Finish, usage, citations, and content that no earlier event had. `is_cut`: whatever its status says."""
        if is_cut:
            response = {**response, "status": "incomplete"}
        items = self.items_of(response)
        is_empty = not (items or self._wrote or self._calls)
        self._reader.refuse_unfinished(response, is_over=True, is_empty=is_empty)
        self._head = envelope(response) or self._head
        text, annotations = self._reader.text_of(items)
        chunks: list[ChatChunk] = []
        whole = {"reasoning_content": self._reader.thoughts_of(items), "content": text, "refusal": refusal_of(items)}
        for name, value in whole.items():
            if name not in self._wrote:
                chunks += self.text(name, value)
        known = list(self._calls)
        for index, item in enumerate(calls_in(items)):
            chunks += self._complete(known[index] if index < len(known) else ("last", index), item)
        more = ({"annotations": annotations} if annotations else {}) | self._reader.more_of(items)
        if more:
            chunks.append(self._chunk(more))
        usage = self._reader.usage_of(response, items)
        last: dict[str, Any] = cast("dict[str, Any]", self._chunk({}))
        last["choices"][0] |= self._reader.ending(response, bool(self._calls), usage)
        if usage is not None:
            last["usage"] = usage
        self._over = self.done = True
        return [*chunks, cast(ChatChunk, last | self._reader.beside(items))]

    def items_of(self, response: dict[str, Any]) -> list[Item]:
        """The items of the whole answer."""
        return objects(response.get("output")) or list(self._items.values()) or items_of(response)

    def _chunk(self, delta: dict[str, Any]) -> ChatChunk:
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        chunk = {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
        return cast(ChatChunk, chunk)

    def _failure(self, body: dict[str, Any]) -> Exception:
        """The error is beside the type, inside the response, or is the event itself."""
        rules = self._reader.rules
        inner = mapping(body.get("response")).get("error")
        said = {name: value for name, value in body.items() if name != "type"}
        error = error_in({"error": body.get("error") or inner or said}, rules)
        return error or build({}, 502, {}, rules)


def _place(body: dict[str, Any]) -> object:
    """What identifies an item: its number, because some servers give an item another id in each event."""
    index = body.get("output_index")
    return index if isinstance(index, int) else str(body.get("item_id") or mapping(body.get("item")).get("id"))


class EitherDecoder(EventDecoder):
    """Decodes a stream of the Responses API or of the chat API: the first event shows which it is."""

    def __init__(self, chat: CompatibleStreamDecoder, responses: ResponsesDecoder) -> None:
        self._chat = chat
        self._responses = responses
        self._chosen: CompatibleStreamDecoder | ResponsesDecoder | None = None

    @property
    def finished(self) -> bool:
        return self._chosen is not None and self._chosen.finished

    def feed(self, event: Event) -> list[ChatChunk]:
        """Once it is known which it is, the other decoder has all events, so its short way for texts works."""
        if self._chosen is None or self._split is not None or self.done:
            return super().feed(event)
        chunks = self._chosen.feed(event)
        self.done = self._chosen.done
        return chunks

    def texts(self, events: Events, at: int) -> TextChunk | None:
        if self._chosen is None or self._split is not None or self.done:
            return None
        return self._chosen.texts(events, at)

    def read(self, data: bytes, name: str) -> list[ChatChunk]:
        if self._chosen is None:
            body = decode(data)
            kind = "" if "choices" in body else body.get("type") or name
            if isinstance(kind, str) and kind.startswith(("response.", "error")):
                self._chosen = self._responses
            elif not kind:
                self._chosen = self._chat
            else:  # a ping, for example
                return []
        chunks = self._chosen.read(data, name)
        self.done = self._chosen.done
        return chunks

    def at_end_marker(self) -> list[ChatChunk]:
        return [] if self._chosen is None else self._chosen.at_end_marker()

    def close(self) -> list[ChatChunk]:
        return (self._chosen or self._responses).close()
