"""Translates: canonical chunks and answers into the bytes of `/v1/chat/completions`, as OpenAI's clients expect them.

A stream starts with the role. The last content chunk of each choice carries finish_reason; a usage chunk without
choices follows if requested, then `[DONE]`. This end (finish, usage, `[DONE]`) is held back and sent in one write once
the call is settled. Source: providers' fact page for OpenAI, section 5, checked in November 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from proxy.schema.chat import ChatChunk, ChatResponse, ChunkChoice, Delta, TextChunk
from proxy.schema.errors import ProxyError
from proxy.schema.json import encode
from proxy.schema.usage import Usage

_MAX_CHOICES = 128  # OpenAI's maximum of `n`


DONE = b"data: [DONE]\n\n"
_MARK = "\x7f"  # the only control character that JSON does not escape, and rare in texts
_MARK_BYTES = _MARK.encode()


class ChunkWriter:
    """Writes one stream. `model` returns the answering deployment's name; it is called at the first chunk.

    `extras` returns further fields of the usage chunk. If that was not requested, they and the usage go with the last
    finish: many clients read the first choice of every chunk.
    """

    keep_alive = b": ping\n\n"
    held = 0

    def __init__(
        self,
        completion_id: str,
        created: int,
        model: Callable[[], str],
        include_usage: bool,
        extras: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self._head: dict[str, Any] = {"id": completion_id, "object": "chat.completion.chunk", "created": created}
        self._model = model
        self._include_usage = include_usage
        self._extras = extras
        self._started: set[int] = set()
        self._text_heads: dict[int, bytes] = {}
        self._text_end = b""
        self._finished: dict[int, ChunkChoice] = {}
        self._cited: dict[int, int] = {}  # annotations sent so far, by choice

    def write(self, chunks: list[ChatChunk]) -> bytes:
        """The frames of `chunks`, without finish_reason and usage, which `tail` sends."""
        frames: list[bytes] = []
        heads = self._text_heads
        each: Any
        for each in chunks:
            if type(each) is TextChunk:
                if each.index not in self._started:
                    frames.append(self._opening(each.index))
                head = heads.get(each.index) or self._text_head(each.index)
                between = self._text_end + head
                frames += (head, _joined(each.pieces, between) if each.pieces else encode(each.text), self._text_end)
            else:
                frames += [self._frame(choice, each) for choice in each.get("choices", [])]
        return b"".join(frames)

    def _text_head(self, index: int) -> bytes:
        """The constant head of a text frame, encoded once: nearly all frames are text frames."""
        frame = self._encode({"index": index, "delta": {"content": ""}, "logprobs": None, "finish_reason": None})
        head, _, self._text_end = frame.rpartition(b'"content":""')
        self._text_heads[index] = head + b'"content":'
        return self._text_heads[index]

    def tail(self, usage: Usage) -> bytes:
        """The finish of each choice, the usage chunk if requested, and `[DONE]`."""
        extras = self._extras()
        finished = sorted(self._finished.items())
        last = finished.pop() if finished and extras and not self._include_usage else None
        frames = [self._opening(index) + self._encode(choice) for index, choice in finished]
        if self._include_usage or extras:
            opening = b"" if last is None else self._opening(last[0])
            choices = [] if last is None else [last[1]]
            frames.append(opening + sse({**self._head, "choices": choices, "usage": usage, **extras}))
        return b"".join(frames) + DONE

    def error(self, error: ProxyError) -> bytes:
        """The last frame of a stream that fails after its first byte: no finish_reason, no `[DONE]`."""
        return sse(error.body())

    def _frame(self, choice: ChunkChoice, chunk: ChatChunk) -> bytes:
        index = choice.get("index", 0)
        delta = self._numbered(index, choice.get("delta") or {})
        if choice.get("finish_reason"):
            self._keep_extras(chunk)
            self._finished[index] = cast(ChunkChoice, {**choice, "index": index, "delta": {}, "logprobs": None})
            choice = cast(ChunkChoice, {**choice, "finish_reason": None})
        if not delta and not choice.get("logprobs"):
            return b""
        frame = self._opening(index, chunk)
        head = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        return frame + self._encode(cast(ChunkChoice, {**head, **choice, "delta": delta}))

    def _numbered(self, choice: int, delta: Delta) -> Delta:
        """Numbers the annotations of the message: OpenAI's SDK cannot merge lists of objects without an index."""
        found = cast("dict[str, Any]", delta).get("annotations")
        if not found:
            return delta
        first = self._cited.get(choice, 0)
        self._cited[choice] = first + len(found)
        numbered = [{**each, "index": place} for place, each in enumerate(found, first)]
        return cast(Delta, {**delta, "annotations": numbered})

    def _opening(self, index: int, chunk: ChatChunk | None = None) -> bytes:
        """The first chunk of a choice: the role and empty content, once.

        Choices of lower index are opened first: OpenAI's SDK takes the first choice it sees for choice 0.
        """
        if index in self._started:
            return b""
        if not self._started:
            self._head["model"] = self._model()
        lower = range(index) if index < _MAX_CHOICES else ()
        new = [each for each in (*lower, index) if each not in self._started]
        self._started.update(new)
        if chunk is not None:
            self._keep_extras(chunk)
        delta: Any = {"role": "assistant", "content": ""}
        first: ChunkChoice = {"delta": delta, "logprobs": None, "finish_reason": None}
        return b"".join(self._encode({"index": each, **first}) for each in new)

    def _keep_extras(self, chunk: ChatChunk) -> None:
        """Repeats a vendor's extra fields (service_tier, system_fingerprint) on all later chunks."""
        for name, value in chunk.items():
            if name not in ("id", "object", "created", "model", "choices", "usage"):
                self._head[name] = value
                self._text_heads.clear()

    def _encode(self, choice: ChunkChoice) -> bytes:
        body = {**self._head, "choices": [choice]}
        if self._include_usage:
            body["usage"] = None
        return b"data: %b\n\n" % encode(body)


def _joined(pieces: Sequence[str], between: bytes) -> bytes:
    """Each piece as JSON, with these bytes between two; in one step, since nearly all events are written here."""
    text = _MARK.join(pieces)
    if text.count(_MARK) >= len(pieces):  # a piece has one of its own
        return between.join(map(encode, pieces))
    return encode(text).replace(_MARK_BYTES, b'"' + between + b'"')


def whole(response: ChatResponse, completion_id: str, model: str, created: int, usage: Usage) -> dict[str, Any]:
    """A whole answer with the proxy's id, the model that answered, and complete usage."""
    head = {"id": completion_id, "object": "chat.completion", "created": created, "model": model}
    return {**response, **head, "usage": usage}


def sse(value: object) -> bytes:
    """One server-sent event: a `data:` line with LF line ends."""
    return b"data: %b\n\n" % encode(value)
