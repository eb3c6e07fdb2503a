"""Translates: the events of a streamed answer into what the checks read."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from proxy.client.conformance.base import SAY_OK, Probe, Reply, accept, answer_text, chat, expect, fail, typed
from proxy.schema.errors import ProxyError
from proxy.schema.sse import Event, EventFraming

ASKED = {"include_usage": True}


def stream(model: str, content: Any = SAY_OK, **fields: Any) -> Probe:
    """The question of `chat`, streamed, by default with usage."""
    return chat(model, content, **{"stream": True, "stream_options": ASKED, **fields})


class Stream(Struct):
    """`chunks` are the objects in order, without the end marker. `ended` says whether `[DONE]` was the last event."""

    chunks: list[dict[str, Any]]
    ended: bool
    names: list[str]

    def choices(self, index: int | None = None) -> list[dict[str, Any]]:
        """The choices of all chunks in order, optionally only those with one index."""
        found = [choice for chunk in self.chunks for choice in chunk.get("choices") or []]
        return [choice for choice in found if index is None or choice.get("index") == index]

    def deltas(self, index: int | None = None) -> list[dict[str, Any]]:
        return [choice.get("delta") or {} for choice in self.choices(index)]

    def text(self, index: int = 0, field: str = "content") -> str:
        return "".join(delta.get(field) or "" for delta in self.deltas(index))

    def finishes(self, index: int = 0) -> list[Any]:
        return [choice["finish_reason"] for choice in self.choices(index) if choice.get("finish_reason") is not None]

    def finish(self) -> Any:
        return next(iter(self.finishes()), None)

    def checked_text(self, index: int = 0) -> str:
        """The text of a choice, checked as by `answer_text`."""
        return answer_text(self.text(index), next(iter(self.finishes(index)), None), self.usage())

    def usage(self) -> Any:
        return next(iter(self.usages()), None)

    def usages(self) -> list[Any]:
        return [chunk["usage"] for chunk in self.chunks if chunk.get("usage") is not None]


def read(reply: Reply, *parameters: str) -> Stream:
    """The stream of a successful answer. Raises Failed or Unsupported as `ok` does."""
    _accept(reply, *parameters)
    events = _events(reply.body)
    expect(bool(events), "no event")
    ended = events[-1].data == b"[DONE]"
    chunks = [_chunk(event.data) for event in (events[:-1] if ended else events)]
    return Stream(chunks, ended, [event.name for event in events if event.name])


def check_begin(reply: Reply) -> None:
    """Checks the beginning of a stream, and raises as `read` does."""
    _accept(reply)
    for event in _events(reply.body, whole=False):
        if event.data != b"[DONE]":
            _chunk(event.data)


def _accept(reply: Reply, *parameters: str) -> None:
    accept(reply, *parameters)
    kind = reply.headers.get("content-type", "")
    expect(kind.partition(";")[0].strip() == "text/event-stream", f"content-type is {kind or 'missing'}")


def _events(body: bytes, *, whole: bool = True) -> list[Event]:
    framing = EventFraming()
    try:
        return [*framing.feed(body), *(framing.close() if whole else ())]
    except ProxyError as error:
        return fail(error.message)


def _chunk(data: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return fail(f"an event that is not JSON: {data[:40]!r}")
    expect(isinstance(found, dict), f"an event that is not an object: {data[:40]!r}")
    if "error" in found:
        fail(f"an error in the stream: {found['error']!r}")
    expect(isinstance(found.get("choices"), list), f"choices is {found.get('choices')!r}")
    for choice in typed(dict(found))["choices"]:
        expect(isinstance(choice.get("delta"), dict), "a choice has no delta")
    return dict(found)
