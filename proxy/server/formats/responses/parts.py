"""Translates: the output items of an answer, each from beginning to end, with its events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proxy.providers.base.answers import mapping, objects
from proxy.server.formats.responses import state
from proxy.server.formats.responses.tools import Named, free_input

Emit = Callable[[str, dict[str, Any]], None]
Item = dict[str, Any]


class OutputItem:
    """One item. `place`: its index in the output."""

    def __init__(self, emit: Emit, place: int, item: Item) -> None:
        self.item = item
        self._emit = emit
        self.at = {"item_id": item["id"], "output_index": place}
        self._of_item = {"output_index": place}

    def open(self) -> None:
        self._emit("response.output_item.added", {**self._of_item, "item": dict(self.item)})

    def end(self) -> None:
        self._emit("response.output_item.done", {**self._of_item, "item": self.item})


class Thought(OutputItem):
    """A reasoning item: its text is the summary, and its state is what the vendor needs back."""

    def __init__(self, emit: Emit, place: int, identity: str) -> None:
        super().__init__(emit, place, {"id": identity, "type": "reasoning", "summary": [], "encrypted_content": None})
        self._pieces: list[str] = []
        self._at_part = {**self.at, "summary_index": 0}
        self.fields: dict[str, Any] = {}
        self.calls: dict[str, Any] = {}
        self.open()

    def add(self, text: str) -> None:
        if not self._pieces:
            part = {"type": "summary_text", "text": ""}
            self._emit("response.reasoning_summary_part.added", {**self._at_part, "part": part})
        self._pieces.append(text)
        self._emit("response.reasoning_summary_text.delta", {**self._at_part, "delta": text})

    def close(self, status: str = "completed") -> None:
        if self._pieces:
            part = {"type": "summary_text", "text": "".join(self._pieces)}
            self._emit("response.reasoning_summary_text.done", {**self._at_part, "text": part["text"]})
            self._emit("response.reasoning_summary_part.done", {**self._at_part, "part": part})
            self.item["summary"] = [part]
        self.item["encrypted_content"] = state.packed(self.fields, self.calls)
        self.end()


class Said(OutputItem):
    """A message: texts and refusals."""

    def __init__(self, emit: Emit, place: int, identity: str) -> None:
        message: Item = {"id": identity, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        super().__init__(emit, place, message)
        self.kind: str | None = None  # of the part that is open
        self._parts: list[Item] = []
        self._pieces: list[str] = []
        self.open()

    @property
    def at_part(self) -> dict[str, Any]:
        return {**self.at, "content_index": len(self._parts) - 1}

    def add(self, kind: str, text: str, logprobs: list[Item]) -> None:
        """Adds text. `kind`: output_text or refusal."""
        if kind != self.kind:
            self._begin(kind)
        self._pieces.append(text)
        told: Item = {"delta": text}
        if kind == "output_text":
            told["logprobs"] = [_brief(each) for each in logprobs]
            self._parts[-1]["logprobs"] += logprobs
        self._emit(f"response.{kind}.delta", {**self.at_part, **told})

    def note(self, text: str) -> None:
        """Adds a piece of text whose event is written elsewhere."""
        self._pieces.append(text)

    def weigh(self, logprobs: list[Item]) -> None:
        """Adds log probabilities that came apart from their text."""
        if self.kind == "output_text":
            self._parts[-1]["logprobs"] += logprobs

    def cite(self, annotations: list[Item], *, is_told: bool = True) -> None:
        """Adds sources of the last text."""
        part = next((each for each in reversed(self._parts) if each["type"] == "output_text"), None)
        if part is None:
            return
        at = {**self.at, "content_index": self._parts.index(part)}
        for each in annotations:
            if is_told:
                index = {"annotation_index": len(part["annotations"])}
                self._emit("response.output_text.annotation.added", {**at, **index, "annotation": each})
            part["annotations"].append(each)

    def _begin(self, kind: str) -> None:
        self._end_part()
        self.kind, self._pieces = kind, []
        empty = {"text": "", "annotations": [], "logprobs": []} if kind == "output_text" else {"refusal": ""}
        self._parts.append({"type": kind, **empty})
        self._emit("response.content_part.added", {**self.at_part, "part": {"type": kind, **empty}})

    def _end_part(self) -> None:
        if self.kind is None:
            return
        part, name = self._parts[-1], "text" if self.kind == "output_text" else "refusal"
        part[name] = "".join(self._pieces)
        told = {name: part[name]}
        if name == "text":
            told["logprobs"] = [_brief(each) for each in part["logprobs"]]
        self._emit(f"response.{self.kind}.done", {**self.at_part, **told})
        self._emit("response.content_part.done", {**self.at_part, "part": part})
        self.kind = None

    def close(self, status: str = "completed") -> None:
        self._end_part()
        self.item["status"], self.item["content"] = status, self._parts
        self.end()


class Called(OutputItem):
    """A call. The input of a custom tool is inside the arguments, and is sent once they are whole."""

    def __init__(self, emit: Emit, place: int, identity: str, call_id: str, named: Named) -> None:
        kind, self._field = ("custom_tool_call", "input") if named.is_custom else ("function_call", "arguments")
        item: Item = {"id": identity, "type": kind, "status": "in_progress", "call_id": call_id, "name": named.name}
        item |= {"namespace": named.namespace} if named.namespace is not None else {}
        super().__init__(emit, place, {**item, self._field: ""})
        self._events = f"response.{kind if named.is_custom else 'function_call_arguments'}"
        self._events += "_input" if named.is_custom else ""
        self._is_custom = named.is_custom
        self._pieces: list[str] = []
        self.open()

    def add(self, text: str) -> None:
        if text:
            self._pieces.append(text)
            if not self._is_custom:
                self._delta(text)

    def close(self, status: str = "completed") -> None:
        text = "".join(self._pieces)
        if self._is_custom:
            text = free_input(text)
            self._delta(text)
        elif not text:
            text = "{}"
            self._delta(text)
        self._emit(f"{self._events}.done", {**self.at, self._field: text})
        self.item[self._field], self.item["status"] = text, status
        self.end()

    def _delta(self, text: str) -> None:
        self._emit(f"{self._events}.delta", {**self.at, "delta": text})


def flat_citations(annotations: object) -> list[Item]:
    """`url_citation`s of a chat, which has their fields one level deeper."""
    found = []
    for each in objects(annotations):
        inner = mapping(each.get("url_citation")) or each
        if isinstance(inner.get("url"), str):
            start, end = inner.get("start_index"), inner.get("end_index")
            found.append(
                {
                    "type": "url_citation",
                    "start_index": start if isinstance(start, int) else 0,
                    "end_index": end if isinstance(end, int) else 0,
                    "title": inner.get("title") or "",
                    "url": inner["url"],
                }
            )
    return found


def _brief(token: Item) -> Item:
    """A token as in events, without its bytes."""
    others = [
        {"token": each.get("token"), "logprob": each.get("logprob")} for each in objects(token.get("top_logprobs"))
    ]
    return {"token": token.get("token"), "logprob": token.get("logprob"), "top_logprobs": others}
