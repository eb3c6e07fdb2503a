"""Translates: folds the chunks of a stream into the whole answer (the fold law: it equals `parse_response`).

Texts are kept in pieces and joined once: adding a piece never copies the earlier ones.
"""

from __future__ import annotations

from typing import Any, cast

from proxy.schema.chat import ChatChunk, ChatResponse, Choice, ChunkChoice, Delta, ResponseMessage, ToolCall
from proxy.schema.usage import UsageReport, merged

_TEXTS = ("content", "refusal", "reasoning_content")
# Fields of a delta that come in pieces, with their texts to concatenate; for other values in them the last one counts.
_PIECES = {"audio": ("data", "transcript"), "function_call": ("arguments",), "reasoning_details": ("text", "summary")}
THOUGHTS_SO_FAR = (
    "thinking_so_far"  # of a chunk: the signed thoughts that its answer ends with, as soon as they are there
)
_CHUNK_ONLY = frozenset({"object", "choices", "usage", THOUGHTS_SO_FAR})


class _ChoiceFold:
    """Accumulates one choice."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.texts: dict[str, list[str]] = {}
        self.calls: dict[int, ToolCall] = {}
        self.arguments: dict[int, list[str]] = {}  # or the input of a custom tool
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
            elif name in _PIECES:
                if name not in self.extra:
                    self.extra[name] = _Pieces(_PIECES[name])
                self.extra[name].add(value)
            elif name != "role":
                self.extra[name] = value

    def _add_call(self, delta: ToolCall) -> None:
        index = delta["index"]
        if "custom" in delta:
            self._add_custom(index, cast("dict[str, Any]", delta))
            return
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

    def _add_custom(self, index: int, delta: dict[str, Any]) -> None:
        """A piece of a call of a custom tool."""
        empty: Any = {"custom": {"name": "", "input": ""}}
        call = cast("dict[str, Any]", self.calls.setdefault(index, empty))
        custom = delta["custom"]
        if custom.get("name"):
            call["custom"]["name"] = custom["name"]
        if custom.get("input"):
            self.arguments.setdefault(index, []).append(custom["input"])
        call |= {name: value for name, value in delta.items() if name not in ("index", "custom")}

    def text(self) -> str:
        """All generated text, for token counting."""
        pieces = [piece for name in _TEXTS for piece in self.texts.get(name, [])]
        for index, call in self.calls.items():
            said: Any = call.get("custom") or call["function"]
            pieces += [said["name"], *self.arguments.get(index, [])]
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
                text = "".join(self.arguments.get(index, []))
                if "custom" in call:
                    cast("dict[str, Any]", call)["custom"]["input"] = text
                else:
                    call["function"]["arguments"] = text or "{}"
            message["tool_calls"] = [self.calls[index] for index in sorted(self.calls)]
        elif message["content"] is None and message["refusal"] is None:
            message["content"] = ""
        for name, value in self.extra.items():
            message[name] = value.whole() if isinstance(value, _Pieces) else value
        return {
            "index": self.index,
            "message": cast(ResponseMessage, message),
            "logprobs": self.logprobs or None,
            "finish_reason": self.finish_reason,
            **self.choice_extra,  # type: ignore[typeddict-item]
        }


class _Object:
    """Accumulates an object: `texts` are concatenated; for other fields the last value counts."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        self._texts = texts
        self._fields: dict[str, Any] = {}
        self._parts: dict[str, list[str]] = {}

    def add(self, piece: dict[str, Any]) -> None:
        for name, value in piece.items():
            if name in self._texts and isinstance(value, str):
                self._parts.setdefault(name, []).append(value)
                self._fields.setdefault(name, value)
            else:
                self._parts.pop(name, None)
                self._fields[name] = value

    def whole(self) -> dict[str, Any]:
        return self._fields | {name: "".join(parts) for name, parts in self._parts.items()}


class _Objects:
    """Accumulates a list of objects. Pieces with the same `index` and `type` are merged; the rest are appended."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        self._texts = texts
        self._items: list[Any] = []
        self._by_index: dict[tuple[int, str | None], _Object] = {}

    def add(self, piece: list[Any]) -> None:
        for item in piece:
            if not isinstance(item, dict):
                self._items.append(item)
                continue
            place = _place(item)
            found = None if place is None else self._by_index.get(place)
            if found is None:
                found = _Object(self._texts)
                self._items.append(found)
                if place is not None:
                    self._by_index[place] = found
            found.add(item)

    def whole(self) -> list[Any]:
        return [item.whole() if isinstance(item, _Object) else item for item in self._items]


def _place(item: dict[str, Any]) -> tuple[int, str | None] | None:
    index, kind = item.get("index"), item.get("type")
    return (index, kind) if isinstance(index, int) and isinstance(kind, str | None) else None


class _Pieces:
    """Accumulates a vendor's own field. A piece of another kind replaces the earlier ones."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        self._texts = texts
        self._grown: Any = None

    def add(self, piece: Any) -> None:
        if isinstance(piece, dict):
            if not isinstance(self._grown, _Object):
                self._grown = _Object(self._texts)
            self._grown.add(piece)
        elif isinstance(piece, list):
            if not isinstance(self._grown, _Objects):
                self._grown = _Objects(self._texts)
            self._grown.add(piece)
        else:
            self._grown = piece

    def whole(self) -> Any:
        return self._grown.whole() if isinstance(self._grown, _Object | _Objects) else self._grown


class Fold:
    """Accumulates the whole answer of a stream. Usage may come on any chunk; `merged` decides what counts.

    It keeps all content. To count tokens only, use `StreamTally`.
    """

    def __init__(self) -> None:
        self.usage: UsageReport | None = None
        self._choices: dict[int, _ChoiceFold] = {}
        self._top: dict[str, Any] = {}

    def add(self, chunk: ChatChunk) -> None:
        for name, value in chunk.items():
            if name not in _CHUNK_ONLY:
                self._top[name] = value
        if (report := chunk.get("usage")) is not None:
            self.usage = merged(self.usage, report)
        for choice in chunk.get("choices", []):
            index = choice.get("index", 0)
            if index not in self._choices:
                self._choices[index] = _ChoiceFold(index)
            self._choices[index].add(choice)

    def text(self) -> str:
        """All text so far, over all choices."""
        return "".join(choice.text() for choice in self._choices.values())

    def tool_messages(self) -> list[ResponseMessage]:
        """The messages with tool calls, so far."""
        return [choice.choice()["message"] for choice in self._choices.values() if choice.calls]

    def response(self) -> ChatResponse:
        """The whole answer so far."""
        choices = [self._choices[index].choice() for index in sorted(self._choices)]
        response = {**self._top, "object": "chat.completion", "choices": choices}
        if self.usage is not None:
            response["usage"] = self.usage
        return cast(ChatResponse, response)
