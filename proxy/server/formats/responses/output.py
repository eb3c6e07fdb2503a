"""Translates: canonical chunks into the output items of a Response, in order, and their events.

Items follow each other: one ends when the next begins. A call that begins while another is open waits for the end,
because pieces of several calls may alternate. Data that comes only at the end of an answer (for most vendors, the state
of its reasoning) is in a last reasoning item.
"""

from __future__ import annotations

from typing import Any, cast

from proxy.providers.base.answers import listed, mapping, objects
from proxy.schema.chat import ChatChunk, ChatResponse
from proxy.schema.fold import THOUGHTS_SO_FAR, Fold
from proxy.schema.long_text import concatenated
from proxy.server.formats.responses import state
from proxy.server.formats.responses.parts import Called, Emit, Item, Said, Thought, flat_citations
from proxy.server.formats.responses.references import item_id
from proxy.server.formats.responses.tools import Named

_BASE64, _MAX_HEAD = ";base64,", 256  # of a data URL
_THOUGHTS = "thinking_blocks"  # the state that comes with the reasoning itself
_LATE = (*(name for name in state.FIELDS if name != _THOUGHTS), "images")


class Output:
    """The items of one answer. `identity`: of its call, from which the ids of the items are built."""

    def __init__(self, identity: str, names: dict[str, Named], emit: Emit) -> None:
        self.items: list[Item] = []
        self.finish_reason: str | None = None
        self.extras: dict[str, Any] = {}
        self.current: Thought | Said | Called | None = None
        self._identity = identity
        self._names = names
        self._emit = emit
        self._first_call: int | None = None  # the index of the call whose events are sent as it arrives
        self._waiting: dict[int, dict[str, Any]] = {}  # the other calls
        self._late_texts: list[tuple[str, str]] = []  # after the first call
        self._late_thoughts: list[str] = []
        self._told_thoughts = 0  # thinking blocks that are in an item
        self._thoughts: list[Any] = []
        self._signed: dict[str, Any] = {}  # signatures of calls, by id, that are in no item yet
        self._rest = Fold()
        self._last_said: Said | None = None

    def add(self, chunk: ChatChunk) -> None:
        for choice in chunk.get("choices", ()):
            if choice.get("index", 0) == 0:
                self._choice(cast("dict[str, Any]", choice))
        if (thoughts := cast("dict[str, Any]", chunk).get(THOUGHTS_SO_FAR)) is not None:
            self._keep(listed(thoughts))
        for name in ("service_tier", "system_fingerprint"):
            if name in chunk:
                self.extras[name] = cast("dict[str, Any]", chunk)[name]

    def add_text(self, text: str) -> None:
        self._say("output_text", text, [])

    def add_whole(self, response: ChatResponse) -> None:
        """Adds a whole answer, in the order of its stream."""
        choice: Any = response["choices"][0]
        message = dict(choice["message"])
        calls = [{**call, "index": place} for place, call in enumerate(message.pop("tool_calls", None) or [])]
        first = {name: message.pop(name, None) for name in ("reasoning_content", _THOUGHTS)}
        logprobs = choice.get("logprobs")
        self._choice({"delta": first})
        self._choice({"delta": {"content": message.pop("content", None)}, "logprobs": logprobs})
        for name in ("refusal", "annotations"):
            self._choice({"delta": {name: message.pop(name, None)}})
        self._choice({"delta": {"tool_calls": calls}})
        self._choice({"delta": message, "finish_reason": choice.get("finish_reason")})
        self.add(cast(ChatChunk, {**response, "choices": []}))

    def end(self) -> list[Item]:
        """Ends all items, and returns them."""
        status = "incomplete" if self.finish_reason == "length" else "completed"
        is_last = not (self._waiting or self._late_texts)
        self._close(status if is_last else "completed")
        for index in sorted(self._waiting):
            self._open_call(self._waiting[index])
            self._close()
        for kind, text in self._late_texts:
            self._first_call = None
            self._say(kind, text, [])
        self._close(status)
        self._end_rest()
        if not self.items:
            self._say("output_text", "", [])
            self._close(status)
        return self.items

    # --- pieces -------------------------------------------------------------------------------------------------------

    def _choice(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta") or {}
        spoken = objects(mapping(choice.get("logprobs")).get("content"))
        if thought := delta.get("reasoning_content"):
            self._think(thought)
        if delta.get(_THOUGHTS):
            self._keep(listed(delta[_THOUGHTS]))
        if content := delta.get("content"):
            self._say("output_text", content, spoken)
        elif spoken and isinstance(self.current, Said):
            self.current.weigh(spoken)
        if refusal := delta.get("refusal"):
            self._say("refusal", refusal, [])
        for call in delta.get("tool_calls") or ():
            self._call(call)
        if delta.get("annotations"):
            self._cite(flat_citations(delta["annotations"]))
        rest = {name: delta[name] for name in _LATE if delta.get(name)}
        if rest:
            self._rest.add(cast(ChatChunk, {"choices": [{"index": 0, "delta": rest}]}))
        self.finish_reason = choice.get("finish_reason") or self.finish_reason

    def _think(self, text: str) -> None:
        if self._first_call is not None:
            self._late_thoughts.append(text)
            return
        self._thought().add(text)

    def _thought(self) -> Thought:
        if not isinstance(self.current, Thought):
            self._close()
            self.current = Thought(self._emit, len(self.items), self._id("rs"))
        return self.current

    def _keep(self, blocks: list[Any]) -> None:
        """Takes all thinking blocks so far. New ones belong to the open reasoning item."""
        self._thoughts = blocks
        if isinstance(self.current, Thought) or (self.current is None and not self.items):
            fields = self._thought().fields
            fields[_THOUGHTS] = [*fields.get(_THOUGHTS, ()), *blocks[self._told_thoughts :]]
            self._told_thoughts = len(blocks)

    def _say(self, kind: str, text: str, logprobs: list[Item]) -> None:
        if self._first_call is not None:
            self._late_texts.append((kind, text))
            return
        if not isinstance(self.current, Said):
            self._close()
            self.current = self._last_said = Said(self._emit, len(self.items), self._id("msg"))
        self.current.add(kind, text, logprobs)

    def _cite(self, annotations: list[Item]) -> None:
        if self._last_said is not None:
            self._last_said.cite(annotations, is_told=self.current is self._last_said)

    def _call(self, delta: dict[str, Any]) -> None:
        index = delta.get("index", 0)
        if self._first_call is None:
            self._open_call(delta)
            self._first_call = index
        elif index == self._first_call:
            cast(Called, self.current).add(_arguments(delta))
        else:
            before = self._waiting.setdefault(index, {"pieces": []})
            before["pieces"].append(_arguments(delta))
            before |= {name: value for name, value in delta.items() if name not in before or name == "id"}

    def _open_call(self, delta: dict[str, Any]) -> None:
        call_id = delta.get("id") or f"call_{self._identity}_{len(self.items)}"
        said = delta.get("custom") or delta.get("function") or {}
        name = said.get("name") or ""
        if delta.get(state.OF_CALLS):
            self._sign(call_id, delta[state.OF_CALLS])
        self._close()
        named = self._names.get(name) or Named(name)
        prefix = "ctc" if named.is_custom else "fc"
        self.current = Called(self._emit, len(self.items), self._id(prefix), call_id, named)
        self.current.add("".join(delta["pieces"]) if "pieces" in delta else _arguments(delta))

    def _sign(self, call_id: str, extra: Any) -> None:
        of = self.current.calls if isinstance(self.current, Thought) else self._signed
        of[call_id] = extra

    # --- the end ------------------------------------------------------------------------------------------------------

    def _end_rest(self) -> None:
        """Ends with state that came after its reasoning, and images."""
        choices = self._rest.response()["choices"]
        rest: dict[str, Any] = dict(choices[0]["message"]) if choices else {}
        images = objects(rest.pop("images", None))
        rest[_THOUGHTS] = self._thoughts[self._told_thoughts :]
        if self._late_thoughts or self._signed or any(rest.get(name) for name in state.FIELDS):
            thought = self._thought()
            for text in self._late_thoughts:
                thought.add(text)
            thought.fields, thought.calls = rest, self._signed
            self._close()
        for image in images:
            self._picture(image)

    def _picture(self, image: Item) -> None:
        url = str(mapping(image.get("image_url")).get("url"))
        head, comma, _ = url[:_MAX_HEAD].partition(_BASE64)
        if not comma:
            return
        data = concatenated("", url, len(head + comma))
        place, form = {"output_index": len(self.items)}, head.rpartition("/")[2]
        item = {"id": self._id("ig"), "type": "image_generation_call", "status": "completed"}
        item |= {"result": data, "output_format": form}
        self._emit("response.output_item.added", {**place, "item": {**item, "status": "in_progress", "result": None}})
        self._emit("response.output_item.done", {**place, "item": item})
        self.items.append(item)

    def _close(self, status: str = "completed") -> None:
        if self.current is not None:
            self.current.close(status)
            self.items.append(self.current.item)
            self.current = None

    def _id(self, prefix: str) -> str:
        return item_id(prefix, self._identity, len(self.items))


def _arguments(delta: dict[str, Any]) -> str:
    said = delta.get("function") or {}
    return said.get("arguments") or (delta.get("custom") or {}).get("input") or ""
