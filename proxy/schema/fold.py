"""Translates: the chunks of a stream, folded into the whole answer they spell (the fold law: same as
parse_response).
"""

from __future__ import annotations

from typing import Any, cast

from proxy.schema.chat import ChatChunk, ChatResponse, Choice, ChunkChoice, Delta, ResponseMessage, ToolCall, Usage

_TEXTS = ("content", "refusal", "reasoning_content")
# Fields of a delta that come in pieces, and the texts in them that continue one another; of the rest the last counts.
_PIECES = {"audio": ("data", "transcript"), "reasoning_details": ("text", "summary")}
_CHUNK_ONLY = frozenset({"object", "choices", "usage"})


class _ChoiceFold:
    """One choice as it grows; texts are kept in pieces and joined once."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.texts: dict[str, list[str]] = {}
        self.calls: dict[int, ToolCall] = {}
        self.arguments: dict[int, list[str]] = {}
        self.annotations: list[Any] = []
        self.logprobs: dict[str, list[Any]] = {}
        self.extra: dict[str, Any] = {}
        self.choice_extra: dict[str, Any] = {}
        self.finish_reason: str | None = None

    def add(self, choice: ChunkChoice) -> None:
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        for name, part in (choice.get("logprobs") or {}).items():
            if isinstance(part, list):
                self.logprobs.setdefault(name, []).extend(part)
        for name, value in choice.items():
            if name not in ("index", "delta", "finish_reason", "logprobs"):
                self.choice_extra[name] = value
        self._add_delta(choice.get("delta") or {})

    def _add_delta(self, delta: Delta) -> None:
        for name, value in delta.items():
            if name in _TEXTS:
                if value:
                    self.texts.setdefault(name, []).append(cast(str, value))
            elif name == "tool_calls":
                for call in cast("list[ToolCall]", value):
                    self._add_call(call)
            elif name == "annotations":
                self.annotations.extend(cast("list[Any]", value) or [])
            elif name in _PIECES and name in self.extra:
                self.extra[name] = _continued(self.extra[name], value, _PIECES[name])
            elif name != "role":
                self.extra[name] = value

    def _add_call(self, delta: ToolCall) -> None:
        index = delta["index"]
        call = self.calls.setdefault(index, {"type": "function", "function": {"name": "", "arguments": ""}})
        function = delta.get("function", {})
        if "id" in delta:
            call["id"] = delta["id"]
        if function.get("name"):
            call["function"]["name"] = function["name"]
        if function.get("arguments"):
            self.arguments.setdefault(index, []).append(function["arguments"])
        for name, value in delta.items():
            if name not in ("index", "id", "type", "function"):
                call[name] = value  # type: ignore[literal-required]

    def text(self) -> str:
        """Everything the model wrote, for counting."""
        pieces = [piece for name in _TEXTS for piece in self.texts.get(name, [])]
        for index, call in self.calls.items():
            pieces += [call["function"]["name"], *self.arguments.get(index, [])]
        return "".join(pieces)

    def choice(self) -> Choice:
        message: dict[str, Any] = {"role": "assistant"}
        for name in ("content", "refusal"):
            message[name] = "".join(self.texts[name]) if name in self.texts else None
        message["annotations"] = self.annotations
        if "reasoning_content" in self.texts:
            message["reasoning_content"] = "".join(self.texts["reasoning_content"])
        if self.calls:
            for index, call in self.calls.items():
                call["function"]["arguments"] = "".join(self.arguments.get(index, [])) or "{}"
            message["tool_calls"] = [self.calls[index] for index in sorted(self.calls)]
        elif message["content"] is None and message["refusal"] is None:
            message["content"] = ""
        message.update(self.extra)
        return {
            "index": self.index,
            "message": cast(ResponseMessage, message),
            "logprobs": self.logprobs or None,
            "finish_reason": self.finish_reason,
            **self.choice_extra,  # type: ignore[typeddict-item]
        }


def _continued(so_far: Any, piece: Any, texts: tuple[str, ...]) -> Any:
    """An object, or a list of objects with an `index` each, with the next piece of it."""
    if isinstance(so_far, dict) and isinstance(piece, dict):
        joined = {name: so_far[name] + piece[name] for name in texts if _are_texts(so_far.get(name), piece.get(name))}
        return {**so_far, **piece, **joined}
    if not isinstance(so_far, list) or not isinstance(piece, list):
        return piece
    items = list(so_far)
    for item in piece:
        at = [place for place, other in enumerate(items) if _is_of(item, other)]
        if at:
            items[at[0]] = _continued(items[at[0]], item, texts)
        else:
            items.append(item)
    return items


def _are_texts(*values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def _is_of(piece: Any, item: Any) -> bool:
    """Whether a piece continues an item: the same kind of thing at the same index."""
    if not isinstance(piece, dict) or not isinstance(item, dict) or not isinstance(piece.get("index"), int):
        return False
    return (piece["index"], piece.get("type")) == (item.get("index"), item.get("type"))


class Fold:
    """Adds chunks, answers the whole. Usage may come on any chunk; the last that is not null wins."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self._choices: dict[int, _ChoiceFold] = {}
        self._top: dict[str, Any] = {}

    def add(self, chunk: ChatChunk) -> None:
        for name, value in chunk.items():
            if name not in _CHUNK_ONLY:
                self._top[name] = value
        self.usage = chunk.get("usage") or self.usage
        for choice in chunk.get("choices", []):
            index = choice.get("index", 0)
            if index not in self._choices:
                self._choices[index] = _ChoiceFold(index)
            self._choices[index].add(choice)

    def text(self) -> str:
        """Everything written so far, over all choices."""
        return "".join(choice.text() for choice in self._choices.values())

    def tool_messages(self) -> list[ResponseMessage]:
        """The messages that call tools, so far."""
        return [choice.choice()["message"] for choice in self._choices.values() if choice.calls]

    def response(self) -> ChatResponse:
        """The whole answer so far."""
        choices = [self._choices[index].choice() for index in sorted(self._choices)]
        response = {**self._top, "object": "chat.completion", "choices": choices}
        if self.usage is not None:
            response["usage"] = self.usage
        return cast(ChatResponse, response)
