"""Translates: a whole answer into the chunks of a stream: `fold(chunks_of(response)) == response`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from proxy.schema.chat import ChatChunk, ChatResponse, Choice

PIECE = 4096  # characters of a text in one chunk
_TEXTS = ("reasoning_content", "content", "refusal")
_LISTS = ("tool_calls", "annotations")


def chunks_of(response: ChatResponse) -> list[list[ChatChunk]]:
    """The answer in batches of one chunk each, the finish of each choice last."""
    top = {name: value for name, value in response.items() if name not in ("choices", "usage", "object")}
    return [[cast(ChatChunk, {**top, "choices": [choice]})] for each in response["choices"] for choice in _chunks(each)]


def _chunks(choice: Choice) -> Iterator[dict[str, Any]]:
    message: dict[str, Any] = {**choice["message"]}
    index = choice.get("index", 0)
    extra = {
        name: value for name, value in choice.items() if name not in ("index", "message", "finish_reason", "logprobs")
    }
    others = {name: value for name, value in message.items() if name not in (*_TEXTS, *_LISTS, "role")}
    if others:
        yield {"index": index, "delta": others}
    for name in _TEXTS:
        text = message.get(name) or ""
        for start in range(0, len(text), PIECE):
            yield {"index": index, "delta": {name: text[start : start + PIECE]}}
    for place, call in enumerate(message.get("tool_calls") or []):
        yield {"index": index, "delta": {"tool_calls": [{**call, "index": place}]}}
    if message.get("annotations"):
        yield {"index": index, "delta": {"annotations": message["annotations"]}}
    if choice.get("logprobs"):
        yield {"index": index, "delta": {}, "logprobs": choice["logprobs"]}
    yield {"index": index, "delta": {}, "finish_reason": choice.get("finish_reason") or "stop", **extra}
